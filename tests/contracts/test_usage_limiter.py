"""The contract of domain.ports.UsageLimiter, in memory, on one Redis and on a cluster."""

import asyncio
import signal
import time
from itertools import count

import pytest

from domain.chat import OPERATOR, Caller
from domain.errors import RateLimited
from domain.usage import NOTHING, Use
from infrastructure.memory.usage_limiter import MemoryUsageLimiter
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.usage_limiter import RedisUsageLimiter
from tests.fakes import FakeClock, RememberedEvents
from tests.loops import settle
from tests.redis_instances import until

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]

ANN = Caller(user="ann", tier="standard")
RICH = Caller(user="rich", tier="unlimited", budget_usd_per_day=1.0)
TIERS = {"standard": 6000, "unlimited": 0}
DAY_S = 86_400.0


def in_memory(**how):
    return MemoryUsageLimiter(tiers=TIERS, clock=time.monotonic, unix_now=time.time, **how)


class InRedis:
    """A limiter in Redis; without it, it is one of two."""

    def __init__(self, url):
        self.client = RedisClient(connect(url).commands, linger_s=0.0, publish=RememberedEvents().publish)
        ids = count()
        self.limiter = RedisUsageLimiter(
            tiers=TIERS,
            client=self.client,
            own=in_memory(share=lambda: 2),
            new_id=lambda: f"r{next(ids)}",
            clock=time.monotonic,
            unix_now=time.time,
        )

    async def close(self):
        await self.client.close()
        await settle()  # a connection that is closed gives its socket back a turn of the loop later


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def limiter(request):
    if request.param == "memory":
        yield in_memory()
        return
    subject = InRedis(request.getfixturevalue(request.param).url)
    yield subject.limiter
    await subject.close()


def use(tokens=0, usd=0.0):
    return Use(tokens=tokens, usd=usd)


async def settled(limiter, reservation, what):
    """It is, also where it takes a moment."""
    limiter.settle(reservation, what)
    if isinstance(limiter, RedisUsageLimiter):
        await until(lambda: not (limiter._client._sending or limiter._client._waiting))


async def refused(limiter, caller, what):
    with pytest.raises(RateLimited) as error:
        await limiter.reserve(caller, what)
    return error.value


async def test_what_is_reserved_is_taken_and_what_is_left_is_told(limiter):
    """And the refusal says which limit it is, and when to come back."""
    assert limiter.quota(ANN).remaining == 6000
    await limiter.reserve(ANN, use(5000))
    assert limiter.quota(ANN).remaining == pytest.approx(1000, abs=50)

    error = await refused(limiter, ANN, use(2000))

    assert error.retry_after_s == pytest.approx(10.0, abs=0.5)
    assert "6000 tokens a minute are allowed" in str(error)
    assert [(each.policy, each.unit, each.rate.amount) for each in error.quotas] == [
        ("standard-tokens", "tokens", 6000)
    ]


async def test_at_its_end_an_answer_has_taken_what_it_used(limiter):
    """Less than was thought, and others can have the rest at once."""
    reservation = await limiter.reserve(ANN, use(6000))
    await settled(limiter, reservation, use(500))

    await limiter.reserve(ANN, use(5400))


async def test_an_answer_that_took_more_has_to_be_made_up_for(limiter):
    """The next one waits until the debt is paid and there is enough for it."""
    reservation = await limiter.reserve(ANN, use(1000))
    await settled(limiter, reservation, use(8000))

    error = await refused(limiter, ANN, use(1000))

    assert error.retry_after_s == pytest.approx(30.0, abs=0.5)
    assert limiter.quota(ANN).remaining == 0


async def test_a_request_that_may_take_more_than_there_ever_is_takes_all(limiter):
    """Else it could never be answered."""
    await limiter.reserve(ANN, use(1_000_000))

    assert (await refused(limiter, ANN, use(60))).retry_after_s < 1.0


async def test_what_caused_no_work_is_given_back(limiter):
    reservation = await limiter.reserve(ANN, use(6000))
    await settled(limiter, reservation, NOTHING)

    await limiter.reserve(ANN, use(6000))


async def test_a_budget_is_for_a_day(limiter):
    """It is refused until midnight UTC what would not fit any more."""
    await settled(limiter, await limiter.reserve(RICH, use(usd=0.2)), use(usd=0.7))
    error = await refused(limiter, RICH, use(usd=0.4))
    assert 1 < error.retry_after_s <= DAY_S
    assert str(error).startswith("0.3000 USD are left of the day's budget, and this request may cost 0.4000; ")
    assert "midnight UTC" in str(error)

    await limiter.reserve(RICH, use(usd=0.3))

    assert limiter.quota(RICH) is None


async def test_who_would_fit_in_once_answers_under_way_have_ended_is_told_to_wait_for_them(limiter):
    """Not for midnight: what is thought that they cost is mostly more than they do."""
    reservation = await limiter.reserve(RICH, use(usd=0.7))
    error = await refused(limiter, RICH, use(usd=0.4))
    assert error.retry_after_s == 1.0
    assert str(error).endswith("and this request may cost 0.4000; some is held for answers under way; wait 1 s.")

    await settled(limiter, reservation, use(usd=0.5))

    await limiter.reserve(RICH, use(usd=0.4))


async def test_many_at_once_do_not_overshoot_a_budget(limiter):
    """What each may cost is reserved before it begins."""
    ends = await asyncio.gather(*(limiter.reserve(RICH, use(usd=0.3)) for _ in range(20)), return_exceptions=True)

    assert sum(not isinstance(end, RateLimited) for end in ends) == 3


async def test_a_key_may_have_more_tokens_than_its_tier(limiter):
    key = Caller(user="key", tier="standard", tokens_per_minute=50_000)

    await limiter.reserve(key, use(40_000))

    assert limiter.quota(key).rate.amount == 50_000


async def test_both_limits_hold_and_a_refusal_by_one_takes_nothing_of_the_other(limiter):
    both = Caller(user="both", tier="standard", budget_usd_per_day=1.0)
    await limiter.reserve(both, use(100, 0.9))

    assert "budget" in str(await refused(limiter, both, use(5000, 0.5)))

    await limiter.reserve(both, use(5900, 0.1))


@pytest.mark.parametrize("caller", [Caller(user="free", tier="unlimited"), OPERATOR])
async def test_who_has_no_limit_reserves_nothing(limiter, caller):
    assert await limiter.reserve(caller, use(10**9, 10.0**9)) is None
    assert limiter.quota(caller) is None


async def test_a_users_keys_of_different_limits_do_not_use_each_others_tokens(limiter):
    large, small = (Caller(user="ann", tier="standard", tokens_per_minute=each) for each in (5000, 100))
    reservation = await limiter.reserve(large, use(4000))
    await limiter.reserve(small, use(100))
    await settled(limiter, reservation, use(1000))

    await limiter.reserve(large, use(4000))
    await refused(limiter, small, use(100))


async def test_users_do_not_use_each_others(limiter):
    await limiter.reserve(ANN, use(6000))

    await limiter.reserve(Caller(user="bob", tier="standard"), use(6000))


async def test_without_redis_an_instance_has_its_share(own_redis):
    """Here half; what was reserved of it is settled in it."""
    subject = InRedis(own_redis.url)
    own_redis.stop()
    reservation = await subject.limiter.reserve(ANN, use(2500))
    await refused(subject.limiter, ANN, use(2500))
    subject.limiter.settle(reservation, use(100))

    await subject.limiter.reserve(ANN, use(2500))
    await subject.limiter.reserve(RICH, use(usd=0.4))
    assert "0.1000 USD are left" in str(await refused(subject.limiter, RICH, use(usd=0.4)))
    await subject.close()


async def test_what_was_spent_without_redis_is_counted_when_it_is_back(own_redis):
    """And while it is away, an instance has its share of what was left."""
    subject = InRedis(own_redis.url)
    await subject.limiter.reserve(RICH, use(usd=0.6))
    own_redis.process.send_signal(signal.SIGSTOP)
    reservation = await subject.limiter.reserve(RICH, use(usd=0.15))
    assert "0.0500 USD are left" in str(await refused(subject.limiter, RICH, use(usd=0.15)))
    subject.limiter.settle(reservation, use(usd=0.1))
    own_redis.process.send_signal(signal.SIGCONT)
    client = subject.client
    await until(lambda: not (client.is_away or subject.limiter._unsettled or client._sending or client._waiting))

    assert "0.3000 USD are left" in str(await refused(subject.limiter, RICH, use(usd=0.35)))
    await subject.limiter.reserve(RICH, use(usd=0.25))
    await subject.close()


def test_a_day_ends_at_midnight_for_what_is_in_memory():
    """Not a day after the first request."""
    clock, unix = FakeClock(), FakeClock(1000.5 * DAY_S)
    limiter = MemoryUsageLimiter(tiers={}, clock=clock, unix_now=unix)
    limiter.settle(asyncio.run(limiter.reserve(RICH, use(usd=0.5))), use(usd=0.9))
    reservation = asyncio.run(limiter.reserve(RICH, use(usd=0.1)))
    with pytest.raises(RateLimited) as error:
        asyncio.run(limiter.reserve(RICH, use(usd=0.2)))
    assert error.value.retry_after_s == DAY_S / 2

    unix.advance(DAY_S / 2)
    limiter.settle(reservation, use(usd=0.1))

    asyncio.run(limiter.reserve(RICH, use(usd=1.0)))


def test_a_crowd_of_addresses_does_not_make_a_budget_forgotten():
    """It is a day's, however many come."""
    limiter = in_memory(max_users=10)
    asyncio.run(limiter.reserve(RICH, use(usd=1.0)))
    for number in range(100):
        asyncio.run(limiter.reserve(Caller(user=f"address:{number}", tier="standard"), use(1)))

    asyncio.run(refused(limiter, RICH, use(usd=1.0)))


def test_nor_do_keys_that_have_spent_nothing_today():
    """They go first, and memory stays bounded."""
    clock = FakeClock()
    limiter = MemoryUsageLimiter(tiers=TIERS, clock=clock, unix_now=lambda: 1000.5 * DAY_S, max_users=10)
    asyncio.run(limiter.reserve(RICH, use(usd=1.0)))
    for number in range(100):
        clock.advance(10.0)
        limiter.settle(asyncio.run(limiter.reserve(Caller(user=str(number), tier="standard"), use(1))), use(1))

    asyncio.run(refused(limiter, RICH, use(usd=1.0)))
    assert len(limiter._users) <= 10


def test_no_more_than_so_many_users_are_kept():
    limiter = in_memory(max_users=10)
    for number in range(100):
        asyncio.run(limiter.reserve(Caller(user=str(number), tier="standard"), use(1)))

    assert len(limiter._users) == 10
