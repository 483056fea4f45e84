"""What the simulator writes on a connection that goes away under it."""

from types import SimpleNamespace

import anyio
import pytest

from infrastructure.simulator.counters import Board
from infrastructure.simulator.endpoint import Endpoint
from infrastructure.simulator.listener import Listener
from infrastructure.simulator.openai import OpenAI
from infrastructure.simulator.schedule import Schedule
from infrastructure.simulator.script import Ending, Staged
from infrastructure.simulator.streaming import play
from tests.infrastructure.raw import connection, post

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


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_client_that_leaves_before_its_headers_is_no_error(stream, caplog):
    """Whoever runs the simulator would be shown a stack trace for what every client may do."""
    board, listeners = Board(["openai"]), {}
    app = Endpoint(OpenAI(), board, Schedule(), listeners).app()
    app.on_response_prepare.append(_leave)
    listener = listeners["openai"] = Listener(app, "127.0.0.1", 0)
    await listener.on()
    body = b'{"model": "gpt-4o-mini", "stream": %b, "messages": [{"role": "user", "content": "?"}]}' % stream.encode()

    async with connection(listener.url) as (reader, writer):
        writer.write(post("/v1/chat/completions", "localhost", body))
        assert await reader.read() == b""
    with anyio.fail_after(5):
        await board.until("openai.closed_by_client==1", 5)
    await listener.close()

    assert caplog.messages == []


async def _leave(request, _):
    request.transport.close()
