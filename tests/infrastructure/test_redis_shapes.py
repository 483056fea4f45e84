"""A node of a cluster that dies, and a server that is no longer the one that takes writes."""

import pytest
from redis.crc import key_slot

from domain.chat import Chunk
from domain.events import ComponentChanged
from domain.generation import Sealed, State
from tests.contracts.test_generation_log import QUESTION, opened
from tests.redis_instances import redis_instances, until
from tests.redis_servers import RedisBehindSentinel, RedisCluster, replicated

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]
DONE = Sealed(state=State.DONE)


@pytest.fixture
def cluster():
    """A cluster of which the test may end nodes."""
    servers = RedisCluster()
    yield servers
    servers.close()


@pytest.fixture
def behind_sentinel():
    """Servers of which the test may end the first."""
    servers = RedisBehindSentinel()
    yield servers
    servers.close()


@pytest.fixture
def pair():
    """A server and its replica, with nobody who promotes it."""
    first, second = replicated()
    yield first, second
    second.close()
    first.close()


def question_of_node(number):
    """One whose keys are in the slots of the cluster's node of that number."""
    return next(f"q{at}" for at in range(1000) if key_slot(f"q{at}".encode()) * 3 // 16384 == number)


def is_degraded(instance):
    changes = instance.events.of(ComponentChanged)
    return bool(changes) and changes[-1].is_degraded


async def begun(leader, follower, question):
    """A lease of the one, and the same generation as the other follows it."""
    claim = await leader.log.claim(opened(f"g-{question}", question), QUESTION)
    return claim.lease, await follower.log.under_way(question)


async def test_a_node_that_dies_costs_its_own_slots_only(cluster):
    """What is asked there is answered by each instance alone; all else is shared as ever."""
    dying = cluster.nodes[0]
    async with redis_instances(cluster.url, "one", "two") as [one, two]:
        lost, left = question_of_node(0), question_of_node(2)
        lost_lease, lost_read = await begun(one, two, lost)
        left_lease, left_read = await begun(one, two, left)
        dying.stop()

        for lease in (lost_lease, left_lease):
            await one.log.append(lease, Chunk("x"))
        await until(lambda: len(left_read.records) == 2 and is_degraded(one))
        await until(lambda: len(lost_lease.generation.records) == 2)
        elsewhere = question_of_node(1)
        lease, read = await begun(one, two, elsewhere)
        assert lease
        assert read.records == [opened(f"g-{elsewhere}", elsewhere)]
        assert not one.client.is_away
        assert len(lost_read.records) == 1

        dying.start()
        await until(lambda: not (is_degraded(one) or is_degraded(two)), limit_s=15)
        await one.log.append(lost_lease, DONE)
        await until(lambda: lost_read.sealed is not None)
    assert lost_read.records[1:] == [Chunk("x"), DONE]


async def check_followed(one, two, question):
    """What the one leads is followed by the other to its end."""
    lease, read = await begun(one, two, question)
    assert read is not None
    await one.log.append(lease, Chunk("x"))
    await one.log.append(lease, DONE)
    await until(lambda: read.sealed is not None)
    assert read.records[1:] == [Chunk("x"), DONE]


async def test_the_replica_that_is_promoted_is_found(behind_sentinel):
    """What was led before goes on in it, and nothing is missing."""
    async with redis_instances(behind_sentinel.url, "one", "two") as [one, two]:
        lease, read = await begun(one, two, "q")
        await one.log.append(lease, Chunk("x"))
        await until(lambda: len(read.records) == 2)
        behind_sentinel.master.stop()
        await one.log.append(lease, Chunk("y"))
        await until(lambda: len(lease.generation.records) == 3)
        await until(behind_sentinel.is_promoted, limit_s=15)
        await until(lambda: not (one.client.is_away or two.client.is_away), limit_s=2)
        await one.log.append(lease, DONE)
        await until(lambda: read.sealed is not None)
        await check_followed(one, two, "r")
    assert read.records[1:] == [Chunk("x"), Chunk("y"), DONE]


async def test_a_server_that_was_made_a_replica_under_us_counts_as_away(pair):
    """Whoever stays connected to it can write nothing; when it takes writes again it is used again."""
    first, second = pair
    async with redis_instances(first.url, "one", "two") as [one, two]:
        await check_followed(one, two, "q")
        second.ask("REPLICAOF", "NO", "ONE")
        first.ask("REPLICAOF", "127.0.0.1", str(second.port))
        alone = await one.log.claim(opened("a", "r"), QUESTION)
        assert alone.lease
        assert one.client.is_away

        first.ask("REPLICAOF", "NO", "ONE")
        await until(lambda: not (one.client.is_away or two.client.is_away))
        await check_followed(one, two, "s")


async def test_a_server_that_is_full_counts_as_away(redis_server):
    """It takes nothing, so each instance goes on alone and says so, until it takes something again."""
    async with redis_instances(redis_server.url, "one", "two") as [one, two]:
        await check_followed(one, two, "q")
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            alone = await one.log.claim(opened("a", "r"), QUESTION)
            assert alone.lease
            assert one.client.is_away
        finally:
            redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: not (one.client.is_away or two.client.is_away))
        await check_followed(one, two, "s")
