"""The contract of domain.ports.AuditTrail, in memory, on one Redis and on a cluster."""

from contextlib import asynccontextmanager

import pytest

from domain.audit import AuditEntry
from domain.errors import AuditUnavailable
from domain.events import AuditEntriesLost, ComponentChanged
from infrastructure.memory.audit_trail import MemoryAuditTrail
from infrastructure.redis.audit_trail import TRAIL, RedisAuditTrail
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from tests.fakes import RememberedEvents
from tests.loops import settle

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]


def entry(name, **members):
    """An entry that is like no other."""
    told = {"user": "acme/ann", "tenant": "acme", "tier": "standard", "outcome": "done", "duration_ms": 1.5}
    return AuditEntry(**{"at_s": 1784000000.25, "thread_id": name} | told | members)


@asynccontextmanager
async def at_redis(url, **how):
    """A trail in that Redis, for the time of the context; what it was told is in `events`."""
    events = RememberedEvents()
    client = RedisClient(connect(url).commands, linger_s=0.0, publish=events.publish)
    trail = RedisAuditTrail(client=client, publish=events.publish, **how)
    trail.events = events
    try:
        yield trail
    finally:
        await trail.close()
        await client.close()
        await settle()


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def trail(request):
    if request.param == "memory":
        yield MemoryAuditTrail()
        return
    async with at_redis(request.getfixturevalue(request.param).url) as subject:
        yield subject


async def names(trail, limit=1000, before=None):
    return [each.entry.thread_id for each in await trail.read(limit, before)]


async def test_an_empty_trail_has_nothing(trail):
    """Not even before a position that was never given."""
    for before in (None, "0-0", "999999999999999-999999999999999"):
        assert await trail.read(10, before) == []


async def test_entries_come_as_they_were_the_newest_first(trail):
    """Each member of each."""
    full = entry(
        "full",
        code="upstream_timeout",
        stream_id="s",
        requested="both",
        provider="openai",
        model="gpt-4o",
        cache="miss",
        prompt_tokens=3,
        completion_tokens=25,
        is_estimated=True,
        cost_usd=None,
        saved_usd=0.5,
    )
    trail.append(entry("plain"))
    trail.append(full)

    assert [each.entry for each in await trail.read(10)] == [full, entry("plain")]


async def test_pages_follow_one_another_without_gap_or_repetition(trail):
    """Also while more is appended."""
    for number in range(7):
        trail.append(entry(str(number)))
    first = await trail.read(3)
    trail.append(entry("later"))
    second = await trail.read(3, first[-1].position)
    third = await trail.read(3, second[-1].position)

    assert [each.entry.thread_id for each in (*first, *second, *third)] == list("6543210")
    assert await trail.read(3, third[-1].position) == []
    assert await names(trail, 1) == ["later"]
    assert await names(trail, before="0-0") == []


async def test_more_than_one_command_takes_is_all_written_in_order(trail):
    """Nothing is lost in a rush."""
    for number in range(1200):
        trail.append(entry(str(number)))

    assert await names(trail) == [str(number) for number in range(1199, 199, -1)]


async def test_the_oldest_go_from_memory():
    """It does not grow for ever."""
    trail = MemoryAuditTrail(kept=3)
    for name in "abcd":
        trail.append(entry(name))

    assert await names(trail) == ["d", "c", "b"]


async def test_the_oldest_go_from_redis(redis_server):
    """About as many are kept as was said: Redis drops whole nodes of a hundred."""
    async with at_redis(redis_server.url, kept=100) as trail:
        for number in range(600):
            trail.append(entry(str(number)))
        kept = await names(trail)

    assert 100 <= len(kept) <= 300
    assert kept[0] == "599"


async def test_what_one_instance_appends_another_reads(redis_server):
    """Without being asked to: it is written within a moment, by itself, or when the instance ends."""
    async with at_redis(redis_server.url) as first, at_redis(redis_server.url) as second:
        first.append(entry("written"))
        while await names(second) != ["written"]:
            pass
        first.append(entry("last"))
        await first.close()

        assert await names(second) == ["last", "written"]


async def test_what_another_version_has_written_is_passed_over(redis_server):
    """In a rolling update."""
    redis_server.ask("XADD", TRAIL, "*", "entry", "x")
    redis_server.ask("XADD", TRAIL, "*", "other", "x")
    async with at_redis(redis_server.url) as trail:
        trail.append(entry("ours"))

        assert await names(trail) == ["ours"]


async def test_entries_wait_for_redis_and_what_is_too_much_is_told_once(own_redis):
    """The newest are kept."""
    async with at_redis(own_redis.url, max_waiting=3) as trail:
        own_redis.stop()
        trail.append(entry("a"))
        with pytest.raises(AuditUnavailable):
            await trail.read(10)
        for name in "bcde":
            trail.append(entry(name))
        assert trail.events.of(AuditEntriesLost) == []

        own_redis.start()
        while not any(not each.is_degraded for each in trail.events.of(ComponentChanged)):
            await settle()

        assert await names(trail) == ["e", "d", "c"]
        assert trail.events.of(AuditEntriesLost) == [AuditEntriesLost(count=2)]


async def test_what_redis_refuses_is_lost_and_told_at_the_first_time(redis_server):
    """A key of another kind is no reason to fill the memory, or the log."""
    redis_server.ask("SET", TRAIL, "x")
    async with at_redis(redis_server.url) as trail:
        for name in "ab":
            trail.append(entry(name))
            with pytest.raises(AuditUnavailable):
                await trail.read(10)
        redis_server.flush()
        trail.append(entry("c"))

        assert await names(trail) == ["c"]
        assert [each.count for each in trail.events.of(AuditEntriesLost)] == [1, 1]
