"""What the simulator writes on a connection that goes away under it."""

from types import SimpleNamespace

import pytest

from infrastructure.simulator.script import Ending, Staged
from infrastructure.simulator.streaming import play

pytestmark = pytest.mark.anyio


class ClosingConnection:
    """A transport that begins to close with its second write, as one does whose peer has left."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return len(self.written) > 1


async def test_nothing_is_written_on_a_connection_that_is_closing():
    """The loop would warn of it, once for each write; the client has left, and counts as such."""
    connection = ClosingConnection()
    request = SimpleNamespace(transport=connection, protocol=SimpleNamespace(writing_paused=False))
    staged = Staged(opening=b"open", steps=iter([b"a", b"b", b"c"]), rest=b"rest", ending=Ending.WHOLE)
    steps_sent = []

    with pytest.raises(ConnectionResetError):
        await play(staged, request, ttft_s=0.0, gap_s=0.001, on_steps=steps_sent.append)

    assert (connection.written, steps_sent) == ([b"open", b"a"], [1])
