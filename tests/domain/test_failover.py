"""The table at the head of domain/failover.py, and the deadlines around it."""

import asyncio
import itertools
import math

import pytest

from domain.breaker import BreakerPolicy
from domain.calls import Deadlines
from domain.chat import ChatRequest, Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    Attempt,
    ProviderDeferred,
    ProviderMisconfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderSaturated,
    ProviderTimeout,
    ProviderUnauthorized,
    ProviderUnavailable,
    ProviderUnreadable,
    RequestRejected,
    RouteUnfit,
    StreamInterrupted,
    UpstreamTimeout,
)
from domain.events import CircuitChanged, DefectFound, FailedOver
from domain.generation import StaleEpoch, State
from domain.retrying import RetryPolicy
from domain.selection import Route
from tests.domain.failing import ATTEMPTS, BACKOFFS_S, REQUEST, ROUTES, STOP, WHOLE, Subject
from tests.fakes import ACCEPTED
from tests.loops import settle

pytestmark = pytest.mark.anyio

USAGE = Usage(prompt_tokens=1_000_000, completion_tokens=2_000_000, total_tokens=3_000_000)
REACTIONS = [  # failure, whether it is retried here, whether the next route is asked, whether the circuit counts it
    (ProviderUnavailable("is down"), True, True, True),
    (ProviderOverloaded("is busy"), True, True, True),
    (ProviderDeferred("is busy for 2 s", 2.0), True, True, False),
    (ProviderDeferred("is busy for 2.5 s", 2.5), False, True, False),
    (ProviderSaturated("has no socket"), True, True, False),
    (ProviderTimeout("is silent"), False, True, True),
    (ProviderUnauthorized("does not take our key"), False, True, True),
    (ProviderMisconfigured("has no such model"), False, True, True),
    (ProviderUnreadable(), False, True, True),
    (RouteUnfit("has no words for it"), False, True, False),
    (ProviderRejected("finds it too long", 422), False, False, False),
]
OUTCOMES = {
    ProviderUnavailable: "unavailable",
    ProviderOverloaded: "overloaded",
    ProviderDeferred: "overloaded",
    ProviderUnauthorized: "unauthorized",
    ProviderSaturated: "saturated",
    ProviderTimeout: "timeout",
    ProviderMisconfigured: "misconfigured",
    ProviderUnreadable: "defect",
    RouteUnfit: "route_unfit",
    ProviderRejected: "rejected",
}
before_the_first_token = pytest.mark.parametrize(
    ("failure", "is_retried", "is_failed_over", "counts"), REACTIONS, ids=lambda value: getattr(value, "reason", "")
)
after_the_first_token = pytest.mark.parametrize(
    ("failure", "counts"),
    [(failure, counts) for failure, *_, counts in REACTIONS],
    ids=lambda v: getattr(v, "reason", ""),
)


def attempts_of(failure, *, is_retried, provider="a"):
    """What clients, operators and circuits hear of a route that always fails so."""
    times = ATTEMPTS if is_retried else 1
    return times, [(provider, OUTCOMES[type(failure)], failure.reason)] * times


@before_the_first_token
async def test_on_the_first_route_before_the_first_token(failure, is_retried, is_failed_over, counts):
    """The reaction that the table calls for, seen from every side."""
    subject = Subject((failure,), WHOLE)
    times, outcomes = attempts_of(failure, is_retried=is_retried)

    if is_failed_over:
        await subject.answer()
    else:
        rejected = await subject.failed(RequestRejected)
        assert (str(rejected), rejected.status) == (failure.reason, 422)

    assert subject.calls == {"a": times, "b": int(is_failed_over)}
    assert subject.changes == [
        ("selected", None, "a", None),
        *[("retrying", "a", "a", failure.reason)] * (times - 1),
        *[("failover", "a", "b", failure.reason)] * is_failed_over,
    ]
    assert subject.outcomes == outcomes + [("b", "ok", None)] * is_failed_over
    assert subject.breakers.told["a"] == (["failure"] * counts + ["abandon"]) * times
    assert subject.breakers.told["b"] == ["success", "abandon"] * is_failed_over
    failed_over = [FailedOver(thread_id="t", previous="a", provider="b", phase="first_token")]
    assert subject.events.of(FailedOver) == failed_over * is_failed_over
    assert [record for record in subject.records if isinstance(record, Chunk)] == list(WHOLE) * is_failed_over
    assert subject.is_left


@before_the_first_token
async def test_on_the_last_route_before_the_first_token(failure, is_retried, is_failed_over, counts):
    """Then there is no answer, and every attempt is named."""
    subject = Subject((ProviderUnavailable("is down"),), (failure,))
    times, outcomes = attempts_of(failure, is_retried=is_retried, provider="b")

    raised = await subject.failed(AllProvidersDown if is_failed_over else RequestRejected)

    attempts = (Attempt("a", "a-1", "is down"),) * ATTEMPTS + (Attempt("b", "b-1", failure.reason),) * times
    assert raised.attempts == attempts
    assert subject.calls == {"a": ATTEMPTS, "b": times}
    assert subject.outcomes == [("a", "unavailable", "is down")] * ATTEMPTS + outcomes
    assert subject.breakers.told["b"] == (["failure"] * counts + ["abandon"]) * times
    assert subject.is_left


@pytest.mark.parametrize("is_last", [True, False])
@after_the_first_token
async def test_after_the_first_token(failure, counts, is_last):
    """What was sent cannot be unsent: no second try, no other route, and one clear error."""
    subject = Subject((Chunk("x"), failure), *[] if is_last else [WHOLE])
    is_rejection = isinstance(failure, ProviderRejected)

    raised = await subject.failed(RequestRejected if is_rejection else StreamInterrupted)

    assert raised.attempts == (Attempt("a", "a-1", failure.reason),)
    assert failure.reason in str(raised)
    assert subject.calls == {"a": 1} | ({} if is_last else {"b": 0})
    assert subject.changes == [("selected", None, "a", None)]
    assert subject.records[1:] == [Chunk("x")]
    assert subject.outcomes == [("a", OUTCOMES[type(failure)], failure.reason)]
    assert subject.breakers.told["a"] == ["success", *["failure"] * counts, "abandon"]
    assert subject.is_left


@pytest.mark.parametrize("failure_count", [1, 2])
async def test_a_retry_that_succeeds_is_the_answer(failure_count):
    """The waits are those of the backoff, in turn; each retry is told."""
    subject = Subject([(ProviderUnavailable("is down"),)] * failure_count + [WHOLE], WHOLE)

    await subject.answer()

    assert subject.slept_s == list(BACKOFFS_S[:failure_count])
    assert subject.calls == {"a": failure_count + 1, "b": 0}
    assert subject.progress.route == ROUTES["a"]
    assert subject.outcomes[-1] == ("a", "ok", None)


async def test_every_route_has_the_waits_from_their_beginning():
    """The second provider is not waited for as long as the first was in the end."""
    down = (ProviderUnavailable("is down"),)
    subject = Subject(down, down)

    await subject.failed(AllProvidersDown)

    assert subject.slept_s == [*BACKOFFS_S[: ATTEMPTS - 1]] * 2


@pytest.mark.parametrize(("wish_s", "slept_s"), [(0.0, [0.5]), (1.0, [1.5]), (2.0, [2.5]), (2.25, []), (3600.0, [])])
async def test_a_providers_own_wish_is_waited_for_when_it_is_short(wish_s, slept_s):
    """And a random time more, 0.5 s here; a long wish is a reason to ask the next one."""
    subject = Subject([(ProviderDeferred("is busy", wish_s),), WHOLE], WHOLE)

    await subject.answer()

    assert subject.slept_s == slept_s
    assert subject.calls == ({"a": 2, "b": 0} if slept_s else {"a": 1, "b": 1})


async def test_an_open_circuit_costs_no_call_and_no_wait():
    """The routes before and after it are asked as ever."""
    policy = BreakerPolicy(failures=4, window=4, open_s=64.0)
    subject = Subject((ProviderTimeout("is silent"),), WHOLE, WHOLE, policy=policy)
    for _ in range(4):
        (await subject.breakers.acquire("b/b-1")).failure()

    await subject.answer()

    assert subject.calls == {"a": 1, "b": 0, "c": 1}
    assert subject.changes[1:] == [
        ("failover", "a", "b", "is silent"),
        ("failover", "b", "c", "its circuit is open"),
    ]
    assert [provider for provider, *_ in subject.outcomes] == ["a", "c"]


async def test_a_circuit_that_opens_between_two_attempts_ends_them():
    """The retry that was waited for is not made."""
    policy = BreakerPolicy(failures=2, window=4, open_s=64.0)
    subject = Subject((ProviderUnavailable("is down"),), WHOLE, policy=policy)

    await subject.answer()

    assert subject.calls == {"a": 2, "b": 1}
    assert len(subject.events.of(CircuitChanged)) == 1
    assert subject.changes[-1] == ("failover", "a", "b", "its circuit is open")


async def test_all_circuits_open_is_all_providers_down():
    """And no timeout, though nobody was asked."""
    subject = Subject(WHOLE, policy=BreakerPolicy(failures=1, window=1, open_s=64.0))
    (await subject.breakers.acquire("a/a-1")).failure()

    failure = await subject.failed(AllProvidersDown)

    assert failure.attempts == (Attempt("a", "a-1", "its circuit is open"),)


SILENCES = {"entering": lambda: (asyncio.Event(),), "first chunk": lambda: (ACCEPTED, asyncio.Event())}


@pytest.mark.parametrize("silence", SILENCES)
async def test_a_provider_without_a_first_token_in_time_is_left_for_the_next(silence):
    """The deadline covers connecting and waiting; the next route has its own."""
    subject = Subject(SILENCES[silence](), WHOLE)

    await subject.answer()

    assert subject.loop.time() == 8.0
    assert subject.calls == {"a": 1, "b": 1}
    assert subject.outcomes[0] == ("a", "timeout", "sent no first token within 8 s")
    assert subject.breakers.told["a"] == ["failure", "abandon"]
    assert subject.is_left


async def test_only_timeouts_are_an_upstream_timeout():
    """Which is another status than providers that are down."""
    subject = Subject(SILENCES["entering"](), SILENCES["first chunk"]())

    failure = await subject.failed(UpstreamTimeout)

    assert subject.loop.time() == 16.0
    assert [attempt.provider for attempt in failure.attempts] == ["a", "b"]


async def test_what_is_no_answer_is_no_first_token():
    """Usage alone, or an empty chunk, does not hold off the deadline; it is not written either."""
    subject = Subject((Chunk(), asyncio.Event()), WHOLE)

    await subject.answer()

    assert subject.loop.time() == 8.0
    assert Chunk() not in subject.records


async def test_a_stall_after_the_first_token_interrupts_the_stream():
    """Each chunk has its own deadline, counted from the one before."""
    second = asyncio.Event()
    subject = Subject((Chunk("x"), second, Chunk("y"), asyncio.Event()), WHOLE)
    subject.loop.call_later(3.5, second.set)

    failure = await subject.failed(StreamInterrupted)

    assert str(failure) == "a sent nothing for 4 s after 2 chunks."
    assert subject.loop.time() == 7.5
    assert subject.breakers.told["a"] == ["success", "failure", "abandon"]
    assert subject.calls["b"] == 0


async def test_a_provider_that_is_silent_after_the_whole_answer_has_answered():
    """Its usage and end mark are not worth an error, nor a long wait."""
    subject = Subject((*WHOLE, asyncio.Event(), Chunk(usage=USAGE)))

    await subject.answer()

    assert subject.loop.time() == 0.25
    assert subject.outcomes == [("a", "ok", None)]
    assert subject.breakers.told["a"] == ["success", "abandon"]


@pytest.mark.parametrize("end", [(STOP, Chunk(usage=USAGE)), (Chunk("", "stop", usage=USAGE),)])
async def test_a_provider_that_is_silent_after_the_usage_too_delays_nothing(end):
    """Whatever it holds its connection open for."""
    subject = Subject((Chunk("x"), *end, asyncio.Event()))

    await subject.answer()

    assert subject.loop.time() == 0.02
    assert subject.progress.sealed(State.DONE).usage == USAGE
    assert subject.outcomes == [("a", "ok", None)]


async def test_what_comes_behind_a_finish_reason_in_time_is_part_of_the_answer():
    """It has to finish again, in the usual time."""
    behind, second = asyncio.Event(), asyncio.Event()
    subject = Subject((*WHOLE, behind, Chunk("y"), second, STOP))
    subject.loop.call_later(0.125, behind.set)
    subject.loop.call_later(3.0, second.set)

    await subject.answer()

    assert [chunk.content for chunk in subject.chunks] == ["x", "", "y", ""]


@pytest.mark.parametrize(
    "first",
    [
        (Chunk("x", "stop"),),
        (Chunk("x", "stop"), Chunk(usage=USAGE)),
        (STOP,),
        (Chunk(delta={"reasoning_content": "hm"}, finish_reason="stop"),),
    ],
)
async def test_a_finish_reason_beside_text_or_before_any_is_no_promise_that_nothing_comes(first):
    """Some servers say it with every text: half an answer would pass for the whole, and be kept."""
    second, third = asyncio.Event(), asyncio.Event()
    subject = Subject((*first, second, Chunk("y", "stop"), third, Chunk("z", "stop")))
    subject.loop.call_later(3.0, second.set)
    subject.loop.call_later(6.0, third.set)

    await subject.answer()

    assert subject.text.endswith("yz")
    assert subject.outcomes == [("a", "ok", None)]


async def test_a_finish_reason_beside_text_is_written_behind_it():
    """Some clients read nothing of a chunk that has one."""
    subject = Subject((Chunk("x", "stop"),))

    await subject.answer()

    assert subject.chunks == list(WHOLE)


@pytest.mark.parametrize("end", [(), (Chunk(usage=USAGE),)])
async def test_the_total_deadline_does_not_interrupt_what_is_whole(end):
    """All of it was sent before."""
    last = asyncio.Event()
    deadlines = Deadlines(first_token_s=8.0, stall_s=8.0, total_s=5.0)
    subject = Subject((Chunk("x"), last, STOP, *end, asyncio.Event()), deadlines=deadlines)
    subject.loop.call_later(4.99, last.set)

    await subject.answer()

    assert subject.loop.time() == 5.0
    assert subject.is_left


@pytest.mark.parametrize(
    "script",
    [
        (Chunk("x"), STOP, STOP),
        (Chunk("x", "stop"), Chunk("x", "stop", 1), Chunk("y", index=1)),
    ],
)
async def test_a_provider_that_is_silent_before_every_choice_has_finished_has_not_answered(script):
    """Choices count, not finish reasons; and text behind one has to finish again."""
    subject = Subject((*script, asyncio.Event()))

    with pytest.raises(StreamInterrupted):
        await subject.answer(ChatRequest(model="m", messages=(), options={"n": 2}))

    assert subject.outcomes == [("a", "timeout", "sent nothing for 4 s")]


async def test_the_total_deadline_before_the_first_token_is_an_upstream_timeout():
    """However many attempts there would still have been; being out of time says nothing of the provider."""
    deadlines = Deadlines(first_token_s=8.0, stall_s=4.0, total_s=10.0)
    subject = Subject((asyncio.Event(),), (asyncio.Event(),), deadlines=deadlines)

    failure = await subject.failed(UpstreamTimeout)

    assert subject.loop.time() == 10.0
    assert [attempt.provider for attempt in failure.attempts] == ["a"]
    assert [outcome for _, outcome, _ in subject.outcomes] == ["timeout", "cancelled"]
    assert subject.breakers.told["b"] == ["abandon"]
    assert subject.is_left


async def test_the_total_deadline_ends_a_wait_before_a_retry():
    """Nothing is waited for longer than the whole may last."""
    deadlines = Deadlines(first_token_s=8.0, stall_s=4.0, total_s=1.0)
    subject = Subject((ProviderUnavailable("is down"),), deadlines=deadlines)

    failure = await subject.failed(UpstreamTimeout)

    assert subject.loop.time() == 1.0
    assert len(failure.attempts) == 2


async def test_the_total_deadline_after_the_first_token_interrupts_the_stream():
    """A slow drip of chunks is not endless."""
    drips = [asyncio.Event() for _ in range(8)]
    script = itertools.chain.from_iterable((Chunk("x"), drip) for drip in drips)
    subject = Subject(tuple(script), deadlines=Deadlines(first_token_s=8.0, stall_s=4.0, total_s=10.0))
    for number, drip in enumerate(drips):
        subject.loop.call_later(3.0 * (number + 1), drip.set)

    failure = await subject.failed(StreamInterrupted)

    assert str(failure) == "The answer was not whole after 10 s."
    assert subject.loop.time() == 10.0
    assert subject.breakers.told["a"] == ["success", "abandon"]
    assert subject.is_left


@pytest.mark.parametrize("script", [(Chunk("x"), STOP, Chunk(usage=USAGE)), (Chunk("x", "stop", usage=USAGE),)])
async def test_usage_is_collected_wherever_it_comes(script):
    """With a chunk of the answer or after it; its price is that of the route that answered."""
    subject = Subject(script)

    await subject.answer()
    sealed = subject.progress.sealed(State.DONE)

    assert (sealed.usage, sealed.cost_usd) == (USAGE, 5.0)
    assert (sealed.provider, sealed.model, sealed.finish_reason) == ("a", "a-1", "stop")
    assert Chunk(usage=USAGE) not in subject.records


async def test_the_usage_of_a_failed_attempt_is_not_the_answers():
    """It would be priced as the next provider's, whose own is estimated."""
    subject = Subject((Chunk(usage=USAGE), ProviderTimeout("is silent")), WHOLE)

    await subject.answer()
    sealed = subject.progress.sealed(State.DONE)

    estimate = {"estimated": True}
    assert sealed.usage == Usage(prompt_tokens=5, completion_tokens=1, total_tokens=6, details=estimate)
    assert sealed.cost_usd == (5 * 1 + 1 * 2) / 1_000_000


async def test_times_are_counted_from_the_beginning():
    """The first token of the route that answered, and the whole."""
    subject = Subject((ProviderTimeout("is silent"),), (asyncio.Event(), *WHOLE), (asyncio.Event(),))
    subject.loop.call_later(2.0, subject.providers["b"].scripts[0][0].set)

    await subject.answer()
    await asyncio.sleep(1.0)
    sealed = subject.progress.sealed(State.DONE)

    assert (sealed.ttft_s, sealed.duration_s, sealed.chunk_count) == (2.0, 3.0, 2)


@pytest.mark.parametrize("reasons", [("content_filter", "stop"), ("stop", "content_filter")])
async def test_of_several_choices_the_filtered_one_says_how_the_answer_ended(reasons):
    """Otherwise it would pass for whole, and be cached."""
    subject = Subject(tuple(Chunk("x", reason, index) for index, reason in enumerate(reasons)))

    await subject.answer(ChatRequest(model="m", messages=(), options={"n": 2}))

    assert subject.progress.finish_reason == "content_filter"


CANCELLED_AT = {
    "entering": (asyncio.Event,),
    "first chunk": (lambda: ACCEPTED, asyncio.Event),
    "between chunks": (lambda: Chunk("x"), asyncio.Event),
    "waiting to retry": (lambda: ProviderUnavailable("is down"),),
}


@pytest.mark.parametrize("where", CANCELLED_AT)
async def test_a_cancelled_answer_leaves_the_provider_and_says_nothing_of_it(where):
    """Clients that leave must neither leave calls open nor open circuits."""
    subject = Subject(tuple(make() for make in CANCELLED_AT[where]), WHOLE)
    running = asyncio.create_task(subject.answer())
    await settle()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert subject.is_left
    assert subject.breakers.told["a"][-1] == "abandon"
    assert ("failure" in subject.breakers.told["a"]) is (where == "waiting to retry")
    assert subject.calls == {"a": 1, "b": 0}
    if where != "waiting to retry":
        assert subject.outcomes == [("a", "cancelled", None)]


async def test_a_cancelled_probe_gives_its_place_to_the_next():
    """A half-open circuit does not wait for a client that is gone."""
    subject = Subject((asyncio.Event(),), policy=BreakerPolicy(failures=1, window=1, open_s=1.0))
    (await subject.breakers.acquire("a/a-1")).failure()
    await asyncio.sleep(1.0)
    running = asyncio.create_task(subject.answer())
    await settle()
    assert not subject.breakers.can_try("a/a-1")

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert subject.breakers.can_try("a/a-1")


@pytest.mark.parametrize("where", ["opening", "reading"])
@pytest.mark.parametrize("defect", [ZeroDivisionError("in an adapter"), OverflowError("in an adapter")])
async def test_a_defect_in_an_adapter_is_told_and_the_next_route_answers(defect, where):
    """One header or event that nobody has thought of must not be the end of every request."""
    subject = Subject((defect,) if where == "opening" else (ACCEPTED, defect), WHOLE)

    await subject.answer()

    assert subject.calls == {"a": 1, "b": 1}
    assert subject.changes[1:] == [("failover", "a", "b", "gave something that could not be read")]
    assert [told.error for told in subject.events.of(DefectFound)] == [defect]
    assert subject.outcomes[0] == ("a", "defect", "gave something that could not be read")
    assert subject.breakers.told["a"] == ["failure", "abandon"]
    assert subject.is_left


async def test_a_defect_in_an_adapter_after_the_first_token_is_continued_like_a_cut():
    subject = Subject((Chunk("x"), ZeroDivisionError("in an adapter")), WHOLE, continues=True)

    await subject.answer()

    assert subject.calls == {"a": 1, "b": 1}
    assert subject.breakers.told["a"][-2:] == ["failure", "abandon"]
    assert len(subject.events.of(DefectFound)) == 1


async def test_a_defect_in_an_adapter_behind_the_whole_answer_is_told_and_takes_nothing_away():
    subject = Subject((*WHOLE, ZeroDivisionError("in an adapter")), WHOLE)

    await subject.answer()

    assert subject.calls == {"a": 1, "b": 0}
    assert len(subject.events.of(DefectFound)) == 1


@pytest.mark.parametrize("defect", [TimeoutError("of the log"), KeyError("of the log"), StaleEpoch()])
async def test_what_writing_fails_with_passes_through_and_says_nothing_of_the_provider(defect):
    """It is ours; the next route would have it too, and another leader may be at work."""
    subject = Subject(WHOLE, WHOLE)

    async def write(record):
        if isinstance(record, Chunk):
            raise defect

    with pytest.raises(type(defect)):
        await subject.failover.answer(REQUEST, list(ROUTES.values())[:2], subject.progress, write)

    assert subject.outcomes == [("a", "defect", "a defect of ours")]
    assert subject.breakers.told["a"] == ["success", "abandon"]
    assert subject.calls == {"a": 1, "b": 0}
    assert subject.events.of(DefectFound) == []
    assert subject.is_left


async def test_a_route_that_gives_fewer_choices_than_asked_for_is_not_called():
    """It would give one and leave the client without the rest, and the circuit would be to blame."""
    routes = ROUTES | {"a": Route(provider="a", model="a-1", max_choices=1)}
    subject = Subject(WHOLE, (*WHOLE, Chunk("y", "stop", 1)), routes=routes)

    await subject.answer(ChatRequest(model="m", messages=(), options={"n": 2}))

    assert subject.calls == {"a": 0, "b": 1}
    assert subject.outcomes == [("b", "ok", None)]


async def test_a_route_that_gives_as_many_choices_as_asked_for_is_called():
    routes = ROUTES | {"a": Route(provider="a", model="a-1", max_choices=2)}
    subject = Subject((*WHOLE, Chunk("y", "stop", 1)), WHOLE, routes=routes)

    await subject.answer(ChatRequest(model="m", messages=(), options={"n": 2}))

    assert subject.calls == {"a": 1, "b": 0}


def test_what_a_provider_asks_for_is_believed_up_to_an_hour():
    """It is told to clients as well as kept to."""
    assert [ProviderDeferred("is busy", wish_s).retry_after_s for wish_s in (0, 3600, 3601, 1e308, math.inf)] == [
        0,
        *[3600] * 4,
    ]


def test_a_policy_without_an_attempt_cannot_be_built():
    """It would pass off nothing as a whole answer."""
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryPolicy(attempts=0)
