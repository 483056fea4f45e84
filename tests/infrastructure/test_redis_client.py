"""The one client of a process, at its end."""

import pytest

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
