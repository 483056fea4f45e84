"""Who reads an answer at another instance than the one that leads it, where nobody reads it, reads it to its end."""

import asyncio
import signal
from contextlib import asynccontextmanager

import pytest

from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type
from tests.fleet.checks import count_calls, until_whole
from tests.fleet.instances import fleet
from tests.fleet.readers import question
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.anyio
TOKENS = 80
GRACE_S = 1.5


@pytest.fixture(scope="module")
def pair_session(simulation):
    """Two instances over a Redis, to which anything may be done."""
    redis = RedisServer()
    with fleet(simulation, redis.url, redis.url, WEIR_GRACE_S=str(GRACE_S)) as instances:
        yield redis, *instances
    redis.close()


@pytest.fixture
async def pair(pair_session, simulator):
    """They are one service, and simulated providers of which nothing was asked yet."""
    _, *instances = pair_session
    await until_whole(*instances)
    return pair_session


@asynccontextmanager
async def reader_elsewhere(one, two):
    """The reader at `two` of what `one` leads, whose own client has left."""
    query = question()
    async with connected(one.url) as first, connected(two.url) as second:
        coalesced_count = await metrics.total(second, "sse_coalesced_total")
        async with first.open(STREAM, query) as leading:
            await leading.chunks(3)
            following = asyncio.create_task(second.ask(STREAM, query))
            await metrics.until(second, "sse_coalesced_total", lambda count: count == coalesced_count + 1)
        await asyncio.sleep(GRACE_S)
        yield following


async def freeze(redis, two):
    """Redis stands still, for longer than it is believed that somebody follows."""
    redis.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(2.5)
    redis.process.send_signal(signal.SIGCONT)


async def restart(redis, two):
    """Redis comes back empty."""
    redis.stop()
    await asyncio.sleep(1.6)
    redis.start()


async def flush(redis, two):
    """Redis is emptied, again and again."""
    for _ in range(6):
        redis.flush()
        await asyncio.sleep(0.37)


async def stop_reader(redis, two):
    """The instance that reads stands still."""
    two.pause()
    await asyncio.sleep(5)
    two.resume()


@pytest.mark.parametrize("befalls", [freeze, restart, flush, stop_reader])
async def test_who_reads_elsewhere_reads_to_the_end(simulator, pair, befalls):
    """That nobody is known to read is no reason to end it: nobody can be known to, in that moment."""
    simulator.behave("openai", tokens=TOKENS, gap_s=0.2)
    redis, one, two = pair
    async with reader_elsewhere(one, two) as following:
        await befalls(redis, two)
        followed = await following

    assert followed.events[-1].type == "complete"
    assert [event.number for event in followed.events] == list(range(len(followed.events)))
    assert len(of_type(followed.events, "chunk")) == TOKENS + 1  # the last says why it ended
    assert count_calls(simulator) == 1


async def test_what_nobody_reads_anywhere_any_more_is_ended(simulator, pair):
    """The provider's call is paid for."""
    simulator.behave("openai", fault="stall", at=3)
    _, one, two = pair
    async with reader_elsewhere(one, two) as following:
        following.cancel()
        await simulator.until("openai.closed_by_client==1", timeout_s=25)


async def test_who_waits_for_a_slot_at_another_instance_reads_to_the_end(simulator, own_redis):
    """However long the wait: what it will read is followed meanwhile."""
    waiting = {"WEIR_MAX_CONNECTIONS": "1", "WEIR_QUEUE_SIZE": "4", "WEIR_QUEUE_TIMEOUT_S": "20"}
    simulator.behave("openai", tokens=60, gap_s=0.12, times=1)
    with fleet(simulator, own_redis.url) as [one], fleet(simulator, own_redis.url, **waiting) as [two]:
        async with connected(one.url) as first, connected(two.url) as second, first.open(STREAM) as leading:
            await leading.chunks(3)
            simulator.behave("openai", tokens=20, gap_s=0.15, times=1)
            async with second.open(STREAM) as other:
                await other.chunks(1)
                rejoining = asyncio.create_task(second.send("GET", f"/v1/streams/{leading.stream_id}"))
                await other.all()
            await leading.all()
            rejoined = await rejoining

    assert bytes(rejoined.raw) == bytes(leading.raw)
    assert rejoined.events[-1].type == "complete"


async def test_a_crowd_that_comes_for_a_long_answer_under_way_is_no_burden(simulator, pair):
    """Redis is asked for it once, and nobody pays for another."""
    simulator.behave("openai", tokens=4000, gap_s=0.002)
    query = question()
    _, one, two = pair
    async with connected(one.url) as first, connected(two.url) as second, first.open(STREAM, query) as leading:
        error_count = await metrics.total(second, "sse_redis_errors_total")
        await leading.chunks(3000)
        crowd = asyncio.gather(*(last_of(second, query) for _ in range(200)))
        await leading.all()
        ends = await crowd
        is_degraded = await metrics.total(second, "sse_degraded", component="redis")
        error_count -= await metrics.total(second, "sse_redis_errors_total")

    assert {cache for cache, _ in ends} == {"coalesced"}
    assert {chunk_count for _, chunk_count in ends} == {len(of_type(leading.events, "chunk"))}
    assert (is_degraded, error_count, count_calls(simulator)) == (0, 0, 1)


async def last_of(client, query):
    """Where the answer to `query` came from, and how many chunks it had; events are not looked at one by one."""
    chunk_count, tail = 0, b""
    async with client.open(STREAM, query) as stream:
        while data := await stream.response.content.readany():
            chunk_count += (tail + data).count(b"event: chunk") - tail.count(b"event: chunk")
            tail = (tail + data)[-1000:]
    assert b"event: complete" in tail
    return stream.headers["x-cache"], chunk_count
