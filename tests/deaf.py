"""A server that does not answer the telephone."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port of this machine whose queue is full: the system leaves further connections without an answer."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for filling in (first, second):
            filling.settimeout(0)
            filling.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
