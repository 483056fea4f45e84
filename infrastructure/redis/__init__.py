"""The adapters that make many instances one."""
