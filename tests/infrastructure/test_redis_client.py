"""The one client of a process, at its end."""

import asyncio

import pytest

from infrastructure.redis.client import MAX_BATCH
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


async def test_much_at_once_leaves_in_slices_and_is_answered_in_order(redis_server):
    """As after Redis was away: each slice has its own time."""
    client = RedisInstance(redis_server.url, "i").client
    counts = await asyncio.gather(*(client.submit("INCR", "n") for _ in range(10 * MAX_BATCH + 1)))
    await client.close()

    assert counts == list(range(1, 10 * MAX_BATCH + 2))
