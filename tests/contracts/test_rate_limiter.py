"""The contract of domain.ports.RateLimiter."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import RateChecked
from domain.limiting import Quota, Rate
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from tests.fakes import FakeClock, RememberedEvents
from tests.loops import run

pytestmark = pytest.mark.anyio

RATE = Rate(amount=4, per_s=8.0)
ANN = Caller(user="ann", tier="standard")
BOB = Caller(user="bob", tier="standard")


class Subject:
    def __init__(self, rate=RATE, max_buckets=100):
        self.clock = FakeClock()
        self.events = RememberedEvents()
        self.limiter = MemoryRateLimiter(
            rates={"standard": rate}, publish=self.events.publish, clock=self.clock, max_buckets=max_buckets
        )

    async def wait_s(self, caller=ANN):
        """0.0 when a token was had, else the time to wait for one."""
        try:
            await self.limiter.spend(caller)
        except RateLimited as refused:
            return refused.retry_after_s
        return 0.0

    async def spend_all(self, caller=ANN):
        while not await self.wait_s(caller):
            pass


@pytest.fixture
def subject():
    return Subject()


async def test_the_whole_amount_can_be_had_at_once_and_no_more(subject):
    """And the refusal says when to come back, and what is allowed."""
    assert [await subject.wait_s() for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 2.0]

    with pytest.raises(RateLimited) as refused:
        await subject.limiter.spend(ANN)
    assert refused.value.quota == Quota(policy="standard", rate=RATE, remaining=0, reset_s=8.0)


async def test_tokens_come_back_at_a_steady_rate(subject):
    """One every two seconds, up to the amount."""
    await subject.spend_all()
    subject.clock.advance(3.0)
    assert [await subject.wait_s() for _ in range(2)] == [0.0, 1.0]

    subject.clock.advance(1000.0)

    assert [await subject.wait_s() for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 2.0]


async def test_callers_do_not_spend_each_others_tokens(subject):
    """Each has a bucket."""
    await subject.spend_all()

    assert await subject.wait_s(BOB) == 0.0


async def test_a_tier_without_a_rate_has_no_limit(subject):
    """Nor is anything counted, checked or given back for it."""
    free = Caller(user="free", tier="unlimited")

    assert [await subject.wait_s(free) for _ in range(50)] == [0.0] * 50
    await subject.limiter.refund(free)
    assert subject.limiter.quota(free) is None
    assert subject.events.all == []


async def test_every_check_is_told(subject):
    """Whether it was granted or not."""
    await subject.spend_all()

    assert subject.events.all == [RateChecked(path="local")] * 5


async def test_a_token_given_back_can_be_spent_again(subject):
    """But never more than the amount."""
    await subject.spend_all()
    await subject.limiter.refund(ANN)
    assert [await subject.wait_s() for _ in range(2)] == [0.0, 2.0]

    for _ in range(10):
        await subject.limiter.refund(ANN)

    assert subject.limiter.quota(ANN).remaining == 4


async def test_looking_at_a_quota_makes_no_bucket_and_spends_nothing(subject):
    """Every response has the numbers, also of callers who cause no work."""
    full = Quota(policy="standard", rate=RATE, remaining=4, reset_s=0.0)
    assert [subject.limiter.quota(ANN) for _ in range(3)] == [full] * 3
    await subject.limiter.refund(ANN)
    assert len(subject.limiter._buckets) == 0

    await subject.limiter.spend(ANN)
    subject.clock.advance(1.0)

    assert [subject.limiter.quota(ANN) for _ in range(2)] == [
        Quota(policy="standard", rate=RATE, remaining=3, reset_s=1.0)
    ] * 2


async def test_no_more_than_so_many_buckets_are_kept():
    """A crowd of addresses costs bounded memory; who was here last is remembered."""
    subject = Subject(max_buckets=3)
    await subject.spend_all(ANN)
    for number in range(100):
        await subject.limiter.spend(Caller(user=str(number), tier="standard"))
        assert await subject.wait_s(ANN) > 0

    assert len(subject.limiter._buckets) == 3


RATES = st.builds(Rate, amount=st.integers(1, 20), per_s=st.floats(0.01, 5000.0))
PAUSES = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.floats(0.0, 1000.0)), max_size=60)


async def admitted_s(rate, pauses):
    """The times at which a caller that asks after each pause was given a token."""
    subject, times_s = Subject(rate), []
    for pause_s in pauses:
        subject.clock.advance(pause_s)
        if not await subject.wait_s():
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
    subject, given = Subject(rate), []
    for pause_s in pauses:
        subject.clock.advance(pause_s)
        await subject.spend_all()
        told_s = await subject.wait_s()
        subject.clock.advance(told_s / 2)
        too_early = await subject.wait_s()
        subject.clock.now_s += told_s - told_s / 2
        is_refused = too_early > 0 or told_s * rate.refill_per_s < 1e-5
        given.append((is_refused, await subject.wait_s()))
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
