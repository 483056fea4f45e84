"""Instances that share a bucket, whatever happens to them: the scripts run in a real Redis, at the times of a model."""

from dataclasses import replace
from itertools import combinations_with_replacement, count
from math import inf

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from domain.leases import GRANT_S, LEASE_S, PACE_S, USE_S, Lease, Told
from domain.limiting import Rate
from domain.shares import NO_OUTAGE, SETTLE_S, UNKNOWN_COUNT, Outage
from infrastructure.redis.limit_scripts import EXCHANGE_PART, RESERVE_PART, SETTLE

AT_A_TIME = "local now = tonumber(ARGV[#ARGV])\n"
_keys = count()


class Instance:
    """One instance; its clock began at any time."""

    names = count()

    def __init__(self, rate, offset_s, lost_at_s=None):
        self.name, self.lease, self.offset_s, self.last = f"i{next(self.names)}", Lease(rate), offset_s, None
        self.outage, self.lost_at_s, self.count = NO_OUTAGE, None, 3
        if lost_at_s is not None:
            self.lose(lost_at_s, is_new=True)

    @property
    def is_away(self):
        return self.lost_at_s is not None

    def lose(self, now_s, *, is_new=False):
        """Redis is gone; who has never seen it knows neither since when nor of how many it is one."""
        self.lost_at_s = now_s + self.offset_s
        self.count = UNKNOWN_COUNT if is_new else 3
        since_s = self.lost_at_s if self.lost_at_s >= self.outage.settled_at_s else self.outage.since_s
        self.outage = Outage(since_s=-inf if is_new else since_s, until_s=inf)

    def find(self, now_s):
        self.lost_at_s, self.count = None, 3
        self.outage = replace(self.outage, until_s=now_s + self.offset_s)
        self.lease.ask_again(now_s + self.offset_s)


class Fleet:
    """Three instances and one user's bucket. `now_s` is the time; the server's clock may be behind."""

    FOUND_S = 0.5
    """So long after the first instance has seen that Redis is back, all have."""

    def __init__(self, redis, rate):
        self.rate, self.now_s, self.behind_s = rate, 1_000_000.0, 0.0
        self.script = redis.register_script(AT_A_TIME + EXCHANGE_PART)
        self.key, self.numbers = f"weir:bucket:{{{next(_keys)}}}", count(1)
        self.instances = [Instance(rate, offset_s) for offset_s in (0.0, -999_000.0, 5e6)]
        self.admitted_s = []
        self.found_at_s = None
        self.furthest_s, self.gains_s, self.beside = self.now_s, [], 0.0

    def server(self, arguments):
        now_us = int((self.now_s - self.behind_s) * 1e6)
        self.furthest_s = max(self.furthest_s, self.now_s - self.behind_s)
        return self.script(keys=[self.key], args=[*arguments, now_us])

    def check(self, at, waiting=1, late_s=0.0):
        """Requests at one instance: each takes what is held, and those that find nothing wait for one answer."""
        one = self.instances[at]
        for _ in range(waiting):
            one.lease.note(self.now_s + one.offset_s)
        one.lease.waiting = self.admit(one, waiting)
        if one.is_away or one.lease.is_alone(self.now_s + one.offset_s):
            self.admit_alone(one, one.lease.waiting)
        elif one.lease.waiting:
            self.exchange(at, late_s)
            self.admit(one, one.lease.waiting)
        one.lease.waiting = 0

    def admit(self, one, number):
        """So many requests are checked; return how many of them have to wait."""
        waits_s = [one.lease.take(self.now_s + one.offset_s) for _ in range(number)]
        self.admitted_s += [self.now_s] * waits_s.count(0.0)
        return waits_s.count(None)

    def admit_alone(self, one, number):
        """So many requests take of the instance's share, which is beside the bucket if the others still have that."""
        waits_s = [one.lease.take_alone(self.now_s + one.offset_s, one.lost_at_s, one.count) for _ in range(number)]
        self.admitted_s += [self.now_s] * waits_s.count(0.0)
        self.beside += 0 if one.is_away else waits_s.count(0.0)

    def exchange(self, at, late_s=0.0):
        """Half of the lateness is on the way there."""
        one = self.instances[at]
        ask = self.ask(one)
        self.now_s += late_s / 2
        spent, leased, left, wait_us = self.server(one.last)
        self.now_s += late_s / 2
        one.lease.told(ask, Told(spent, leased, float(left), wait_us / 1e6), self.now_s + one.offset_s)

    def ask(self, one):
        """What it asks; `last` is how it is sent."""
        ask = one.lease.ask(self.now_s + one.offset_s, one.count, one.outage)
        numbers = (ask.spend, ask.want, ask.ahead, ask.held, ask.give, ask.owed + ask.away, ask.keep)
        per_us, lease_us = int(self.rate.per_s * 1e6), int(LEASE_S * 1e6)
        one.last = (one.name, next(self.numbers), self.rate.amount, per_us, lease_us, *numbers)
        return ask

    def lose_answer(self, at, is_processed):
        one = self.instances[at]
        if one.is_away:
            return
        ask = self.ask(one)
        if is_processed:
            self.server(one.last)
        one.lease.not_told(ask, self.now_s + one.offset_s)

    def look(self, at):
        one = self.instances[at]
        if one.lease.has_to_ask(self.now_s + one.offset_s) and not one.is_away:
            self.exchange(at)

    def follow_up(self):
        """Instances look in a moment at what they have just used."""
        for at, one in enumerate(self.instances):
            after_s = one.lease.look_after_s(self.now_s + one.offset_s)
            if after_s is not None and after_s < PACE_S / 2:
                self.sleep(after_s / 3)
                self.look(at)

    def repeat(self, at):
        """What was sent last comes a second time."""
        one = self.instances[at]
        if one.last and not one.is_away:
            self.server(one.last)

    def crash(self, at):
        """Nobody else knows what it has spent without Redis; who comes in its place has a part of its own."""
        one = self.instances[at]
        ask = one.lease.ask(self.now_s + one.offset_s, one.count)
        self.beside += max(0.0, ask.owed + ask.away)
        is_lost = any(each.is_away for each in self.instances)
        self.beside += self.rate.amount / UNKNOWN_COUNT if is_lost else 0.0
        self.instances[at] = Instance(self.rate, 77.0 * at, self.now_s if is_lost else None)

    def lose_redis(self):
        """No instance reaches it; each has its part of what it knows was left, which others may have spent."""
        self.found_at_s = None
        self.beside += 0.0 if all(one.is_away for one in self.instances) else self.rate.amount
        for one in self.instances:
            if not one.is_away:
                one.lose(self.now_s)

    def find_redis(self, at):
        """One instance sees that it is back; all others will within a moment."""
        if self.instances[at].is_away:
            self.found_at_s = self.now_s if self.found_at_s is None else self.found_at_s
            self.instances[at].find(self.now_s)
            self.look(at)

    def refund(self, at):
        """The request that was admitted last has caused no work."""
        if self.admitted_s and self.admitted_s[-1] == self.now_s:
            self.admitted_s.pop()
            self.instances[at].lease.refund(self.now_s + self.instances[at].offset_s)

    def sleep(self, for_s):
        until_s = self.now_s + for_s
        if self.found_at_s is not None and until_s >= self.found_at_s + self.FOUND_S:
            self.now_s = max(self.now_s, self.found_at_s + self.FOUND_S)
            for at in range(3):
                self.find_redis(at)
            self.found_at_s = None
        self.now_s = max(self.now_s, until_s)

    def fall_behind(self, by_s):
        """Somebody sets the server's clock back, or (below 0) forward: to where it has not been, it gives that time."""
        self.furthest_s = max(self.furthest_s, self.now_s - self.behind_s)
        known_s = min(self.furthest_s, self.now_s - self.behind_s + self.rate.per_s)
        self.behind_s += by_s
        if self.now_s - self.behind_s > known_s:
            self.gains_s.append((self.now_s, min(-by_s, self.now_s - self.behind_s - known_s)))

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

    def allowed_over(self):
        """What the server's clock has given too much, and what instances had that nobody could be told of."""
        return sum(gain_s for _, gain_s in self.gains_s) * self.rate.refill_per_s + self.beside


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
    st.tuples(st.just("fall_behind"), SHORT_S.flatmap(lambda by_s: st.sampled_from([by_s, -by_s]))),
    st.just(("lose_redis",)),
    st.tuples(st.just("find_redis"), AT),
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
SPENT_BEFORE = [("check", 0, 300), ("lose_redis",), ("check", 1, 300), ("check", 2, 300)]
"""Those who have not heard of the bucket take it for full, and have their part of that."""
SPENT_MEANWHILE = [
    *(("check", 0, 1), ("lose_redis",), ("sleep", 100.0), ("check", 1, 300), ("check", 2, 300)),
    *(("find_redis", 0), ("check", 0, 300)),
]
"""The first to see that Redis is back finds the bucket full."""
SPENT_UNTOLD = [*SPENT_MEANWHILE, ("sleep", LEASE_S + 0.5), ("check", 0, 300)]
"""When all have had time to say what they spent, the bucket has to lack it."""
BORN_MEANWHILE = [
    ("lose_redis",),
    ("sleep", 100.0),
    ("check", 1, 300),
    ("crash", 0),
    ("find_redis", 0),
    ("check", 0, 300),
]
"""It knows nothing of how long the others have been without Redis."""
SET_BACK_AND_RIGHT = [
    *(("check", 0, 300), ("fall_behind", 7.0), ("check", 1, 1)),
    *(("fall_behind", -7.0), ("check", 2, 300)),
]
"""What came back before the clock was set back comes back once more."""


@ANY
@example(Rate(amount=100, per_s=1.0), HELD_FOR_LONG)
@example(Rate(amount=100, per_s=1.0), SPENT_BEFORE)
@example(Rate(amount=100, per_s=1.0), SPENT_MEANWHILE)
@example(Rate(amount=100, per_s=1.0), BORN_MEANWHILE)
@example(Rate(amount=150, per_s=60.0), SET_BACK_AND_RIGHT)
@given(st.sampled_from([Rate(amount=100, per_s=1.0), Rate(amount=150, per_s=60.0)]), st.lists(STEP, max_size=50))
def test_in_no_window_more_is_admitted_than_the_amount_and_what_came_back(redis, rate, steps):
    """Whatever is late, lost, repeated, killed or stands still, with Redis and without, however its clock is set."""
    fleet = happened(redis, rate, steps)

    assert fleet.most_over() <= fleet.allowed_over() + 1e-3


TOLD_LATE = [("check", 0, 2, 1.999), ("check", 1, 1), ("check", 1, 1), ("check", 0, 7)]
"""What was spent for the first, but told too late, the bucket has in it again."""


@ANY
@example(Rate(amount=3, per_s=1.0), TOLD_LATE)
@example(Rate(amount=10, per_s=60.0), SPENT_BEFORE)
@example(Rate(amount=10, per_s=60.0), SPENT_MEANWHILE)
@example(Rate(amount=10, per_s=60.0), SPENT_UNTOLD)
@example(Rate(amount=10, per_s=60.0), SET_BACK_AND_RIGHT)
@given(st.sampled_from([Rate(amount=3, per_s=1.0), Rate(amount=10, per_s=60.0)]), st.lists(STEP, max_size=50))
def test_nor_when_the_rate_is_too_small_to_be_divided(redis, rate, steps):
    """Its tokens are spent when the bucket gives them, which is up to half a second before they are used."""
    fleet = happened(redis, rate, steps)

    assert fleet.most_over(GRANT_S) <= fleet.allowed_over() + 1e-3


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


def test_a_clock_that_was_put_right_locks_nobody_out(redis):
    """However far it had been ahead: a bucket is full again when an empty one would be, or soon after."""
    rate = Rate(amount=10, per_s=60.0)
    fleet = Fleet(redis, rate)
    fleet.check(0, 10)
    fleet.fall_behind(7200.0)
    fleet.check(1, 1)
    told_s = fleet.instances[1].lease.take(fleet.now_s - 999_000.0)
    assert 60.0 < told_s <= 66.1

    fleet.sleep(told_s)
    fleet.check(2, 2)
    fleet.sleep(60.0)
    fleet.check(0, 10)

    assert len(fleet.admitted_s) == 10 + 1 + 10


OUTAGE_STEP = st.one_of(
    st.tuples(st.just("check"), AT, st.sampled_from([1, 2, 7])), st.tuples(st.just("sleep"), SHORT_S)
)


@ANY
@given(
    st.sampled_from([Rate(amount=100, per_s=1.0), Rate(amount=10, per_s=10.0), Rate(amount=10, per_s=60.0)]),
    st.lists(OUTAGE_STEP, max_size=20),
    st.lists(OUTAGE_STEP, max_size=40),
)
def test_after_an_outage_who_has_asked_for_little_of_late_is_not_refused(redis, rate, before, meanwhile):
    """What was spent long ago has come back, with Redis or without."""
    fleet = happened(redis, rate, [*before, ("lose_redis",), *meanwhile])
    fleet.sleep(3 * rate.per_s)
    fleet.find_redis(0)
    fleet.sleep(SETTLE_S + fleet.FOUND_S)
    admitted_count = len(fleet.admitted_s)
    for at in (0, 1, 2):
        fleet.look(at)
        fleet.check(at, rate.amount // 4)

    assert len(fleet.admitted_s) - admitted_count == rate.amount // 4 * 3


@pytest.mark.parametrize("rate", [Rate(amount=60, per_s=6.0), Rate(amount=500, per_s=50.0)])
def test_nor_who_asks_all_the_time_for_less_than_the_limit(redis, rate):
    """Two fifths of it, through an outage of five windows: once shares have begun to fill, nobody is refused."""
    fleet = Fleet(redis, rate)
    fleet.lose_redis()
    fleet.sleep(rate.per_s / 4)
    for step in range(1200):
        if step == 800:
            fleet.find_redis(1)
        fleet.check(step % 3)
        fleet.look(step % 3)
        fleet.sleep(0.25 * 10 / rate.refill_per_s)

    assert len(fleet.admitted_s) == 1200


UNFORESEEN = {"fall_behind", "lose_redis", "find_redis", "lose_answer"}


@ANY
@example(Rate(amount=300, per_s=60.0), [("check", 0, 300), ("sleep", 0.1), ("check", 1, 40)], [(1.0, 0)], (0.5, 1))
@given(
    st.sampled_from([Rate(amount=100, per_s=60.0), Rate(amount=300, per_s=60.0), Rate(amount=10, per_s=60.0)]),
    st.lists(STEP.filter(lambda step: step[0] not in UNFORESEEN), max_size=30),
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]), AT), max_size=12),
    st.tuples(st.floats(0.0, 1.0), AT),
)
def test_who_waits_as_long_as_told_gets_a_token_at_any_instance(redis, rate, steps, looks, comes):
    """If nobody else of that user got one meanwhile; what instances ask for by themselves does not count.

    The time is told in whole seconds, so who waits may be later than it had to be.
    """
    late_s, at_last = comes
    drained = [("check", 0, 300), ("check", 1, 300), ("follow_up",)]
    fleet = happened(redis, rate, [*steps, *drained, ("sleep", 0.01), ("check", 2, 2)])
    one = fleet.instances[2]
    told_s = one.lease.take(fleet.now_s + one.offset_s)
    assume(told_s and max(fleet.admitted_s, default=0.0) + one.offset_s < one.lease.asked_at_s)
    comes_s = fleet.now_s + told_s + late_s + 1e-6
    fleet.follow_up()
    for part, at in looks:
        fleet.sleep(part * (comes_s - fleet.now_s) / 2)
        fleet.look(at)
    fleet.sleep(max(0.0, comes_s - fleet.now_s))
    admitted_count = len(fleet.admitted_s)
    fleet.check(at_last, 1)

    assert len(fleet.admitted_s) == admitted_count + 1


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


def test_a_clock_that_is_set_back_and_put_right_gives_neither_tokens_nor_a_budget_twice(redis):
    """Over midnight, too."""
    usage, midnight_us = Usage(redis), 1000 * DAY_US
    usage.reserve("a", midnight_us, limit=600, tokens=600, budget=1.0, usd=1.0)
    usage.settle("a", 600, 1.0)

    reason, left, spent, wait_us = usage.reserve("b", midnight_us - 30e6, limit=600, tokens=10, budget=1.0, usd=0.1)
    assert (reason, left, spent, wait_us) == ("tokens", 0.0, 1.0, 31_000_000)
    assert usage.reserve("c", midnight_us - 30e6, budget=1.0, usd=0.1)[0] == "budget"

    assert usage.reserve("d", midnight_us + 1e6, limit=600, tokens=11) == ("tokens", 10.0, 1.0, 100_000)


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
