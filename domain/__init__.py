"""What Weir is, in the standard library alone: no I/O, no environment, no logging."""
