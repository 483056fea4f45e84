"""An instance dies or stands still: another goes on with what it led, and no client loses or repeats anything."""

import asyncio
import signal

import pytest

from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type
from tests.fleet.checks import STREAMS, check_shared, check_whole, count_calls
from tests.fleet.instances import fleet
from tests.fleet.readers import question, reading

pytestmark = pytest.mark.anyio


async def test_no_stream_is_lost_when_an_instance_is_killed(three, simulator):
    """Its readers come back elsewhere, and each answer it was giving is asked on once."""
    simulator.behave("openai", tokens=50, gap_s=0.2)
    async with reading(three.instances, STREAMS, followers=30) as readers:
        led = {reader.query for reader in readers[:STREAMS] if reader.at == 0}
        three.instances[0].kill()

    check_whole(readers, 50)
    assert count_calls(simulator) <= STREAMS + len(led)


async def test_a_leader_that_wakes_up_is_refused(three, simulator):
    """It stood still for ten seconds; who stayed with it reads on what its successor wrote."""
    simulator.behave("openai", tokens=64, gap_s=0.25)
    async with reading(three.instances, STREAMS, followers=30) as readers:
        led = [reader for reader in readers[:STREAMS] if reader.at == 0]
        for reader in led[::3]:
            reader.silence_s = 30.0
        three.instances[0].pause()
        await asyncio.sleep(10)
        three.instances[0].resume()

    check_whole(readers, 64)
    assert count_calls(simulator) <= STREAMS + len(led)
    await check_shared(simulator, three.instances)


async def test_who_was_sent_more_than_its_instance_left_hears_that_it_was_interrupted(simulator, redis_server):
    """The client has done nothing wrong; and what another has gone on with would not fit behind what it has."""
    simulator.behave("openai", tokens=1000, gap_s=0.05)
    with fleet(simulator, redis_server.url, redis_server.url) as [one, two]:
        async with connected(one.url) as first, connected(two.url) as second, first.open(STREAM) as leading:
            await leading.chunks(3)
            path, headers = f"/v1/streams/{leading.stream_id}", {"Last-Event-ID": "500"}
            async with second.request("GET", path) as following:
                await following.chunks(3)
                one.pause()
                await simulator.until("openai.calls==2", timeout_s=10)
                native = await second.send("GET", path, headers=headers)
                chunks = await second.send("GET", path + "?format=openai", headers=headers)

    [event], [chunk] = native.events, chunks.events
    assert (native.status, event.number, event.json["code"]) == (200, 501, "stream_interrupted")
    assert (chunks.status, chunk.number, chunk.json["error"]["code"]) == (200, 501, "stream_interrupted")
    assert b"[DONE]" not in chunks.raw


async def test_who_reads_elsewhere_loses_nothing_when_an_instance_is_stopped(simulator, redis_server):
    """The operator's end is no worse than a crash: another instance goes on, for a call more."""
    simulator.behave("openai", tokens=60, gap_s=0.05)
    query = question()
    with fleet(simulator, redis_server.url, redis_server.url) as [one, two]:
        async with connected(one.url) as first, connected(two.url) as second:
            async with first.open(STREAM, query) as leading:
                await leading.chunks(3)
                following = asyncio.create_task(second.ask(STREAM, query))
                await metrics.until(second, "sse_coalesced_total", lambda count: count == 1)
            one.is_alive = False
            await asyncio.to_thread(one.stop)
            followed = await following

    assert followed.events[-1].type == "complete", followed.events[-1].data
    assert [chunk.json["chunk_index"] for chunk in of_type(followed.events, "chunk")] == [
        *range(1, 62)
    ]  # the last says why it ended
    assert simulator.counters("openai")["calls"] == 2


async def test_who_alone_wants_what_was_lost_with_its_instance_hears_it_soon(three, simulator):
    """There is nobody else for whom another instance would go on with it."""
    simulator.behave("openai", tokens=50, gap_s=0.2)
    _, one, two = three.instances
    async with connected(one.url) as first, connected(two.url) as second:
        async with first.open(STREAM, question()) as leading:
            await leading.chunks(3)
            three.redis.process.send_signal(signal.SIGSTOP)
            await leading.chunks(12)
            one.kill()
            three.redis.process.send_signal(signal.SIGCONT)
        headers = {"Last-Event-ID": leading.events[-1].last_event_id}
        statuses = []
        async with asyncio.timeout(20):
            while not statuses or statuses[-1] == 503:
                again = await second.send("GET", f"/v1/streams/{leading.stream_id}", headers=headers)
                statuses.append(again.status)
                await asyncio.sleep(1)

    assert statuses[-1] == 200
    assert [event.json["code"] for event in again.events] == ["stream_interrupted"]
