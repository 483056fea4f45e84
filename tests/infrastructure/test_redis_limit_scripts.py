"""Instances that share a bucket, whatever happens to them: the scripts run in a real Redis, at the times of a model."""

from itertools import combinations_with_replacement, count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from domain.leases import GRANT_S, LEASE_S, USE_S, Lease, Told
from domain.limiting import Rate
from infrastructure.redis.limit_scripts import EXCHANGE_PART, RESERVE_PART, SETTLE

AT_A_TIME = "local now = tonumber(ARGV[#ARGV])\n"
_keys = count()


class Instance:
    """One instance; its clock began at any time."""

    names = count()

    def __init__(self, rate, offset_s):
        self.name, self.lease, self.offset_s, self.last = f"i{next(self.names)}", Lease(rate), offset_s, None


class Fleet:
    """Three instances and one user's bucket. `now_s` is the time; the server's clock may be behind."""

    def __init__(self, redis, rate):
        self.rate, self.now_s, self.behind_s = rate, 1_000_000.0, 0.0
        self.script = redis.register_script(AT_A_TIME + EXCHANGE_PART)
        self.key, self.numbers = f"weir:bucket:{{{next(_keys)}}}", count(1)
        self.instances = [Instance(rate, offset_s) for offset_s in (0.0, -999_000.0, 5e6)]
        self.admitted_s = []

    def server(self, arguments):
        now_us = int((self.now_s - self.behind_s) * 1e6)
        return self.script(keys=[self.key], args=[*arguments, now_us])

    def check(self, at, waiting=1, late_s=0.0):
        """Requests at one instance: each takes what is held, and those that find nothing wait for one answer."""
        one = self.instances[at]
        for _ in range(waiting):
            one.lease.note(self.now_s + one.offset_s)
        one.lease.waiting = self.admit(one, waiting)
        if one.lease.waiting:
            self.exchange(at, late_s)
            self.admit(one, one.lease.waiting)
            one.lease.waiting = 0

    def admit(self, one, number):
        """So many requests are checked; return how many of them have to wait."""
        waits_s = [one.lease.take(self.now_s + one.offset_s) for _ in range(number)]
        self.admitted_s += [self.now_s] * waits_s.count(0.0)
        return waits_s.count(None)

    def exchange(self, at, late_s=0.0):
        """Half of the lateness is on the way there."""
        one = self.instances[at]
        ask = one.lease.ask(self.now_s + one.offset_s, 3)
        numbers = (ask.spend, ask.want, ask.held, ask.give, ask.owed)
        per_us, lease_us = int(self.rate.per_s * 1e6), int(LEASE_S * 1e6)
        one.last = (one.name, next(self.numbers), self.rate.amount, per_us, lease_us, *numbers)
        self.now_s += late_s / 2
        spent, leased, left, wait_us = self.server(one.last)
        self.now_s += late_s / 2
        one.lease.told(ask, Told(spent, leased, float(left), wait_us / 1e6), self.now_s + one.offset_s)

    def lose_answer(self, at, is_processed):
        one = self.instances[at]
        ask = one.lease.ask(self.now_s + one.offset_s, 3)
        if is_processed:
            numbers = (ask.spend, ask.want, ask.held, ask.give, ask.owed)
            per_us, lease_us = int(self.rate.per_s * 1e6), int(LEASE_S * 1e6)
            one.last = (one.name, next(self.numbers), self.rate.amount, per_us, lease_us, *numbers)
            self.server(one.last)
        one.lease.not_told(ask, self.now_s + one.offset_s)

    def look(self, at):
        if self.instances[at].lease.has_to_ask:
            self.exchange(at)

    def repeat(self, at):
        """What was sent last comes a second time."""
        if self.instances[at].last:
            self.server(self.instances[at].last)

    def crash(self, at):
        self.instances[at] = Instance(self.rate, 77.0 * at)

    def refund(self, at):
        """The request that was admitted last has caused no work."""
        if self.admitted_s and self.admitted_s[-1] == self.now_s:
            self.admitted_s.pop()
            self.instances[at].lease.refund(self.now_s + self.instances[at].offset_s)

    def sleep(self, for_s):
        self.now_s += for_s

    def fall_behind(self, by_s):
        """Somebody sets the server's clock back."""
        self.behind_s += by_s

    def most_over(self, slack_s=0.0):
        """By how much the busiest window has more than the amount and what came back in it."""
        times = list(enumerate(self.admitted_s))
        return max(
            (
                last - first + 1 - self.rate.amount - (ended_s - began_s + slack_s) * self.rate.refill_per_s
                for (first, began_s), (last, ended_s) in combinations_with_replacement(times, 2)
            ),
            default=-1.0,
        )


AT = st.integers(0, 2)
MANY = st.sampled_from([1, 2, 7, 40, 300])
SHORT_S = st.sampled_from([0.0, 0.01, 0.1, 0.3, 1.0, USE_S - 0.001, USE_S, LEASE_S, LEASE_S + 0.5, 7.0, 100.0])
STEP = st.one_of(
    st.tuples(st.just("check"), AT, MANY),
    st.tuples(st.just("check"), AT, MANY),
    st.tuples(st.just("check"), AT, MANY, SHORT_S),
    st.tuples(st.just("sleep"), SHORT_S),
    st.tuples(st.just("look"), AT),
    st.tuples(st.just("lose_answer"), AT, st.booleans()),
    st.tuples(st.just("repeat"), AT),
    st.tuples(st.just("crash"), AT),
    st.tuples(st.just("refund"), AT),
    st.tuples(st.just("fall_behind"), SHORT_S),
)
ANY = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def redis(redis_session):
    with Redis(port=redis_session.port) as client:
        yield client


def happened(redis, rate, steps):
    fleet = Fleet(redis, rate)
    for name, *how in steps:
        getattr(fleet, name)(*how)
    return fleet


HELD_FOR_LONG = [("check", 0, 7), ("sleep", LEASE_S + 0.5), ("check", 1, 300), ("check", 0, 1)]
"""What the first one holds, the bucket has given again."""


@ANY
@example(Rate(amount=100, per_s=1.0), HELD_FOR_LONG)
@given(st.sampled_from([Rate(amount=100, per_s=1.0), Rate(amount=150, per_s=60.0)]), st.lists(STEP, max_size=50))
def test_in_no_window_more_is_admitted_than_the_amount_and_what_came_back(redis, rate, steps):
    """Whatever is late, lost, repeated, killed or stands still, and though the server's clock is set back."""
    assert happened(redis, rate, steps).most_over() <= 1e-3


TOLD_LATE = [("check", 0, 2, 1.999), ("check", 1, 1), ("check", 1, 1), ("check", 0, 7)]
"""What was spent for the first, but told too late, the bucket has in it again."""


@ANY
@example(Rate(amount=3, per_s=1.0), TOLD_LATE)
@given(st.sampled_from([Rate(amount=3, per_s=1.0), Rate(amount=10, per_s=60.0)]), st.lists(STEP, max_size=50))
def test_nor_when_the_rate_is_too_small_to_be_divided(redis, rate, steps):
    """Its tokens are spent when the bucket gives them, which is up to half a second before they are used."""
    assert happened(redis, rate, steps).most_over(GRANT_S) <= 1e-3


@pytest.mark.parametrize(
    "rate", [Rate(amount=20, per_s=1.0), Rate(amount=100, per_s=1.0), Rate(amount=1000, per_s=9.0)]
)
def test_who_asks_all_the_time_gets_nearly_all_though_an_instance_is_killed(redis, rate):
    """Three windows, and the burst before them; the killed one held what it had just asked for."""
    fleet, step = Fleet(redis, rate), count()
    end_s = fleet.now_s + 3 * rate.per_s
    while fleet.now_s < end_s:
        number = next(step)
        fleet.check(number % 3, 2)
        fleet.sleep(rate.per_s / 1000)
        if number == 500:
            fleet.crash(number % 3)

    assert fleet.most_over() <= 1e-3
    assert len(fleet.admitted_s) >= 0.95 * 4 * rate.amount


@pytest.mark.parametrize("late_s", [0.0, GRANT_S, USE_S - 0.25, USE_S + 0.5])
@pytest.mark.parametrize("waiting", [1, 12])
def test_an_instance_that_stands_still_for_a_moment_costs_nobody_a_token(redis, waiting, late_s):
    """Nor two that do: what neither has used the other can have."""
    rate = Rate(amount=1000, per_s=65536.0)
    fleet = Fleet(redis, rate)
    for at in (0, 1):
        fleet.check(at, waiting, late_s)
        fleet.look(at)
    for _ in range(3):
        fleet.check(2, 2 * rate.amount)

    assert len(fleet.admitted_s) == rate.amount


def test_what_an_instance_that_is_gone_held_is_not_given_again(redis):
    """It may have used all of it. But it takes nobody's place any more once it has lapsed."""
    rate = Rate(amount=100, per_s=100.0)
    fleet = Fleet(redis, rate)
    fleet.check(0, 30)
    fleet.crash(0)
    fleet.sleep(LEASE_S)
    fleet.check(1, 200)
    assert len(fleet.admitted_s) <= 100 + LEASE_S

    fleet.sleep(200.0)
    before = len(fleet.admitted_s)
    fleet.check(1, 200)

    assert len(fleet.admitted_s) - before == 100


DAY_US = 86_400_000_000


class Usage:
    """One user's usage in a real Redis, at the times of the test."""

    def __init__(self, redis):
        self.redis, self.key = redis, f"weir:bucket:{{u{next(_keys)}}}:usage"
        self.script = redis.register_script(AT_A_TIME + RESERVE_PART)

    def reserve(self, name, at_us, *, limit=0, tokens=0, budget=-1.0, usd=0.0):
        reason, left, spent, wait_us = self.script(keys=[self.key], args=[name, limit, tokens, budget, usd, int(at_us)])
        return reason.decode(), float(left), round(float(spent), 9), wait_us

    def settle(self, name, tokens, usd):
        return self.redis.eval(SETTLE.text, 1, self.key, name, tokens, usd)


def test_tokens_of_a_minute_come_back_and_a_debt_is_paid_off_first(redis):
    """An answer that took more than was thought costs its asker time."""
    usage, now_us = Usage(redis), 1000 * DAY_US
    assert usage.reserve("a", now_us, limit=600, tokens=500) == ("", 100.0, 0.0, 0)
    assert usage.reserve("b", now_us, limit=600, tokens=200) == ("tokens", 100.0, 0.0, 10_000_000)

    usage.settle("a", 700, 0.0)

    assert usage.reserve("b", now_us, limit=600, tokens=200) == ("tokens", -100.0, 0.0, 30_000_000)
    assert usage.reserve("b", now_us + 30e6, limit=600, tokens=200) == ("", 0.0, 0.0, 0)


def test_a_budget_is_new_at_midnight_and_its_refusal_says_when(redis):
    """UTC."""
    usage, noon_us = Usage(redis), 1000.5 * DAY_US
    assert usage.reserve("a", noon_us, budget=1.0, usd=0.6) == ("", 0.0, 0.6, 0)
    assert usage.reserve("b", noon_us, budget=1.0, usd=0.6) == ("held", 0.0, 0.6, 1_000_000)

    usage.settle("a", 0, 0.6)

    assert usage.reserve("b", noon_us, budget=1.0, usd=0.6) == ("budget", 0.0, 0.6, DAY_US // 2)
    assert usage.reserve("b", noon_us, budget=1.0, usd=0.25) == ("", 0.0, 0.85, 0)

    assert usage.reserve("c", noon_us + DAY_US / 2, budget=1.0, usd=1.0) == ("", 0.0, 1.0, 0)


def test_nobody_waits_for_an_answer_whose_instance_is_gone(redis):
    """What was reserved for it is counted as spent, for its day."""
    usage, noon_us = Usage(redis), 1000.5 * DAY_US
    usage.reserve("a", noon_us, budget=1.0, usd=0.6)

    assert usage.reserve("b", noon_us + 599e6, budget=1.0, usd=0.6)[0] == "held"
    assert usage.reserve("b", noon_us + 601e6, budget=1.0, usd=0.6)[0] == "budget"


def test_what_is_sent_twice_counts_once(redis):
    """A client that heard nothing sends it again."""
    usage, now_us = Usage(redis), 1000 * DAY_US

    reserved = [usage.reserve("a", now_us, limit=600, tokens=500, budget=1.0, usd=0.5) for _ in range(2)]
    settled = [usage.settle("a", 100, 0.1) for _ in range(2)]

    assert reserved == [("", 100.0, 0.5, 0)] * 2
    assert settled == [1, 0]
    assert usage.reserve("b", now_us, limit=600, tokens=1, budget=1.0, usd=0.0) == ("", 499.0, 0.1, 0)


def test_a_reservation_of_yesterday_does_not_change_today(redis):
    """Its estimate stands."""
    usage, now_us = Usage(redis), 1000 * DAY_US
    usage.reserve("a", now_us, budget=1.0, usd=0.5)
    usage.reserve("b", now_us + DAY_US, budget=1.0, usd=0.25)

    assert usage.settle("a", 0, 0.0) == 0
    assert usage.reserve("c", now_us + DAY_US, budget=1.0, usd=0.0)[2] == 0.25
