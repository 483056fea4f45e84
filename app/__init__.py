"""Litestar, Granian, the command line and the wiring. Nothing is decided here."""
