"""Extra calls are a share of the others, a rest is a rest, and a slow route has a second beside it."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.breaker import BreakerPolicy
from domain.chat import Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    AnswerFailed,
    ProviderDeferred,
    ProviderRejected,
    ProviderSaturated,
    ProviderUnavailable,
)
from domain.events import FailedOver
from domain.generation import State
from domain.hedging import ENOUGH, Pace
from domain.retrying import FLOOR_EXTRAS, WINDOW_S, RetryBudget
from domain.selection import Prefill
from tests.domain.failing import BACKOFFS_S, ROUTES, STOP, WHOLE, Subject
from tests.fakes import ACCEPTED
from tests.loops import settle

pytestmark = pytest.mark.anyio
DOWN = ProviderUnavailable("is down")


def taken(budget, times, now_s=0.0):
    return sum(budget.take(now_s) for _ in range(times))


def test_a_quiet_service_has_some_extra_calls_and_they_come_back():
    """One call an hour must not fail for want of a second."""
    budget = RetryBudget(0.0)

    assert taken(budget, 100) == FLOOR_EXTRAS
    assert taken(budget, 100, now_s=WINDOW_S - 1) == 0
    assert taken(budget, 100, now_s=WINDOW_S) == FLOOR_EXTRAS
    assert taken(budget, 100, now_s=3600.0) == FLOOR_EXTRAS


def test_beyond_that_extra_calls_are_a_share_of_the_others():
    """An outage is not multiplied."""
    budget = RetryBudget(0.25)
    for _ in range(400):
        budget.called(0.0)

    assert taken(budget, 1000) == FLOOR_EXTRAS + 100


def test_an_hour_of_good_calls_does_not_pay_for_a_storm():
    """Only what was called in the same minute counts."""
    budget = RetryBudget(0.2)
    for second in range(3600):
        budget.called(float(second))

    assert taken(budget, 1000, now_s=3600.0) == FLOOR_EXTRAS + int(0.2 * (WINDOW_S - 1))


@given(
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.floats(0.0, 20.0), st.sampled_from(["called", "take"])), max_size=200),
)
def test_in_no_minute_are_there_more(ratio, events):
    """Counted by the second, so a minute may have what was called in the second before it."""
    budget, now_s, called_s, taken_s = RetryBudget(ratio), 0.0, [], []

    for wait_s, event in events:
        now_s += wait_s
        if event == "called":
            budget.called(now_s)
            called_s.append(now_s)
        elif budget.take(now_s):
            taken_s.append(now_s)
            lately = [at_s for at_s in taken_s if at_s > now_s - WINDOW_S + 1]
            called_count = sum(at_s > now_s - WINDOW_S - 1 for at_s in called_s)
            assert len(lately) <= FLOOR_EXTRAS + ratio * called_count


class Requests:
    """Many requests in one moment, of routes that do the same again and again."""

    def __init__(self, *scripts, **options):
        policy = BreakerPolicy(failures=1000, window=1000)
        self.subject = Subject(*scripts, budget_ratio=0.2, policy=policy, waits=False, **options)

    async def make(self, count):
        for _ in range(count):
            self.subject.progress = type(self.subject.progress)(thread_id="t", clock=lambda: 0.0)
            with suppress(AnswerFailed):
                await self.subject.answer()
        return self.subject.calls


CUT = (Chunk("Snow in the hills becomes bread in the valley, and the river knows of neither. "), DOWN)
TAKES_PREFIX = ROUTES | {"b": replace(ROUTES["b"], prefill=Prefill.ASSISTANT)}
EXTRA_CALLS = {
    "retries": (((DOWN,),), {}, "a"),
    "retries, with another route": (((DOWN,), WHOLE), {}, "a"),
    "the rest, of the same route": ((CUT,), {"continues": True}, "a"),
    "the rest, in words": ((CUT, (ProviderRejected("no"),)), {"continues": True, "routes": TAKES_PREFIX}, "b"),
    "short rests": (((ProviderDeferred("is busy", 0.0),), WHOLE), {}, "a"),
}


@pytest.mark.parametrize("kind", EXTRA_CALLS)
async def test_whatever_they_are_for_extra_calls_are_a_fifth(kind):
    """Beside the few that everybody has."""
    scripts, options, provider = EXTRA_CALLS[kind]

    calls = await Requests(*scripts, **options).make(100)

    assert calls[provider] == 100 + 20 + FLOOR_EXTRAS


async def test_calls_that_are_not_made_pay_for_none():
    """A circuit that is open, a provider that is full."""
    requests = Requests((DOWN,), WHOLE, limits={"a": 1})
    requests.subject.slots.take("a")
    await requests.make(100)
    requests.subject.slots.give_back("a")
    requests.subject.breakers.rest("a/a-1", 8.0)
    await requests.make(100)
    await asyncio.sleep(8.0)
    assert requests.subject.calls["a"] == 0

    assert (await requests.make(10))["a"] == 10 + 2 + FLOOR_EXTRAS


async def test_hedges_are_extra_calls_for_the_route_that_is_slow():
    """However many the operator allows: they are taken from what that route's provider has."""
    subject = Subject((asyncio.Event(),), WHOLE, hedge_ratio=1, budget_ratio=0.2)
    hedged = 0
    for _ in range(10):
        usual(subject)
        subject.progress = type(subject.progress)(thread_id="t", clock=subject.loop.time)
        before = subject.calls["b"]
        began_s = subject.loop.time()
        await subject.answer()
        hedged += subject.loop.time() - began_s < 8.0
        assert subject.calls["b"] == before + 1
        subject.breakers.reset("a/a-1")

    assert FLOOR_EXTRAS <= hedged <= FLOOR_EXTRAS + 2


@pytest.mark.parametrize(("wish_s", "rests_s"), [(2.0, 2.0), (2.5, 2.5), (600.0, 600.0), (86_400.0, 3600.0)])
async def test_a_route_that_asks_for_a_rest_has_it(wish_s, rests_s):
    """Other requests do not ask it meanwhile; it has not failed, and an hour is enough of anything."""
    subject = Subject([(ProviderDeferred("asks for fewer requests", wish_s),), WHOLE], WHOLE)
    running = asyncio.create_task(subject.answer())
    await settle()

    assert subject.breakers.circuit("a/a-1").wait_s == rests_s
    await running
    assert "failure" not in subject.breakers.told["a"]
    assert subject.calls == ({"a": 2, "b": 0} if wish_s <= 2.0 else {"a": 1, "b": 1})


async def test_who_waits_for_the_end_of_a_rest_comes_a_random_time_after_it():
    """All who wait would ask again in the same instant."""
    subject = Subject([(ProviderDeferred("asks for fewer requests", 2.0),)] * 2 + [WHOLE], WHOLE)

    await subject.answer()

    assert subject.slept_s == [2.0 + BACKOFFS_S[0], 2.0 + BACKOFFS_S[1]]


async def test_a_rest_that_is_asked_for_again_meanwhile_sends_who_waits_to_the_next_route():
    """There is no use in asking once more."""
    subject = Subject((ProviderDeferred("asks for fewer requests", 2.0),), WHOLE)
    running = asyncio.create_task(subject.answer())
    await asyncio.sleep(2.0)
    subject.breakers.rest("a/a-1", 2.0)

    await running

    assert subject.calls == {"a": 1, "b": 1}
    assert subject.changes[-1] == ("failover", "a", "b", "has asked for a rest")


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_route_whose_attempts_are_used_up_rests_all_the_same(attempts):
    """The next request does not ask it at once."""
    subject = Subject((ProviderDeferred("asks for fewer requests", 2.0),), WHOLE, attempts=attempts)

    await subject.answer()

    assert subject.calls == {"a": attempts, "b": 1}
    assert subject.breakers.circuit("a/a-1").wait_s == 2.0


async def test_a_short_rest_of_the_last_route_is_waited_for():
    """Who comes while it rests is answered a little later, not refused."""
    subject = Subject(WHOLE)
    subject.breakers.rest("a/a-1", 2.0)

    await subject.answer()

    assert subject.loop.time() == 2.0 + BACKOFFS_S[0]
    assert subject.changes == [("selected", None, "a", None), ("retrying", "a", "a", "has asked for a rest")]
    assert subject.calls == {"a": 1}


@pytest.mark.parametrize("case", ["long", "another route", "an open circuit"])
async def test_no_other_rest_is_waited_for(case):
    """Others are faster, or it would not help."""
    policy = BreakerPolicy(failures=1, window=1, open_s=64.0)
    subject = Subject(WHOLE, *[WHOLE] * (case == "another route"), policy=policy)
    if case == "an open circuit":
        (await subject.breakers.acquire("a/a-1")).failure()
    subject.breakers.rest("a/a-1", 2.5 if case == "long" else 1.0)

    if case == "another route":
        await subject.answer()
    else:
        await subject.failed(AllProvidersDown)

    assert subject.loop.time() == 0.0
    assert subject.calls["a"] == 0


async def test_who_is_told_that_all_are_down_is_told_when_to_come_back():
    """When the first of them can be tried."""
    subject = Subject((ProviderDeferred("asks for a rest", 30.0),), (ProviderDeferred("asks for a rest", 20.0),))

    assert (await subject.failed(AllProvidersDown)).retry_after_s == 20.0


def usual(subject, seconds=1.0):
    """The route a has usually taken so long."""
    for _ in range(ENOUGH):
        subject.pace.took(ROUTES["a"], seconds)


async def test_the_time_to_a_first_token_is_counted_from_the_question():
    """Many providers hold their headers back until the model begins."""
    headers, token = asyncio.Event(), asyncio.Event()
    subject = Subject((headers, ACCEPTED, token, *WHOLE))
    subject.loop.call_later(3.0, headers.set)
    subject.loop.call_later(5.0, token.set)

    await subject.answer()

    assert subject.learnt == [("took", "a", 5.0)]
    assert subject.progress.sealed(State.DONE).ttft_s == 5.0


TAUGHT = {
    "unavailable": (DOWN, True),
    "asks for a rest": (ProviderDeferred("asks for a rest", 600.0), True),
    "saturated": (ProviderSaturated("was not called"), False),
    "rejected": (ProviderRejected("no"), False),
}


@pytest.mark.parametrize("case", TAUGHT)
async def test_who_chooses_routes_hears_of_failures_that_are_the_routes_own(case):
    """A question that is wrong, or a socket that is missing here, says nothing of the provider."""
    failure, is_taught = TAUGHT[case]
    subject = Subject((failure,), attempts=1)

    with suppress(AnswerFailed):
        await subject.answer()

    assert subject.learnt == [("failed", "a", None)] * is_taught


async def test_a_first_token_that_is_later_than_usual_is_asked_for_elsewhere_too():
    """The first one wins, and the other call is ended without a word against its route."""
    subject = Subject((asyncio.Event(),), WHOLE, hedge_ratio=1)
    usual(subject)

    await subject.answer()

    assert subject.loop.time() == 1.0
    assert subject.chunks == list(WHOLE)
    assert subject.changes == [("selected", None, "a", None), ("failover", "a", "b", "was slower than it usually is")]
    assert subject.breakers.told["a"] == ["abandon"]
    assert ("a", "cancelled", None) in subject.outcomes
    assert subject.progress.route == ROUTES["b"]
    assert [event.phase for event in subject.events.of(FailedOver)] == ["hedge"]
    assert subject.learnt == [("took", "b", 0.0), ("lost", "a", 1.0)]
    assert subject.is_left


@pytest.mark.parametrize("winner", ["a", "b"])
async def test_a_call_that_was_slower_has_read_its_question_and_is_booked(winner):
    """Its provider charges for that, and has not said how much."""
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000, total_tokens=2_000_000)
    first, script = asyncio.Event(), (*WHOLE, Chunk(usage=usage))
    scripts = {"a": (first, *script), "b": (asyncio.Event(),)} if winner == "a" else {"a": (first,), "b": script}
    subject = Subject(*scripts.values(), hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(1.5, first.set)

    await subject.answer()
    sealed = subject.progress.sealed(State.DONE)
    lost = next(each for each in subject.progress.bookings() if each.route.provider != winner)

    assert lost.usage == Usage(prompt_tokens=5, completion_tokens=0, total_tokens=5, details={"estimated": True})
    assert sealed.usage.total_tokens == 2_000_005
    assert sealed.usage.details == {"estimated": True}
    assert sealed.cost_usd == pytest.approx(3.0 + 5 / 1_000_000)


async def test_a_call_that_failed_before_it_could_lose_is_not_booked():
    """Nor is one that its client has left."""
    first = asyncio.Event()
    subject = Subject((first, *WHOLE), (DOWN,), hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(1.5, first.set)

    await subject.answer()

    assert [booking.route.provider for booking in subject.progress.bookings()] == ["a"]


def test_what_is_ended_for_being_slow_is_still_slow():
    """Otherwise only what was fast would be remembered, and the usual time would become ever shorter."""
    pace, (route, circuit) = Pace(), (ROUTES["a"], "a/a-1")
    pace.lost(route, 9.0)
    for _ in range(ENOUGH):
        pace.took(route, 1.0)
    pace.lost(route, 0.5)
    assert pace.usual_s(circuit) == 1.0

    for _ in range(5):
        pace.lost(route, 2.0)

    assert pace.usual_s(circuit) == 2.0


async def test_the_first_route_may_still_be_the_faster():
    """Then nobody hears of the second."""
    first = asyncio.Event()
    subject = Subject((first, *WHOLE), (asyncio.Event(),), hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(1.5, first.set)

    await subject.answer()

    assert subject.changes == [("selected", None, "a", None)]
    assert subject.calls == {"a": 1, "b": 1}
    assert subject.breakers.told["b"] == ["abandon"]
    assert subject.is_left


@pytest.mark.parametrize("ready_s", [0.0, 0.5])
async def test_a_first_token_in_the_usual_time_is_asked_for_once(ready_s):
    first = asyncio.Event()
    subject = Subject((first, *WHOLE), WHOLE, hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(ready_s, first.set)

    await subject.answer()

    assert subject.calls == {"a": 1, "b": 0}


async def test_what_is_usual_has_to_be_known():
    """The first requests of a process are not asked twice."""
    subject = Subject((asyncio.Event(),), WHOLE, hedge_ratio=1)

    await subject.answer()

    assert subject.loop.time() == 8.0


async def test_at_most_the_ratio_of_requests_is_asked_twice():
    """However slow all of them are."""
    subject = Subject((asyncio.Event(),), WHOLE, hedge_ratio=0.25)
    hedged = 0
    for _ in range(20):
        usual(subject)
        subject.breakers.reset("a/a-1")
        subject.progress = type(subject.progress)(thread_id="t", clock=subject.loop.time)
        began_s = subject.loop.time()
        await subject.answer()
        hedged += subject.loop.time() - began_s < 8.0

    assert hedged == 5


async def test_a_second_that_fails_leaves_the_first_alone():
    """It was not needed."""
    first = asyncio.Event()
    subject = Subject((first, *WHOLE), (DOWN,), hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(4.0, first.set)

    await subject.answer()

    assert subject.chunks == list(WHOLE)
    assert subject.progress.route == ROUTES["a"]


async def test_when_both_fail_it_goes_on_as_with_one():
    """The next routes are asked as ever."""
    fails = asyncio.Event()
    subject = Subject([(fails, DOWN), (DOWN,)], [(DOWN,), WHOLE], hedge_ratio=1)
    usual(subject)
    subject.loop.call_later(4.0, fails.set)

    await subject.answer()

    assert subject.chunks == list(WHOLE)
    assert subject.is_left


async def test_a_winner_that_is_lost_is_gone_on_with_elsewhere():
    """And not by itself."""
    subject = Subject((asyncio.Event(),), (Chunk("x "), DOWN), (Chunk("x y"), STOP), hedge_ratio=1, continues=True)
    usual(subject)

    await subject.answer()

    assert subject.text == "x y"
    assert subject.calls == {"a": 1, "b": 1, "c": 1}


async def test_a_cancelled_race_leaves_both():
    """Who leaves pays for neither."""
    subject = Subject((asyncio.Event(),), (asyncio.Event(),), hedge_ratio=1)
    usual(subject)
    running = asyncio.create_task(subject.answer())
    await asyncio.sleep(2.0)
    assert subject.calls == {"a": 1, "b": 1}

    running.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await running
    await settle()

    assert subject.is_left
    assert subject.breakers.told["a"] == subject.breakers.told["b"] == ["abandon"]
