"""A purge on one instance is obeyed by all, and costs no look-up anything."""

from contextlib import AsyncExitStack

import pytest

from domain.caching import Purge
from domain.events import CachePurged
from infrastructure.redis.purges import RedisPurges
from tests.recordings import recording
from tests.redis_instances import TTL_S, RedisInstance, until

pytestmark = pytest.mark.anyio

ALL = Purge(at_s=1000.0)


class Fleet:
    """Instances by their numbers: what each knows, and how it tells."""

    def __init__(self, url, stack):
        self.url, self.stack = url, stack
        self.instances, self.redis = [], []

    async def add(self):
        each = RedisInstance(self.url, f"i{len(self.instances)}")
        redis = RedisPurges(
            purges=each.purges,
            client=each.client,
            events=each.fleet_events,
            ttl_s=TTL_S,
            publish=each.events.publish,
        )
        await self.stack.enter_async_context(each.running())
        self.instances.append(each)
        self.redis.append(redis)

    async def purge(self, number, purge):
        self.instances[number].purges.add(purge)
        return await self.redis[number].tell(purge)

    def conceals(self, number, sealed_at_s, model="m", scope=""):
        return self.instances[number].purges.conceal(recording(model, scope, sealed_at_s))


@pytest.fixture
async def fleet(own_redis):
    async with AsyncExitStack() as stack:
        both = Fleet(own_redis.url, stack)
        await both.add()
        await both.add()
        yield both


async def test_a_purge_is_heard_by_the_others_within_100_ms(fleet):
    """And is news to each of them once."""
    assert await fleet.purge(0, Purge(at_s=1000.0, model="m", scope="user:ann"))

    await until(lambda: fleet.conceals(1, 1000.0, "m", "user:ann"), 0.1)

    assert not fleet.conceals(1, 1000.5, "m", "user:ann")
    assert not fleet.conceals(1, 1000.0, "m", "user:bob")
    assert fleet.instances[1].events.of(CachePurged) == [CachePurged(model="m", scope="user:ann")]
    assert fleet.instances[0].events.of(CachePurged) == []


async def test_an_instance_that_starts_learns_what_was_purged(fleet):
    """What is in Redis from before must not come back with it."""
    await fleet.purge(0, ALL)

    await fleet.add()

    await until(lambda: fleet.conceals(2, 1000.0))


async def test_a_purge_is_heard_and_kept_in_a_cluster_too(redis_cluster):
    """Whichever node an instance listens at."""
    async with AsyncExitStack() as stack:
        fleet = Fleet(redis_cluster.url, stack)
        for _ in range(3):
            await fleet.add()
        assert await fleet.purge(0, ALL)
        await until(lambda: all(fleet.conceals(number, 1000.0) for number in range(3)), 1.0)
        await fleet.add()

        await fleet.redis[3].learn()

        assert fleet.conceals(3, 1000.0)


async def test_what_was_purged_before_is_known_when_a_start_ends(fleet):
    """And without Redis the start goes on."""
    await fleet.purge(0, ALL)
    late = RedisInstance(fleet.url, "late")
    redis = RedisPurges(
        purges=late.purges, client=late.client, events=late.fleet_events, ttl_s=TTL_S, publish=late.events.publish
    )

    await redis.learn()
    await late.client.close()

    assert late.purges.conceal(recording("m", "", 1000.0))


async def test_a_purge_while_the_subscription_was_lost_is_read(fleet, own_redis):
    """A message that nobody heard is not lost for good."""
    fleet.instances[1].begun.clear()
    own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await fleet.purge(0, ALL)

    await fleet.instances[1].heard_again()

    await until(lambda: fleet.conceals(1, 1000.0))


async def test_a_purge_without_redis_is_told_when_it_is_back(fleet, own_redis):
    """Who purges is told that the others do not know yet."""
    own_redis.stop()
    assert not await fleet.purge(0, ALL)
    assert fleet.conceals(0, 1000.0)
    assert not fleet.conceals(1, 1000.0)

    own_redis.start()

    await until(lambda: fleet.conceals(1, 1000.0))


async def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(fleet, own_redis):
    """As after a failover."""
    await fleet.purge(0, ALL)
    own_redis.ask("SCRIPT", "FLUSH")

    assert await fleet.purge(0, Purge(at_s=1001.0))

    await until(lambda: fleet.conceals(1, 1001.0))


async def test_purges_older_than_any_answer_are_forgotten_in_redis_too(fleet, own_redis):
    """The hash does not grow with the years; of two purges the later one stays."""
    await fleet.purge(0, Purge(at_s=1000.0, model="a"))
    await fleet.purge(0, Purge(at_s=1100.0, model="b"))
    await fleet.purge(1, Purge(at_s=1050.0, model="b"))
    await fleet.purge(0, Purge(at_s=1000.0 + TTL_S, model="c"))

    kept = await fleet.instances[0].client.submit("HGETALL", "weir:purges")

    assert b"1100.0" in (kept.values() if isinstance(kept, dict) else kept)
    assert await fleet.instances[0].client.submit("HLEN", "weir:purges") == 2
    assert await fleet.instances[0].client.submit("PTTL", "weir:purges") == -1


@pytest.mark.parametrize("said", ["purge", "purge x [null,null]", "purge nan [null,null]", "purge 1 {}", "purge 1 x"])
async def test_a_message_that_makes_no_sense_changes_nothing(fleet, said):
    """Nor does it end the listening."""
    await fleet.instances[0].client.submit("PUBLISH", "weir:events", said)
    await fleet.purge(0, ALL)

    await until(lambda: fleet.conceals(1, 1000.0))
    assert len(fleet.instances[1].purges) == 1


async def test_records_that_make_no_sense_are_passed_over(fleet):
    """Whoever wrote them, the others are obeyed."""
    await fleet.instances[0].client.submit("HSET", "weir:purges", "?", "?", "[null]", "1")
    assert await fleet.purge(0, ALL)

    await fleet.add()

    await until(lambda: fleet.conceals(2, 1000.0))
