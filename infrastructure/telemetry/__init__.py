"""Listeners: what happened, as metrics, log lines and health."""
