"""The contract of domain.ports.RateLimiter, in memory, on one Redis and on a cluster."""

import itertools
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import RateChecked
from domain.limiting import Quota, Rate
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from tests.fakes import FakeClock, RememberedEvents
from tests.limiters import RedisLimiter
from tests.loops import run, settle

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]

RATE = Rate(amount=4, per_s=4096.0)
"""So slow that no token comes back while a test runs, unless it says that time passes."""
TOKEN_S = 1024.0
ANN = Caller(user="ann", tier="standard")
BOB = Caller(user="bob", tier="standard")


class InMemory:
    """A limiter whose time passes when told to."""

    path = "local"

    def __init__(self, rate=RATE, max_buckets=100):
        self.clock = FakeClock()
        self.events = RememberedEvents()
        self.limiter = MemoryRateLimiter(
            rates={"standard": rate}, publish=self.events.publish, clock=self.clock, max_buckets=max_buckets
        )

    async def advance(self, by_s):
        self.clock.advance(by_s)


@asynccontextmanager
async def subject_of(kind, request, rate=RATE):
    if kind == "memory":
        yield InMemory(rate)
        return
    subject = RedisLimiter(request.getfixturevalue(kind).url, rates={"standard": rate})
    try:
        yield subject
    finally:
        await subject.close()
        await settle()  # a connection that is closed gives its socket back a turn of the loop later


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def subject(request):
    async with subject_of(request.param, request) as each:
        yield each


async def wait_s(subject, caller=ANN):
    """0.0 when a token was had, else the time to wait for one."""
    try:
        await subject.limiter.spend(caller)
    except RateLimited as refused:
        return refused.retry_after_s
    return 0.0


async def waits_s(subject, number, caller=ANN):
    """So many checks."""
    return [await wait_s(subject, caller) for _ in range(number)]


async def spend_all(subject, caller=ANN):
    while not await wait_s(subject, caller):
        pass


def soon(time_s):
    """That time, as far as a test that talks to a server can say."""
    return pytest.approx(time_s, abs=8.0)


async def test_the_whole_amount_can_be_had_at_once_and_no_more(subject):
    """And the refusal says when to come back, and what is allowed."""
    assert await waits_s(subject, 5) == [0.0, 0.0, 0.0, 0.0, soon(TOKEN_S)]

    with pytest.raises(RateLimited) as refused:
        await subject.limiter.spend(ANN)
    [quota] = refused.value.quotas
    assert quota == Quota(policy="standard", rate=RATE, remaining=0, reset_s=soon(4 * TOKEN_S))
    assert str(refused.value).startswith("4 requests in 4096 s are allowed; wait 10")


async def test_tokens_come_back_at_a_steady_rate(subject):
    """One every so often, up to the amount."""
    await spend_all(subject)
    await subject.advance(1.5 * TOKEN_S)
    assert await waits_s(subject, 2) == [0.0, soon(TOKEN_S / 2)]

    await subject.advance(1000 * TOKEN_S)

    assert await waits_s(subject, 5) == [0.0, 0.0, 0.0, 0.0, soon(TOKEN_S)]


async def test_who_waits_as_long_as_told_gets_a_token(subject):
    """And who comes a moment earlier does not."""
    await spend_all(subject)
    told_s = await wait_s(subject)
    await subject.advance(told_s - 16.0)
    assert await wait_s(subject) == soon(16.0)

    await subject.advance(16.0)

    assert await wait_s(subject) == 0.0


async def test_callers_do_not_spend_each_others_tokens(subject):
    """Each has a bucket."""
    await spend_all(subject)

    assert await wait_s(subject, BOB) == 0.0


async def test_a_key_may_have_a_rate_of_its_own(subject):
    """Instead of its tier's, even of a tier without one."""
    one = Caller(user="key", tier="unlimited", rate=Rate(amount=1, per_s=4096.0))

    assert await waits_s(subject, 2, one) == [0.0, soon(4096.0)]
    assert subject.limiter.quota(one).rate.amount == 1


async def test_a_users_keys_of_different_rates_do_not_spend_each_others_tokens(subject):
    """A small one would empty a large one's bucket, and a large one fill a small one's."""
    large, small = (Caller(user="ann", tier="x", rate=Rate(amount=each, per_s=4096.0)) for each in (6, 2))
    assert await waits_s(subject, 3, large) == [0.0] * 3

    assert await waits_s(subject, 3, small) == [0.0, 0.0, soon(2048.0)]
    assert await waits_s(subject, 4, large) == [0.0, 0.0, 0.0, soon(4096.0 / 6)]


async def test_a_tier_without_a_rate_has_no_limit(subject):
    """Nor is anything counted, checked or given back for it."""
    free = Caller(user="free", tier="unlimited")

    assert await waits_s(subject, 50, free) == [0.0] * 50
    subject.limiter.refund(free)
    assert subject.limiter.quota(free) is None
    assert subject.events.all == []


async def test_every_check_is_told(subject):
    """Whether it was granted or not, and by whom it was answered: a refusal that stands needs nobody."""
    await waits_s(subject, 6)

    assert subject.events.all == [RateChecked(path=subject.path)] * 5 + [RateChecked(path="local")]


async def test_a_token_given_back_can_be_spent_again(subject):
    """But never more than the amount."""
    await spend_all(subject)
    subject.limiter.refund(ANN)
    assert await waits_s(subject, 2) == [0.0, soon(TOKEN_S)]

    for _ in range(10):
        subject.limiter.refund(ANN)

    assert await waits_s(subject, 5) == [0.0, 0.0, 0.0, 0.0, soon(TOKEN_S)]


async def test_looking_at_a_quota_spends_nothing(subject):
    """Every response has the numbers, also of callers who cause no work."""
    full = Quota(policy="standard", rate=RATE, remaining=4, reset_s=0.0)
    assert [subject.limiter.quota(ANN) for _ in range(3)] == [full] * 3
    subject.limiter.refund(ANN)

    await subject.limiter.spend(ANN)
    await subject.advance(512.0)

    left = Quota(policy="standard", rate=RATE, remaining=3, reset_s=soon(512.0))
    assert [subject.limiter.quota(ANN) for _ in range(2)] == [left] * 2


async def test_no_more_than_so_many_buckets_are_kept():
    """A crowd of addresses costs bounded memory; who was here last is remembered."""
    subject = InMemory(max_buckets=3)
    await spend_all(subject)
    for number in range(100):
        await subject.limiter.spend(Caller(user=str(number), tier="standard"))
        assert await wait_s(subject) > 0

    assert len(subject.limiter._buckets) == 3


async def test_a_crowd_of_addresses_does_not_make_a_key_forgotten():
    """Nor give its user a day's requests once more."""
    subject = InMemory(max_buckets=3)
    daily = Caller(user="daily", tier="standard", rate=Rate(amount=2, per_s=86_400.0))
    assert (await waits_s(subject, 3, daily))[:2] == [0.0, 0.0]
    for number in range(100):
        await subject.limiter.spend(Caller(user=f"address:{number}", tier="standard"))

    assert await wait_s(subject, daily) > 0


async def test_of_too_many_those_go_first_that_are_full_again():
    """Though another was used longer ago."""
    subject = InMemory(max_buckets=3)
    daily = Caller(user="daily", tier="standard", rate=Rate(amount=2, per_s=86_400.0))
    await waits_s(subject, 2, daily)
    for number in range(40):
        await subject.limiter.spend(Caller(user=str(number), tier="standard"))
        await subject.advance(TOKEN_S)

    assert await wait_s(subject, daily) > 0


async def test_a_bucket_that_is_full_again_is_forgotten():
    """However many there may be."""
    subject = InMemory()
    for number in range(50):
        await subject.limiter.spend(Caller(user=str(number), tier="standard"))
    await subject.advance(TOKEN_S)
    for number in range(50, 100):
        await subject.limiter.spend(Caller(user=str(number), tier="standard"))

    assert len(subject.limiter._buckets) == 50


RATES = st.builds(Rate, amount=st.integers(1, 20), per_s=st.floats(0.01, 5000.0))
PAUSES = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.floats(0.0, 1000.0)), max_size=60)


async def admitted_s(rate, pauses):
    """The times at which a caller that asks after each pause was given a token."""
    subject, times_s = InMemory(rate), []
    for pause_s in pauses:
        await subject.advance(pause_s)
        if not await wait_s(subject):
            times_s.append(subject.clock())
    return times_s


@given(RATES, PAUSES)
def test_in_no_interval_more_is_admitted_than_the_amount_and_what_came_back(rate, pauses):
    """The promise to the providers, to a rounding error."""
    times_s = run(admitted_s(rate, pauses))

    for (first, began_s), (last, ended_s) in itertools.combinations_with_replacement(enumerate(times_s), 2):
        assert last - first + 1 <= rate.amount + (ended_s - began_s) * rate.refill_per_s + 1e-5


async def tokens_after_waiting(rate, pauses):
    """What asking again gave, exactly as long after each refusal as it said; and just before."""
    subject, given = InMemory(rate), []
    for pause_s in pauses:
        await subject.advance(pause_s)
        await spend_all(subject)
        told_s = await wait_s(subject)
        await subject.advance(told_s / 2)
        too_early = await wait_s(subject)
        subject.clock.now_s += told_s - told_s / 2
        is_refused = too_early > 0 or told_s * rate.refill_per_s < 1e-5
        given.append((is_refused, await wait_s(subject)))
    return given


@given(RATES, PAUSES.filter(lambda pauses: len(pauses) < 10))
def test_who_waits_as_long_as_told_gets_a_token_and_who_comes_earlier_does_not(rate, pauses):
    """A Retry-After that is a moment too short makes every polite client ask twice."""
    assert set(run(tokens_after_waiting(rate, pauses))) <= {(True, 0.0)}


@pytest.mark.parametrize("wrong", [{"amount": 0, "per_s": 1.0}, {"amount": 1, "per_s": 0.0}])
def test_a_rate_that_allows_nothing_cannot_be_built(wrong):
    """It would be an outage by configuration."""
    with pytest.raises(ValueError, match="at least one request"):
        Rate(**wrong)
