"""Redis goes away in every way there is: streams go on, and what all share comes back by itself."""

import asyncio
import signal

import pytest

from tests.app.asking import connected
from tests.fleet.checks import STREAMS, check_shared, check_whole, count_calls, until_whole
from tests.fleet.readers import reading
from tests.redis_servers import counts

pytestmark = pytest.mark.anyio
TOKENS = 80
GAP_S = 0.12
FOLLOWERS = 30


@pytest.fixture
def answers_last(simulator):
    """Every answer takes ten seconds."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)


async def check(simulator, readers, instances, *, extra_calls=FOLLOWERS):
    """All streams are whole, for no more calls than that, and the instances are one service again.

    Who follows while Redis is away may go on alone, for a call of its own.
    """
    check_whole(readers, TOKENS)
    assert count_calls(simulator) <= STREAMS + extra_calls
    await check_shared(simulator, instances)


async def test_redis_is_killed_and_starts_again_empty(three, simulator, answers_last):
    """What was being answered is in it again, so that whoever comes back elsewhere finds it."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        three.redis.stop()
        await asyncio.sleep(0.7)
        three.redis.start()
        await until_whole(*three.instances)
        async with connected(three.instances[2].url) as client:
            address = f"/v1/streams/{readers[0].stream_id}"
            again = await client.send("GET", address, headers={"Last-Event-ID": "1"})
    await check(simulator, readers, three.instances)

    assert [event.data for event in again.events if event.type == "chunk"] == [
        event.data for event in readers[0].events if event.type == "chunk"
    ]


async def test_redis_is_killed_and_an_instance_after_its_return(three, simulator, answers_last):
    """What Redis had lost was written again, so nothing is lost with the instance either."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        three.redis.stop()
        three.redis.start()
        await asyncio.to_thread(three.redis.until, counts(at_least=STREAMS), "KEYS", "weir:gen:*:log:*")
        await asyncio.to_thread(three.redis.until, counts(at_least=STREAMS), "KEYS", "weir:stream:*")
        three.instances[0].kill()
    await check(simulator, readers, three.instances[1:], extra_calls=STREAMS // 3 + FOLLOWERS)


async def test_redis_stands_still_for_five_seconds(three, simulator, answers_last):
    """Those who follow elsewhere go on alone after a while, which costs a call each, and nobody a chunk."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS, silence_s=10.0) as readers:
        three.redis.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(5)
        three.redis.process.send_signal(signal.SIGCONT)
    await check(simulator, readers, three.instances)


async def test_connections_are_killed_and_scripts_forgotten(three, simulator, answers_last):
    """Again and again, while streams run and are followed."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        for _ in range(8):
            three.redis.ask("SCRIPT", "FLUSH")
            three.redis.ask("CLIENT", "KILL", "TYPE", "normal")
            three.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.4)
    await check(simulator, readers, three.instances)


async def test_one_instance_is_cut_off_from_redis(three, simulator, answers_last):
    """Its own streams go on there; what it follows, and what others follow of it, is answered twice."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS, silence_s=10.0) as readers:
        three.proxy.cut()
        await asyncio.sleep(4)
        three.proxy.mend()
    await check(simulator, readers, three.instances)
