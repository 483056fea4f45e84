"""What was answered while Redis was away is found by all instances once it is back."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from domain.caching import Purge
from domain.chat import Chunk
from domain.generation import Sealed, State
from domain.ports import Recording
from infrastructure.redis.keys import response_key
from infrastructure.redis.late_answers import LateAnswers
from infrastructure.redis.purges import RedisPurges
from tests.contracts.test_generation_log import QUESTION, opened
from tests.contracts.test_response_cache import UNIT_BYTES, recording
from tests.fakes import FakeClock
from tests.loops import settle
from tests.redis_instances import TTL_S, RedisInstance, until

pytestmark = pytest.mark.anyio
DONE = Sealed(state=State.DONE, finish_reason="stop")


@asynccontextmanager
async def keeping(instance):
    """Its purges, while what it cannot store is kept for later: at most three answers, and four of the smallest."""
    purges = RedisPurges(
        purges=instance.purges,
        client=instance.client,
        events=instance.fleet_events,
        ttl_s=TTL_S,
        publish=instance.events.publish,
    )
    late = LateAnswers(
        client=instance.client,
        cache=instance.cache,
        max_entries=3,
        max_bytes=4 * UNIT_BYTES,
        learn=purges.learn,
        settle=instance.log.settle,
        publish=instance.events.publish,
    )
    late.start()
    try:
        yield purges
    finally:
        await late.close()


class Pair:
    """Two instances; the Redis of the first goes away and comes back."""

    def __init__(self, one, two, clock, purges):
        self.one, self.two, self.clock = one, two, clock
        self.one_purges, self.two_purges = purges

    async def put(self, *keys, units=1):
        for key in keys:
            await self.one.cache.put(key, recording(units, self.clock()))
        await settle()

    def loses_redis(self):
        self.one.client.is_away = True

    async def finds_redis(self):
        """It is back, and has all that it is to have."""
        self.one.client.is_away = False
        for returned in self.one.client.on_return:
            returned()
        storing = [task for task in asyncio.all_tasks() if task.get_name() == "redis-late-answers"]
        await asyncio.gather(*storing)

    async def found(self, *keys):
        """Those of them that the other instance finds, and when they were whole."""
        got = {key: await self.two.cache.get(key) for key in keys}
        return {key: each.sealed_at_s for key, each in got.items() if each}


@pytest.fixture
async def pair(redis_server):
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(RedisInstance(redis_server.url, name, unix_now=clock).running())
            for name in ("one", "two")
        ]
        yield Pair(*both, clock, [await stack.enter_async_context(keeping(each)) for each in both])


async def test_it_is_stored_for_the_time_that_is_left(pair):
    """And not for longer, however long Redis was away."""
    pair.loses_redis()
    await pair.put("a", "expired")
    pair.clock.advance(TTL_S - 10.0)
    await pair.put("b")
    await pair.finds_redis()

    left_ms = await pair.two.client.submit("PTTL", response_key("a"))
    assert await pair.found("a", "b") == {"a": 1024.0, "b": pair.clock()}
    assert 0 < left_ms <= 10_000


async def test_what_has_expired_meanwhile_is_not(pair):
    """Nobody may be served it."""
    pair.loses_redis()
    await pair.put("a")
    pair.clock.advance(TTL_S)
    await pair.finds_redis()

    assert not await pair.two.client.submit("EXISTS", response_key("a"))


@pytest.mark.parametrize("where", ["one", "two"])
async def test_what_was_purged_meanwhile_is_not(pair, where):
    """By an operator of this instance, or of one that Redis was not away for."""
    pair.loses_redis()
    await pair.put("a")
    purge = Purge(at_s=pair.clock() + 1.0)
    getattr(pair, where).purges.add(purge)
    await getattr(pair, f"{where}_purges").tell(purge)
    await pair.finds_redis()

    assert not await pair.two.client.submit("EXISTS", response_key("a"))


async def test_what_another_has_answered_later_stays(pair):
    """And what it has answered earlier does not."""
    await pair.put("earlier")
    pair.clock.advance(1.0)
    pair.loses_redis()
    await pair.put("earlier", "later")
    pair.clock.advance(1.0)
    await pair.two.cache.put("later", recording(1, pair.clock()))
    await pair.finds_redis()

    assert await pair.found("earlier", "later") == {"earlier": 1025.0, "later": 1026.0}


async def test_the_latest_wait_within_their_bounds(pair):
    """In number and bytes, each once."""
    pair.loses_redis()
    await pair.put("a", "b", "c", "d", "b")
    await pair.finds_redis()
    assert set(await pair.found("a", "b", "c", "d")) == {"b", "c", "d"}

    pair.loses_redis()
    await pair.put("e", "f", units=3)
    await pair.finds_redis()
    assert set(await pair.found("e", "f")) == {"f"}


async def test_what_redis_goes_away_for_again_waits_on(pair):
    """It has not been stored until Redis says so."""
    pair.loses_redis()
    await pair.put("a", "b")
    for returned in pair.one.client.on_return:
        returned()
    await until(lambda: not any(task.get_name() == "redis-late-answers" for task in asyncio.all_tasks()))
    await pair.finds_redis()

    assert set(await pair.found("a", "b")) == {"a", "b"}


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_what_another_has_gone_on_with_is_not_however_late_that_is_seen(pair, is_replaced):
    """Under its id others have something else by then. Whether they do is seen when the log is written, in its turn."""
    one, two = pair.one, pair.two
    others = [await one.log.claim(opened(name, name), QUESTION) for name in "abcde"]
    claim = await one.log.claim(opened("g"), QUESTION)
    await two.log.find("g")
    pair.loses_redis()
    for each in (*others, claim):
        await one.log.append(each.lease, Chunk("x"))
        await one.log.append(each.lease, DONE)
    await one.cache.put("q", Recording(claim.generation, pair.clock()))
    await settle()
    if is_replaced:
        assert await two.take_over("g")
        await two.log.append(two.taken[-1], Chunk("y"))
        await until(lambda: len(two.taken[-1].generation.records) == 2)
    await pair.finds_redis()

    assert claim.generation.is_alone is is_replaced
    assert bool(await pair.found("q")) is not is_replaced
