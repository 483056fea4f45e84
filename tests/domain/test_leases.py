"""What an instance decides of the tokens it holds; what comes of it with others: tests/infrastructure."""

import pytest

from domain.leases import ALONE_S, GRANT_S, LEASE_S, LOOK_S, PACE_S, USE_S, Ask, Lease, Told
from domain.limiting import Rate
from domain.shares import NO_OUTAGE, SETTLE_S, Outage

LARGE = Rate(amount=1000, per_s=60.0)
SMALL = Rate(amount=10, per_s=60.0)
ALL_RIGHT = 500.0
"""What is left in a bucket that is far from empty."""


def busy(rate=LARGE, per_s=8, now_s=100.0):
    """A lease whose user has asked so many times in the last second, and now."""
    lease = Lease(rate)
    for number in range(20 * per_s):
        lease.note(now_s - 20.0 + (number + 1) / per_s)
    return lease


def given(lease, now_s=100.0, *, waiting=0, leased=None, left=ALL_RIGHT, wait_s=0.0, late_s=0.0, count=1):
    """Ask, and be told that there is what was wanted, or `leased`; return what was asked."""
    lease.waiting = waiting
    ask = lease.ask(now_s, count)
    leased = ask.want + ask.ahead if leased is None else leased
    lease.told(ask, Told(spent=ask.spend, leased=leased, left=left, wait_s=wait_s), now_s + late_s)
    return ask


def asked(**what):
    """That, while nothing is known of an outage."""
    return Ask(keep_until_s=NO_OUTAGE.settled_at_s, **what)


def takes(lease, number, now_s=100.0):
    """What so many checks at that time get."""
    return [lease.take(now_s) for _ in range(number)]


def test_who_knows_nothing_has_to_ask():
    assert Lease(LARGE).take(100.0) is None


def test_a_busy_user_gets_tokens_for_the_next_second():
    """So that its checks need nobody."""
    lease = busy(per_s=8)

    ask = given(lease, waiting=1)

    assert (ask.spend, ask.want, ask.held, ask.give) == (0, 1, 0, 0)
    assert 8 <= ask.ahead <= 9
    assert takes(lease, ask.ahead + 2) == [0.0] * (ask.ahead + 1) + [None]


def test_a_lease_is_a_small_part_of_the_amount_however_busy_its_user():
    """What is lost with an instance that is killed, and what others cannot have meanwhile."""
    assert given(busy(per_s=500)).ahead == LARGE.amount // 50
    assert given(busy(per_s=500), count=20).ahead == LARGE.amount // 100


@pytest.mark.parametrize("rate", [SMALL, Rate(amount=99, per_s=1.0)])
def test_a_rate_too_small_to_be_divided_is_asked_for_each_token(rate):
    """Not less exact, but a round trip a check; those who wait together share one."""
    lease = busy(rate, per_s=100)

    ask = given(lease, waiting=3)

    assert (ask.spend, ask.want, ask.ahead) == (3, 0, 0)
    assert takes(lease, 4) == [0.0] * 3 + [None]


def test_a_token_whose_asker_has_gone_is_lost():
    """Held, it would be used after the bucket has filled in its place."""
    lease = Lease(SMALL)
    lease.waiting = 2
    ask = lease.ask(100.0, 1)
    lease.waiting = 1
    lease.told(ask, Told(2, 0, 5.0, 0.0), 100.0)

    assert takes(lease, 2) == [0.0, None]
    assert lease.owed == 0


def test_a_slow_user_is_given_what_it_asks_for_and_no_more():
    """Nothing is held that nobody may need."""
    lease = Lease(LARGE)
    lease.note(100.0)

    ask = given(lease, waiting=1)

    assert (ask.want, ask.ahead) == (1, 0)


def test_more_is_asked_for_before_all_is_used():
    """Or every so many requests one would wait."""
    lease = busy(per_s=8)
    wanted = given(lease).ahead
    assert not lease.is_low(100.0)

    takes(lease, wanted // 2 + 1)

    assert lease.is_low(100.0)
    lease.note(100.1)
    assert given(lease, 100.1).ahead >= wanted // 2


def test_what_is_held_lapses_before_the_bucket_forgets_it():
    """Counted from before it was asked: an instance that stood still finds nothing left to give."""
    lease = busy()
    given(lease, late_s=0.25)
    assert lease.take(100.0 + USE_S - 0.01) == 0.0

    assert lease.take(100.0 + USE_S) is None
    assert USE_S < LEASE_S


@pytest.mark.parametrize("late_s", [GRANT_S, USE_S - 0.25])
def test_what_is_leased_is_good_until_it_lapses_however_late_that_is_told(late_s):
    """The bucket knows that it is out: a process that stood still for a moment costs its users nothing."""
    lease = busy()

    wanted = given(lease, late_s=late_s).ahead

    assert takes(lease, wanted, 100.0 + late_s) == [0.0] * wanted
    assert (lease.take(100.0 + late_s), lease.owed) == (None, 0)


def test_what_has_lapsed_is_given_back():
    """If the bucket remembers by then that it is out; or it ignores that."""
    lease = busy()
    wanted = given(lease, late_s=USE_S).ahead
    assert lease.take(100.0 + USE_S) is None
    assert lease.quota("p", 100.0 + USE_S).remaining == ALL_RIGHT

    lease.note(100.0 + USE_S)
    ask = lease.ask(100.0 + USE_S, 1)

    assert (ask.give, ask.held) == (wanted, 0)
    assert ask.ahead > 0


def test_what_was_spent_for_those_who_wait_is_lost_when_that_is_told_too_late():
    """The bucket may have filled again in its place; who waits asks once more, and is not refused meanwhile."""
    lease = Lease(SMALL)
    lease.waiting = 3
    lease.told(lease.ask(100.0, 1), Told(2, 0, 0.0, 6.0), 100.0 + GRANT_S)

    assert lease.take(100.0 + GRANT_S) is None
    assert lease.ask(100.0 + GRANT_S, 1) == asked(at_s=100.0 + GRANT_S, spend=3)


def test_a_refusal_stands_until_there_is_a_token():
    """Nobody is asked meanwhile."""
    lease = Lease(SMALL)
    lease.waiting = 1
    lease.told(lease.ask(100.0, 1), Told(0, 0, 0.5, 3.0), 100.25)

    assert lease.take(101.0) == 2.25
    assert lease.take(103.25) is None


def test_who_gets_less_than_it_wants_does_not_ask_all_the_time():
    """What comes back meanwhile is given at once, and nobody is told to come before it is asked for again."""
    lease = busy()
    given(lease, leased=2, left=0.1, wait_s=0.05)

    assert takes(lease, 3) == [0.0, 0.0, pytest.approx(PACE_S + 0.05)]
    assert not lease.is_low(100.0)
    assert lease.look_after_s(100.0) == pytest.approx(PACE_S)


def test_what_was_not_used_is_given_back():
    """Others may need it."""
    lease = busy()
    held = given(lease).ahead
    assert lease.look_after_s(100.0) == LOOK_S

    ask = lease.ask(100.0 + LOOK_S, 1)

    assert (ask.give, ask.held, ask.want, ask.ahead) == (held, 0, 0, 0)
    assert lease.take(100.0 + LOOK_S) is None
    assert not lease.has_to_ask(100.0 + LOOK_S)


def test_what_is_not_for_those_who_wait_is_refused_to_nobody():
    """The bucket keeps its last token for them; it is not asked for more all the time."""
    lease = busy()
    given(lease, leased=2, left=1.5)

    assert takes(lease, 3) == [0.0, 0.0, None]
    assert not lease.is_low(100.0)
    assert lease.look_after_s(100.0) == pytest.approx(PACE_S)


def test_a_refusal_is_over_before_anybody_was_told_to_come_for_that_token():
    """Whoever comes then may come to any instance: a refusal counts from when it was asked, what is told from later."""
    lease = busy()
    given(lease, waiting=1, leased=0, left=0.0, wait_s=1.0, late_s=0.125)

    assert lease.take(100.125) == pytest.approx(1.0 + PACE_S)
    assert lease.take(101.0 + PACE_S) is None


def lost_sight_of(count, *, left=8.0):
    """A lease whose bucket had so many left, and then gave no answer."""
    lease = Lease(SMALL)
    given(lease, waiting=1, left=left, count=count)
    takes(lease, 1)
    lease.not_told(lease.ask(100.5, count), 100.5)
    return lease


def test_without_an_answer_an_instance_has_its_share_of_what_was_left_and_of_what_comes_back():
    """Others have theirs."""
    lease = lost_sight_of(4)
    assert lease.is_alone(100.5)
    assert [lease.take_alone(100.5, 100.5, 4) for _ in range(3)] == [0.0, 0.0, pytest.approx(23.5, abs=1.0)]

    assert [lease.take_alone(124.5, 100.5, 4) for _ in range(2)] == [0.0, pytest.approx(23.5, abs=1.0)]
    assert lease.quota("p", 124.5).remaining == 0
    assert not lease.is_alone(100.5 + ALONE_S)


def test_who_has_not_heard_of_the_bucket_has_its_share_of_all_of_it():
    """Its user has asked nobody of late, as far as it knows."""
    lease = Lease(SMALL)

    assert [lease.take_alone(100.0, 100.0, 5) for _ in range(3)] == [0.0, 0.0, pytest.approx(30.0)]


def test_an_only_instance_goes_on_with_what_was_left():
    """Nobody else can have spent it."""
    lease = lost_sight_of(1)

    assert [lease.take_alone(100.5, 100.5, 1) for _ in range(9)] == [0.0] * 8 + [pytest.approx(5.5)]


def test_the_bucket_is_told_what_was_spent_without_it():
    """And again, if it was not told."""
    lease = Lease(SMALL)
    lease.take_alone(112.0, 100.0, 2)
    ask = lease.ask(112.0, 2)
    lease.not_told(ask, 112.0)

    assert (ask.away, lease.ask(112.0, 2).away) == (1, 1)


def test_what_has_come_back_is_not_owed():
    """In the bucket it has come back too."""
    lease = Lease(SMALL)
    for minute in range(1, 10):
        assert [lease.take_alone(60.0 * minute, 0.0, 2) for _ in range(5)] == [0.0] * 5
    assert lease.ask(540.0, 2).away == 5

    assert lease.ask(576.0, 2).away == pytest.approx(2.0)
    lease.ask_again(600.0)

    assert not lease.owes(600.0)
    assert lease.ask(600.0, 2).away == 0.0


def test_what_is_spent_alone_while_the_bucket_is_told_is_told_next():
    """The answer knew nothing of it."""
    lease = Lease(SMALL)
    lease.take_alone(112.0, 0.0, 2)
    ask = lease.ask(112.0, 2)
    lease.take_alone(112.0, 0.0, 2)

    lease.told(ask, Told(0, 0, 8.0, 0.0), 112.0)

    assert (ask.away, lease.ask(112.0, 2).owed) == (1, 1)


def test_after_an_outage_what_others_may_have_spent_is_left_in_the_bucket():
    """Until all have told it."""
    lease, outage = Lease(SMALL), Outage(since_s=100.0, until_s=400.0)
    lease.waiting = 1

    ask = lease.ask(400.0, 5, outage)
    lease.told(ask, Told(0, 0, 7.0, 0.0), 400.0)

    assert ask.keep == pytest.approx(8.0)
    assert lease.take(400.0) == SETTLE_S
    assert lease.ask(400.0 + SETTLE_S, 5, outage).keep == 0.0


def test_after_a_short_outage_hardly_anything_is_left():
    """Nobody can have spent more than came back."""
    keep = Lease(SMALL).ask(101.0, 5, Outage(since_s=100.0, until_s=101.0)).keep

    assert keep == pytest.approx(3.0 * SMALL.refill_per_s * 0.8)


@pytest.mark.parametrize("instance_count", [1, 2, 3, 7, 100])
def test_shares_are_no_more_than_the_rate(instance_count):
    """As much comes back as ever; at once at most the amount, or one each."""
    lease = Lease(SMALL)
    at_once, later = 0, 0
    while not lease.take_alone(100.0, -1e6, instance_count):
        at_once += 1
    for step in range(6000):
        later += not lease.take_alone(100.0 + step, -1e6, instance_count)

    most = max(SMALL.amount, instance_count)
    assert at_once * instance_count <= most
    assert later * instance_count <= most + 6000 * SMALL.refill_per_s


def test_a_token_that_was_not_needed_can_be_had_again_at_once():
    """Here, if the bucket still counts it as held."""
    lease = busy()
    number = given(lease).ahead
    takes(lease, number)

    lease.refund(100.0)

    assert (lease.take(100.0), lease.owed) == (0.0, 0)


def test_a_token_that_the_bucket_has_as_spent_goes_back_to_it():
    """Nothing is held for a small rate."""
    lease = Lease(SMALL)
    given(lease, waiting=1)
    lease.waiting = 0
    takes(lease, 1)

    lease.refund(100.0)

    assert lease.take(100.0) is None
    assert lease.ask(100.0, 1) == asked(at_s=100.0, owed=-1)
