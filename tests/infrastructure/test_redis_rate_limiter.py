"""What instances do with the bucket they share, over a real Redis. The contract is in tests/contracts."""

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import RateChecked
from domain.limiting import Rate
from domain.shares import SETTLE_S
from infrastructure.redis.rate_limiter import bucket_key
from tests.limiters import RedisLimiter
from tests.loops import settle
from tests.redis_instances import until

pytestmark = pytest.mark.anyio
SMALL, LARGE = Rate(amount=10, per_s=4096.0), Rate(amount=1000, per_s=65536.0)
"""So slow that next to nothing comes back while a test runs."""
ANN = Caller(user="ann", tier="small")
BEA = Caller(user="bea", tier="large")
RATES = {"small": SMALL, "large": LARGE}


@asynccontextmanager
async def limiters(url, number, **how):
    """So many instances."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(settle)
        fleet = [RedisLimiter(url, rates=RATES, instance_id=f"i{at}", count=number, **how) for at in range(number)]
        for each in fleet:
            stack.push_async_callback(each.close)
        yield fleet


async def admitted(one, caller, checks):
    """How many of so many checks at once were admitted."""
    ends = await asyncio.gather(*(one.limiter.spend(caller) for _ in range(checks)), return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), RateLimited}
    return ends.count(None)


def paths(one):
    return [event.path for event in one.events.of(RateChecked)]


def held_of(one):
    """What there is of the only user."""
    [held] = one.limiter._held.values()
    return held


async def out(one, caller):
    """How many tokens of the caller's bucket are held somewhere, as Redis has it."""
    stored = await one.client.submit("HGETALL", bucket_key(caller.user, RATES[caller.tier]))
    flat = dict(stored) if isinstance(stored, dict) else dict(zip(stored[::2], stored[1::2], strict=True))
    return sum(int(record.split()[1]) for name, record in flat.items() if name.startswith(b"i:"))


async def test_instances_share_one_bucket(redis_server):
    """However the checks are spread, all together get the amount."""
    async with limiters(redis_server.url, 5) as fleet:
        numbers = await asyncio.gather(*(admitted(one, ANN, 7) for one in fleet))

    assert sum(numbers) == SMALL.amount


async def test_checks_that_wait_together_ask_together(redis_server):
    """One asks at once, and the crowd behind it in one more round trip."""
    async with limiters(redis_server.url, 1) as [one]:
        assert await admitted(one, ANN, 30) == SMALL.amount
        held = held_of(one)

        assert next(one.limiter._numbers) <= 3
        assert (held.waiting, held.tokens) == (0, 0)


async def test_a_busy_user_is_checked_without_asking(redis_server):
    """All but the first few; more is asked for in time, behind the checks' backs."""
    async with limiters(redis_server.url, 1) as [one]:
        for _ in range(200):
            one.clock.advance(0.03125)
            await one.limiter.spend(BEA)
            await one.told()

        assert paths(one).count("redis") <= 3
        assert one.limiter.quota(BEA).remaining == 800


async def test_a_check_against_what_is_held_does_not_wait(redis_server):
    """It is done before anything else can run."""
    async with limiters(redis_server.url, 1) as [one]:
        await admitted(one, BEA, 20)
        await one.told()
        spent = one.limiter.spend(BEA)

        with pytest.raises(StopIteration):
            spent.send(None)


async def test_what_is_held_and_not_used_is_given_back(redis_server):
    """Within a second or so, without anybody asking for it."""
    async with limiters(redis_server.url, 2) as [one, two]:
        await admitted(one, BEA, 20)
        await one.told()
        assert await out(one, BEA) > 0

        await until(lambda: not any(held.tokens for held in one.limiter._held.values()))
        await one.told()

        assert await out(one, BEA) == 0
        assert await admitted(two, BEA, 1500) == LARGE.amount - 20


async def test_an_instance_that_ends_gives_back_what_it_holds(redis_server):
    """An operator's restart costs nobody a request."""
    async with limiters(redis_server.url, 2) as [one, two]:
        await admitted(one, BEA, 20)
        await one.limiter.close()

        assert await admitted(two, BEA, 1500) == LARGE.amount - 20


async def test_a_client_that_leaves_while_its_check_waits_costs_one_token_at_most(redis_server):
    """And nobody else anything."""
    async with limiters(redis_server.url, 1) as [one]:
        leaving = asyncio.create_task(one.limiter.spend(ANN))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])

        assert await admitted(one, ANN, 30) >= SMALL.amount - 1
        assert held_of(one).waiting == 0


async def lost(redis, fleet):
    """Every instance has seen that Redis does not answer."""
    redis.process.send_signal(signal.SIGSTOP)
    for one in fleet:
        await asyncio.gather(one.client.submit("PING"), return_exceptions=True)
        assert one.client.is_away


async def found(redis, fleet):
    """And that it is back, and has said what it spent."""
    redis.process.send_signal(signal.SIGCONT)
    for one in fleet:
        await until(lambda one=one: not one.client.is_away)
        await one.told()


async def test_without_redis_nobody_has_more_than_its_share_whatever_was_spent_before(own_redis):
    """Who gave all knows that nothing is left; who has not heard of it has its part, and never the whole."""
    async with limiters(own_redis.url, 3) as fleet:
        assert await admitted(fleet[0], ANN, 60) == SMALL.amount
        await lost(own_redis, fleet)

        assert [await admitted(one, ANN, 60) for one in fleet] == [0, SMALL.amount // 3, SMALL.amount // 3]
        own_redis.process.send_signal(signal.SIGCONT)


async def test_without_redis_each_instance_has_its_share(own_redis):
    """At once; with Redis again, what was spent is counted."""
    async with limiters(own_redis.url, 3) as fleet:
        await lost(own_redis, fleet)
        numbers = [await admitted(one, ANN, 20) for one in fleet]
        assert numbers == [SMALL.amount // 3] * 3
        await found(own_redis, fleet)
        again = [await admitted(one, ANN, 20) for one in fleet]

    assert sum(numbers) + sum(again) <= SMALL.amount


async def test_the_first_to_see_that_redis_is_back_leaves_what_others_may_have_spent(own_redis):
    """Until they have had time to tell it."""
    async with limiters(own_redis.url, 2) as fleet:
        await lost(own_redis, fleet)
        for one in fleet:
            one.clock.advance(SMALL.per_s)
        await found(own_redis, fleet[:1])
        assert await admitted(fleet[0], ANN, 20) == SMALL.amount // 2

        fleet[0].clock.advance(SETTLE_S)

        assert await admitted(fleet[0], ANN, 20) == SMALL.amount // 2


async def test_what_was_spent_long_ago_in_an_outage_has_come_back(own_redis):
    """Who was silent for a window has the whole bucket."""
    async with limiters(own_redis.url, 1) as [one]:
        await lost(own_redis, [one])
        for _ in range(3):
            one.clock.advance(SMALL.per_s)
            assert await admitted(one, ANN, 20) == SMALL.amount
        one.clock.advance(SMALL.per_s)
        await found(own_redis, [one])

        assert await admitted(one, ANN, 20) == SMALL.amount


async def test_an_only_instance_goes_on_with_what_was_left(own_redis):
    """Nobody else can have spent it."""
    async with limiters(own_redis.url, 1) as [one]:
        assert await admitted(one, ANN, 4) == 4
        await lost(own_redis, [one])

        assert await admitted(one, ANN, 20) == SMALL.amount - 4
        own_redis.process.send_signal(signal.SIGCONT)


async def test_an_instance_that_began_without_redis_takes_itself_for_one_of_several(own_redis):
    """It never has the whole limit, however often it is started again."""
    own_redis.stop()
    async with limiters(own_redis.url, 1) as [one]:
        one.instance_count = 10

        assert await admitted(one, ANN, 30) == SMALL.amount // 10


async def test_of_a_million_addresses_little_is_kept(redis_server):
    """Here so many as may be, and in Redis each bucket until it is full again."""
    async with limiters(redis_server.url, 1, max_held=50) as [one]:
        await asyncio.gather(
            *(one.limiter.spend(Caller(user=f"address:{number}", tier="small")) for number in range(2000))
        )

        assert len(one.limiter._held) <= 50
        left_ms = await one.client.submit("PTTL", bucket_key("address:7", SMALL))
        assert 0 < left_ms <= 1000 * (SMALL.per_s / SMALL.amount + 5)


async def test_idle_users_are_forgotten(redis_server):
    """Long before there are too many."""
    async with limiters(redis_server.url, 1) as [one]:
        for number in range(30):
            await one.limiter.spend(Caller(user=str(number), tier="small"))
        one.clock.advance(60.0)
        for number in range(30, 60):
            await one.limiter.spend(Caller(user=str(number), tier="small"))

        assert [user for user, *_ in one.limiter._held] == [str(number) for number in range(30, 60)]
