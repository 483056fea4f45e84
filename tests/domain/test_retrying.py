"""Retries are a share of the calls, a long rest is a rest, and a slow route has a second beside it."""

import asyncio

import pytest

from domain.chat import Chunk
from domain.errors import AllProvidersDown, ProviderDeferred, ProviderUnavailable
from domain.events import FailedOver
from domain.hedging import ENOUGH
from domain.retrying import FLOOR_RETRIES, FLOOR_RETRIES_PER_S, RetryBudget
from tests.domain.failing import ROUTES, STOP, WHOLE, Subject
from tests.loops import settle

pytestmark = pytest.mark.anyio
DOWN = ProviderUnavailable("is down")


def taken(budget, times, now_s=0.0):
    return sum(budget.take(now_s) for _ in range(times))


def test_a_quiet_service_has_some_retries_and_they_come_back():
    """One call an hour must not fail for want of a second."""
    budget = RetryBudget(0.0)

    assert taken(budget, 100) == FLOOR_RETRIES
    assert taken(budget, 100, now_s=2.0) == 2 * FLOOR_RETRIES_PER_S
    assert taken(budget, 100, now_s=3600.0) == FLOOR_RETRIES


def test_beyond_that_retries_are_a_share_of_the_calls():
    """An outage is not multiplied."""
    budget = RetryBudget(0.25)
    taken(budget, 100)
    for _ in range(400):
        budget.called()

    assert taken(budget, 1000) == 100


async def test_without_a_budget_the_next_route_is_asked_at_once():
    """A provider that is down is not called three times by each of a hundred requests."""
    subject = Subject((DOWN,), WHOLE, budget_ratio=0)
    for _ in range(40):
        subject.breakers.reset("a/a-1")
        subject.progress = type(subject.progress)(thread_id="t", clock=lambda: 0.0)
        await subject.answer()

    assert subject.calls == {"a": 40 + FLOOR_RETRIES, "b": 40}


@pytest.mark.parametrize(("wish_s", "rests_s"), [(2.0, 0.0), (2.5, 2.5), (600.0, 600.0), (86_400.0, 3600.0)])
async def test_a_route_that_asks_for_a_long_rest_has_it(wish_s, rests_s):
    """Other requests do not ask it either; it has not failed, and an hour is enough of anything."""
    subject = Subject([(ProviderDeferred("asks for fewer requests", wish_s),), WHOLE], WHOLE)

    await subject.answer()

    assert subject.breakers.circuit("a/a-1").wait_s == rests_s
    assert "failure" not in subject.breakers.told["a"]
    assert subject.calls == ({"a": 1, "b": 1} if rests_s else {"a": 2, "b": 0})


async def test_who_is_told_that_all_are_down_is_told_when_to_come_back():
    """When the first of them can be tried."""
    subject = Subject((ProviderDeferred("asks for a rest", 30.0),), (ProviderDeferred("asks for a rest", 20.0),))

    assert (await subject.failed(AllProvidersDown)).retry_after_s == 20.0


def usual(subject, seconds=1.0):
    """The route a has usually taken so long."""
    for _ in range(ENOUGH):
        subject.pace.took(ROUTES["a"], seconds)


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
    assert subject.is_left


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
    subject = Subject((asyncio.Event(),), (Chunk("x "), DOWN), (Chunk("y"), STOP), hedge_ratio=1, continues=True)
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
