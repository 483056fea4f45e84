"""Redis goes away in every way there is: streams go on, and what all share comes back by itself."""

import asyncio
import signal

import pytest

from tests.app import metrics
from tests.app.asking import STREAM, connected, text
from tests.fleet.instances import fleet
from tests.fleet.readers import question, reading
from tests.proxies import proxy_to

pytestmark = pytest.mark.anyio
TOKENS = 100
GAP_S = 0.06


async def until_whole(instance):
    """Return when the instance says that Redis is there."""
    async with connected(instance.url) as client:
        async with asyncio.timeout(5):
            await metrics.until(client, "sse_degraded", lambda value: value == 0, component="redis")


async def check_shared(simulator, instances):
    """What one answers, another can answer, as ever."""
    query, calls = question(), simulator.counters("openai")["calls"]
    for instance in instances:
        await until_whole(instance)
    async with connected(instances[0].url) as first, connected(instances[1].url) as second:
        answers = [await client.ask(STREAM, query) for client in (first, second)]
    assert text(answers[0].events) == text(answers[1].events)
    assert simulator.counters("openai")["calls"] == calls + 1


async def check(simulator, readers, instances, *, extra_calls=0):
    """All streams are whole, for no more calls than that, and the instances are one service again."""
    for reader in readers:
        reader.check(TOKENS)
    assert simulator.counters("openai")["calls"] <= len(readers) + extra_calls
    await check_shared(simulator, instances)


async def test_redis_is_killed_and_starts_again_empty(simulator, own_redis):
    """What was being answered is in it again, so that whoever comes back elsewhere finds it."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    with fleet(simulator, *[own_redis.url] * 3) as instances:
        async with reading(instances, 30) as readers:
            own_redis.stop()
            await asyncio.sleep(0.7)
            own_redis.start()
            for instance in instances:
                await until_whole(instance)
            async with connected(instances[1].url) as client:
                address = f"/v1/streams/{readers[0].stream_id}"
                again = await client.send("GET", address, headers={"Last-Event-ID": "1"})
        await check(simulator, readers, instances)

    assert [event.data for event in again.events if event.type == "chunk"] == [
        event.data for event in readers[0].events if event.type == "chunk"
    ]


async def test_redis_is_killed_and_an_instance_after_its_return(simulator, own_redis):
    """What Redis had lost was written again, so nothing is lost with the instance either."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    with fleet(simulator, *[own_redis.url] * 3) as instances:
        async with reading(instances, 30) as readers:
            own_redis.stop()
            own_redis.start()
            for instance in instances:
                await until_whole(instance)
            await asyncio.sleep(0.5)
            instances[0].kill()
        await check(simulator, readers, instances[1:], extra_calls=10)


async def test_redis_stands_still_for_five_seconds(simulator, own_redis):
    """Those who follow elsewhere go on alone after a while, which costs a call each, and nobody a chunk."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    with fleet(simulator, *[own_redis.url] * 3) as instances:
        async with reading(instances, 30) as readers:
            own_redis.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(5)
            own_redis.process.send_signal(signal.SIGCONT)
        await check(simulator, readers, instances)


async def test_connections_are_killed_and_scripts_forgotten(simulator, own_redis):
    """Again and again, while streams run and are followed."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    with fleet(simulator, *[own_redis.url] * 3) as instances:
        async with reading(instances, 30) as readers:
            for _ in range(8):
                own_redis.ask("SCRIPT", "FLUSH")
                own_redis.ask("CLIENT", "KILL", "TYPE", "normal")
                own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(0.4)
        await check(simulator, readers, instances)


async def test_one_instance_is_cut_off_from_redis(simulator, own_redis):
    """Its own streams go on there; those that it follows it goes on with by itself."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    async with proxy_to(own_redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        with fleet(simulator, url, own_redis.url, own_redis.url) as instances:
            async with reading(instances, 30) as readers:
                proxy.cut()
                await asyncio.sleep(3)
                proxy.mend()
            await check(simulator, readers, instances)
