"""Who is held to be gone, and who is not."""

import asyncio

import pytest

from domain.generation import Reader
from domain.shares import UNKNOWN_COUNT
from infrastructure.redis.liveness import Liveness
from tests.contracts.test_generation_log import QUESTION, opened
from tests.redis_instances import redis_instances

pytestmark = pytest.mark.anyio


async def test_nobody_is_gone_because_redis_was_emptied(redis_server):
    """Until who lives has had time to say so again: a takeover costs a call. The server answered all the time."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        await one.log.claim(opened("g"), QUESTION)
        reader = Reader((await two.log.claim(opened("other"), QUESTION)).generation)
        redis_server.flush()
        for _ in range(3):
            await beat(two)
        assert two.taken == []

        async with asyncio.timeout(10):
            while not two.taken:
                await beat(two)
        reader.close()


async def test_who_has_never_heard_of_the_others_takes_itself_for_one_of_ten(redis_server):
    """Until it has counted: then there are as many as there are."""
    async with redis_instances(redis_server.url, "one") as [one]:
        liveness = Liveness(client=one.client, log=one.log, instance_id="two", publish=one.events.publish)
        assert liveness.instance_count == UNKNOWN_COUNT

        await liveness._beat()
        await liveness._looking

        assert 1 <= liveness.instance_count <= 2


async def beat(instance):
    """It has said that it lives, and looked after what others lead."""
    instance.liveness._say_so()
    await instance.liveness._beat()
    await instance.liveness._looking
