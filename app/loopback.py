"""Asking servers on this machine, which no proxy should be asked for."""

from urllib.request import ProxyHandler, build_opener

open_directly = build_opener(ProxyHandler({})).open
"""As urllib's `urlopen`, whatever proxy the environment names."""
