"""Clients that read slowly, never, or not at all: they alone are slow, and memory is bounded."""

import asyncio
from contextlib import suppress

import aiohttp
import psutil
import pytest

from tests.app import metrics
from tests.app.asking import MODEL, STREAM, connected, of_type
from tests.app.test_slow_clients import mute
from tests.fleet.checks import check_whole
from tests.fleet.readers import question, reading

pytestmark = pytest.mark.anyio
TIMES = 1000
AT_ONCE = 40
TOKENS = 60
GROWTH_BYTES = 48 * 1024 * 1024
"""Of each instance, while a thousand such clients come and go: what they asked is kept for those who ask it again."""


def resident_bytes(instance):
    return sum(child.memory_info().rss for child in psutil.Process(instance.process.pid).children())


async def leave_at_once(url, query):
    """Ask, and go before there is an answer."""
    async with connected(url) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.ask(STREAM, query)


async def never_read(url, query):
    """Ask, and hold the connection open until the answer has ended, for all others who asked the same."""
    connection = mute(url, STREAM, {"model": MODEL, "query": query})
    try:
        async with connected(url) as client:
            await client.ask(STREAM, query)
    finally:
        connection.close()


async def read_slowly(url, query):
    """Ask, and take a few bytes at a time."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=64) as session,
        session.post(url + STREAM, json={"model": MODEL, "query": query}) as response,
    ):
        async for _ in response.content.iter_chunked(16):
            await asyncio.sleep(0)
        assert response.status == 200


async def come_and_go(instances, kinds, queries):
    """A thousand of them, so many at once, spread over the instances."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(at):
        async with gate:
            await kinds[at % len(kinds)](instances[at % len(instances)].url, queries[at % len(queries)])

    await asyncio.gather(*(one(at) for at in range(TIMES)))


async def test_a_thousand_clients_that_do_not_read_disturb_nobody(instances, simulator):
    """Who reads gets everything meanwhile; afterwards nothing is left of the others."""
    simulator.behave("openai", tokens=TOKENS, gap_s=0.1)
    queries = [question() for _ in range(50)]
    before = [resident_bytes(instance) for instance in instances]
    going = asyncio.create_task(come_and_go(instances, (leave_at_once, never_read, read_slowly), queries))
    async with reading(instances, 60, followers=20) as readers:
        pass
    check_whole(readers, TOKENS)
    await going
    for instance, resident in zip(instances, before, strict=True):
        async with connected(instance.url) as client:
            await metrics.until(client, "sse_active_connections", lambda live: live == 0)
        assert resident_bytes(instance) - resident < GROWTH_BYTES
    await simulator.until("openai.live==0", timeout_s=20)


async def test_who_never_reads_keeps_nobody_waiting(instances, simulator):
    """The stream that it asked for goes on for those who follow it elsewhere, chunk by chunk."""
    simulator.behave("openai", tokens=TOKENS, gap_s=0.05)
    query = question()
    with mute(instances[0].url, STREAM, {"model": MODEL, "query": query}):
        await simulator.until("openai.live==1")
        async with connected(instances[1].url) as client, client.open(STREAM, query) as stream:
            await stream.chunks(5)
            await simulator.until("openai.live==1")
            await stream.all()
    assert stream.headers["x-cache"] == "coalesced"
    assert len(of_type(stream.events, "complete")) == 1
    assert simulator.counters("openai")["calls"] == 1
