"""The adapters: one file each, named for its technology and its port."""
