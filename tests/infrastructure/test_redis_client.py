"""The one client of a process, at its end."""

import asyncio

import pytest

from infrastructure.redis.client import MAX_BATCH, RedisAway, Script
from tests.proxies import Proxy
from tests.redis_instances import RedisInstance

pytestmark = pytest.mark.anyio


async def test_what_was_submitted_last_is_done_before_the_connections_are_closed(redis_server):
    """Nobody waits for a lease that is given back, and it has to be given back."""
    client = RedisInstance(redis_server.url, "i").client
    await client.submit("PING")
    under_way = client.submit("SET", "a", 1)
    await client.submit("PING")
    waiting = client.submit("SET", "b", 2)

    await client.close()

    assert under_way.result()
    assert waiting.result()


async def test_what_can_linger_leaves_with_what_cannot(redis_server):
    """And is done before it, in the same round trip."""
    client = RedisInstance(redis_server.url, "i", linger_s=60.0).client
    await client.submit("PING")
    lingering = [client.submit("INCR", "n", can_linger=True) for _ in range(3)]

    assert await client.submit("GET", "n") == b"3"

    assert [each.result() for each in lingering] == [1, 2, 3]
    await client.close()


async def test_what_can_linger_does_not_when_nothing_has_left_for_long(redis_server):
    client = RedisInstance(redis_server.url, "i", linger_s=60.0).client

    assert await client.submit("INCR", "n", can_linger=True) == 1
    await client.close()


async def test_what_lingers_alone_leaves_when_it_has_for_long_enough(redis_server):
    client = RedisInstance(redis_server.url, "i", linger_s=0.02).client

    for turn in range(3):
        count = turn * (MAX_BATCH + 1)
        counts = await asyncio.gather(*(client.submit("INCR", "n", can_linger=True) for _ in range(MAX_BATCH + 1)))
        assert counts == list(range(count + 1, count + MAX_BATCH + 2))
    await client.close()


async def test_after_a_loss_what_is_submitted_leaves_again(redis_server):
    """Whatever waited when Redis went away, and whether or not it could linger."""
    proxy = Proxy(redis_server.port)
    instance = RedisInstance(f"redis://127.0.0.1:{proxy.port}", "i", linger_s=60.0)
    client, is_back = instance.client, asyncio.Event()
    client.on_return.append(is_back.set)
    await client.submit("PING")
    proxy.cut()
    lost = [client.submit("INCR", "n")]
    await asyncio.sleep(0)
    lost += [client.submit("INCR", "n", can_linger=can_linger) for can_linger in (True, False, True)]
    assert {type(answer) for answer in await asyncio.gather(*lost, return_exceptions=True)} == {RedisAway}
    proxy.mend()
    await is_back.wait()

    assert await client.submit("INCR", "n")
    await client.close()
    proxy.close()


async def test_much_at_once_leaves_in_slices_and_is_answered_in_order(redis_server):
    """As after Redis was away: each slice has its own time."""
    client = RedisInstance(redis_server.url, "i").client
    counts = await asyncio.gather(*(client.submit("INCR", "n") for _ in range(10 * MAX_BATCH + 1)))
    await client.close()

    assert counts == list(range(1, 10 * MAX_BATCH + 2))


@pytest.mark.parametrize(("count", "size_bytes"), [(40, 30_000), (1, 1_000_000)])
async def test_much_leaves_over_a_slow_link_in_slices_that_have_their_time(redis_server, count, size_bytes):
    """A link that takes a second for all of it does not make Redis count as away."""
    proxy = Proxy(redis_server.port, bytes_per_s=1_000_000)
    try:
        client = RedisInstance(f"redis://127.0.0.1:{proxy.port}", "i").client
        said = await asyncio.gather(*(client.submit("SET", f"k{at}", "x" * size_bytes) for at in range(count)))
        await client.close()
    finally:
        proxy.close()

    assert said == [True] * count


SAY = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
SAY_AGAIN = Script("redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('RPUSH', KEYS[1], ARGV[1])")


async def test_scripts_that_the_server_does_not_know_yet_are_done_in_their_order(redis_server):
    """What is freed and then asked for, in one batch, is free."""
    client = RedisInstance(redis_server.url, "i").client
    redis_server.ask("SCRIPT", "FLUSH")
    await client.submit_script(SAY, ("l",), "a")
    said = [client.submit_script(SAY_AGAIN, ("l",), "b"), client.submit_script(SAY, ("l",), "c")]
    counts = await asyncio.gather(*said)
    await client.close()

    assert counts == [3, 4]


async def test_scripts_that_the_server_has_forgotten_are_done_all_the_same(redis_server):
    """After a restart, a failover or an operator's SCRIPT FLUSH."""
    client = RedisInstance(redis_server.url, "i").client
    await client.submit_script(SAY, ("l",), "a")
    redis_server.ask("SCRIPT", "FLUSH")

    assert await client.submit_script(SAY, ("l",), "b") == 2
    await client.close()
