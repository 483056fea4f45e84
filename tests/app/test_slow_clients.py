"""Clients that ask and do not read: they alone are slow, and what is held for them is bounded."""

import json
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest

from tests.app import metrics
from tests.app.asking import connected
from tests.serving import serving

pytestmark = pytest.mark.anyio

CLIENTS = 60
TEXT = " ".join(["w" * 500] * 16_000)
"""8 MB: of half of that the kernel might take care, and then nothing would be held for anybody."""

HELD_BYTES = 800_000
"""What the process may grow by for each of them: a few pieces of the answer."""


def mute(url: str, path: str, body: dict) -> socket.socket:
    """A client that has asked and will never read."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((parts.hostname, parts.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def resident_bytes(service) -> int:
    return sum(child.memory_info().rss for child in psutil.Process(service.process.pid).children())


@pytest.mark.parametrize(("path", "more"), [("/v1/stream", {}), ("/v1/chat/completions", {"stream": True})])
async def test_a_stored_answer_is_sent_only_as_fast_as_it_is_read(simulator, path, more):
    """Otherwise a few hundred of them would take all memory, past every limit on streams."""
    simulator.behave("openai", text=TEXT, gap_ms=0)
    message = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a very long answer"}]} | more
    with serving(simulator) as service:
        async with connected(service.url) as client:
            for _ in range(2):
                async with client.request("POST", path, json=message) as stream:
                    assert len(await stream.response.read()) > len(TEXT)
            before = resident_bytes(service)

            with ExitStack() as mutes:
                for _ in range(CLIENTS):
                    mutes.enter_context(mute(service.url, path, message))
                await metrics.until(client, "sse_active_connections", lambda count: count == CLIENTS)
                grown = resident_bytes(service) - before
            await metrics.until(client, "sse_active_connections", lambda count: count == 0)
    assert grown < CLIENTS * HELD_BYTES
    assert simulator.counters("openai")["calls"] == 1
