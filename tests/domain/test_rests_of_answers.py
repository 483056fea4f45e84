"""A provider lost after its first token: the next one gives the rest, or the stream is interrupted."""

import asyncio

import pytest

from domain.chat import ChatRequest, Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    Attempt,
    ContextTooLong,
    ProviderDeferred,
    ProviderMisconfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderSaturated,
    ProviderTimeout,
    ProviderUnauthorized,
    ProviderUnavailable,
    RequestRejected,
    StreamInterrupted,
)
from domain.events import FailedOver
from domain.generation import Generation, Opened, ProviderChange, State
from domain.prefilled import says_enough
from domain.repeats import anchor
from domain.selection import Prefill, Route
from tests.domain.failing import REQUEST, ROUTES, STOP, WHOLE, Subject
from tests.loops import settle

pytestmark = pytest.mark.anyio

ANSWER = "Snow in the hills becomes bread in the valley, and the mill keeps the account of every grain that it takes."
WORDS = ANSWER.split(" ")
TOKENS = [WORDS[0], *(f" {word}" for word in WORDS[1:])]
CUT = ProviderUnavailable("broke off the stream")
LOSSES = [
    CUT,
    ProviderTimeout("is silent"),
    ProviderOverloaded("asks for fewer"),
    ProviderDeferred("asks for a rest", 1.0),
    ProviderSaturated("was not called"),
    ProviderUnauthorized("does not accept our key"),
    ProviderMisconfigured("has no quota left"),
]
TAKES_PREFIX = ROUTES | {"b": Route(provider="b", model="b-1", prefill=Prefill.ASSISTANT)}


def said(tokens):
    return tuple(Chunk(token) for token in tokens)


def lost_at(position, failure=CUT):
    return (*said(TOKENS[:position]), failure)


def rest_from(position):
    """What a route says that was asked in words: the end again, and the rest."""
    return (Chunk(anchor("".join(TOKENS[:position]))), *said(TOKENS[position:]), STOP)


def goes_on_from(position):
    """What a route says that was given the beginning."""
    return (*said(TOKENS[position:]), STOP)


@pytest.mark.parametrize("failure", LOSSES, ids=lambda failure: failure.reason)
async def test_whatever_it_was_lost_by_the_next_route_gives_the_rest(failure):
    """The client has every token once, and is told who gives them."""
    subject = Subject(lost_at(5, failure), rest_from(5), continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert subject.changes[-1] == ("continued", "a", "b", failure.reason)
    assert subject.events.of(FailedOver) == [FailedOver(thread_id="t", previous="a", provider="b", phase="midstream")]
    assert subject.calls == {"a": 1, "b": 1}
    assert subject.slept_s == []
    assert subject.is_left


STARTS = ["at the cut", "over again", "some words before"]
POSITIONS = range(1, len(TOKENS) + 1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("position", POSITIONS)
async def test_wherever_it_is_cut_and_however_the_rest_begins_nothing_is_lost_or_doubled(position, start):
    """The seam cannot be seen; of the end so much has to be said again that it is no chance."""
    begin = {"at the cut": position, "over again": 0, "some words before": max(0, position - 4)}[start]
    rest = rest_from(position) if start == "at the cut" else goes_on_from(begin)
    subject = Subject(lost_at(position), rest, continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert subject.progress.finish_reason == "stop"


@pytest.mark.parametrize("start", ["over again", "some words before"])
@pytest.mark.parametrize("position", POSITIONS)
async def test_a_route_that_takes_the_beginning_and_does_not_go_on_with_it_is_asked_in_words(position, start):
    """What it has repeated, or that it said nothing, shows before any of it is sent."""
    begin = 0 if start == "over again" else max(0, position - 4)
    scripts = [goes_on_from(begin), rest_from(position)]
    subject = Subject(lost_at(position), scripts, continues=True, routes=TAKES_PREFIX)

    await subject.answer()

    assert subject.text == ANSWER
    assert "failure" not in subject.breakers.told["b"]


@pytest.mark.parametrize("position", POSITIONS)
async def test_a_route_that_goes_on_with_the_beginning_is_asked_once(position):
    """In words while so little has been sent that a repeat would not show, or if nothing came."""
    is_prefilled = says_enough("".join(TOKENS[:position]))
    scripts = [goes_on_from(position), rest_from(position)] if is_prefilled else rest_from(position)
    subject = Subject(lost_at(position), scripts, continues=True, routes=TAKES_PREFIX)

    await subject.answer()

    assert subject.text == ANSWER
    assert subject.calls["b"] == (2 if position == len(TOKENS) else 1)


@pytest.mark.parametrize("routes", [ROUTES, TAKES_PREFIX], ids=["in words", "prefilled"])
async def test_a_rest_that_says_nothing_is_no_end(routes):
    """A model that stops at once has not said that the answer is whole: the next one is asked."""
    subject = Subject(lost_at(12), (STOP,), rest_from(12), continues=True, routes=routes)

    await subject.answer()

    assert subject.text == ANSWER
    assert {outcome for provider, outcome, _ in subject.outcomes if provider == "b"} == {"unaligned"}


async def test_where_nobody_has_more_to_say_the_answer_is_interrupted():
    """It never looks whole."""
    subject = Subject(lost_at(12), (STOP,), (STOP,), continues=True)

    await subject.failed(StreamInterrupted)

    assert subject.progress.finish_reason is None


@pytest.mark.parametrize(
    "refusal", [ProviderRejected("takes no prefix"), ProviderMisconfigured("answered 405")], ids=["400", "405"]
)
async def test_a_route_that_refuses_the_beginning_is_asked_in_words(refusal):
    """Its refusal is of the form, not of the question: it costs neither the circuit nor the client anything."""
    subject = Subject(lost_at(12), [(refusal,), rest_from(12)], continues=True, routes=TAKES_PREFIX)

    await subject.answer()

    prefilled, instructed = (request.messages[-1]["role"] for request in subject.providers["b"].requests)
    assert (prefilled, instructed) == ("assistant", "user")
    assert subject.text == ANSWER
    assert ("b", "prefix_refused", "does not take the beginning of an answer") in subject.outcomes
    assert "failure" not in subject.breakers.told["b"]


async def test_a_route_that_refuses_both_is_left_for_the_next():
    """The first has taken the question, so it is not the question."""
    subject = Subject(lost_at(5), (ProviderRejected("takes nothing"),), rest_from(5), continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert [change[0] for change in subject.changes] == ["selected", "continued", "continued"]


async def test_what_cannot_be_joined_is_left_for_the_next_route():
    """The one after may go on where it was."""
    other = said(f" {word}" for word in ["Snow", "in", "the", "hills", "becomes", "something", "else", "altogether"])
    subject = Subject(lost_at(12), (*other, STOP), rest_from(12), continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert subject.outcomes[1][:2] == ("b", "unaligned")


async def test_what_nobody_can_join_is_interrupted_and_never_guessed():
    """What was sent is the true beginning of the first answer."""
    other = said(f" {word}" for word in ["Snow", "in", "the", "hills", "becomes", "something", "else", "altogether"])
    subject = Subject(lost_at(12), (*other, STOP), continues=True)

    interrupted = await subject.failed(StreamInterrupted)

    assert subject.text == "".join(TOKENS[:12])
    assert [attempt.provider for attempt in interrupted.attempts] == ["a", "b"]


async def test_every_route_may_lose_it_and_the_last_one_ends_it():
    """Each goes on from all that was sent before it."""
    subject = Subject(lost_at(4), (*said(TOKENS[4:9]), CUT), rest_from(12), continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert [change[1:3] for change in subject.changes] == [(None, "a"), ("a", "b"), ("b", "c")]


async def test_the_rest_is_tried_as_often_as_an_answer_is():
    """Before its first token a rest is like an answer: nothing of it was sent."""
    subject = Subject(lost_at(4), [(CUT,), rest_from(4)], continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert subject.changes[-1] == ("retrying", "b", "b", CUT.reason)


@pytest.mark.parametrize(("failure", "calls"), [(CUT, 2), (ProviderTimeout("is silent"), 1)])
async def test_where_there_is_no_other_route_the_same_is_asked_once_more_unless_it_is_silent(failure, calls):
    """A cut is often gone the next moment; a silence is not worth another."""
    subject = Subject([lost_at(4, failure), (*rest_from(4)[:3], failure)], continues=True)

    await subject.failed(StreamInterrupted)

    assert subject.calls == {"a": calls}
    assert subject.text == "".join(TOKENS[:6] if calls == 2 else TOKENS[:4])


@pytest.mark.parametrize("failure", [ProviderRejected("refuses what came of it"), ContextTooLong("is full")])
async def test_what_the_provider_refuses_half_way_is_refused(failure):
    """A filter has spoken; the next route would be asked for what it has objected to."""
    subject = Subject(lost_at(4, failure), rest_from(4), continues=True)

    rejected = await subject.failed(RequestRejected)

    assert str(rejected) == failure.reason
    assert subject.calls["b"] == 0


UNFIT = {
    "structured": (
        ChatRequest(model="m", messages=REQUEST.messages, options={"response_format": {"type": "json_object"}}),
        Chunk("{"),
    ),
    "choices": (ChatRequest(model="m", messages=REQUEST.messages, options={"n": 2}), Chunk("x")),
    "reasoning": (REQUEST, Chunk(delta={"reasoning_content": "Well"})),
    "tool call": (REQUEST, Chunk(delta={"tool_calls": [{}]})),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_what_is_no_plain_text_is_not_gone_on_with(case):
    """Half a tool call cannot be joined to another half."""
    request, chunk = UNFIT[case]
    subject = Subject((chunk, CUT), (Chunk("y"), STOP), continues=True)

    with pytest.raises(StreamInterrupted):
        await subject.answer(request)

    assert subject.calls == {"a": 1, "b": 0}
    assert subject.chunks == [chunk]


async def test_a_failure_behind_the_whole_answer_is_none():
    """Nothing is missing, so nothing is asked for."""
    subject = Subject((Chunk("x"), STOP, CUT), (Chunk("y"), STOP), continues=True)

    await subject.answer()

    assert (subject.text, subject.calls) == ("x", {"a": 1, "b": 0})


async def test_of_a_rest_only_the_text_is_taken():
    """Thoughts in its midst would be of another answer."""
    thought = Chunk(delta={"reasoning_content": "Where was I?"})
    subject = Subject(lost_at(4), (thought, *rest_from(4)), continues=True)

    await subject.answer()

    assert subject.text == ANSWER
    assert all(chunk.delta is None for chunk in subject.chunks)


async def test_usage_and_cost_are_those_of_both_calls():
    """Each by its own prices."""
    first = Usage(prompt_tokens=1_000_000, completion_tokens=500_000, total_tokens=1_500_000)
    second = Usage(prompt_tokens=2_000_000, completion_tokens=1_000_000, total_tokens=3_000_000)
    routes = ROUTES | {"b": Route(provider="b", model="b-1", usd_per_mtok_in=10, usd_per_mtok_out=20)}
    script = (*said(TOKENS[:4]), Chunk(usage=first), CUT)
    subject = Subject(script, (*rest_from(4), Chunk(usage=second)), continues=True, routes=routes)

    await subject.answer()
    sealed = subject.progress.sealed(State.DONE)

    assert sealed.usage == Usage(prompt_tokens=3_000_000, completion_tokens=1_500_000, total_tokens=4_500_000)
    assert sealed.cost_usd == 1 + 1 + 20 + 20
    assert (sealed.provider, sealed.model) == ("b", "b-1")


async def test_a_call_that_was_cut_before_its_usage_is_estimated_and_so_is_the_sum():
    """What it read and wrote has been paid for."""
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000, total_tokens=2_000_000)
    subject = Subject((*said(TOKENS[:4]), CUT), (*rest_from(4), Chunk(usage=usage)), continues=True)

    await subject.answer()
    sealed = subject.progress.sealed(State.DONE)
    cut, whole = subject.progress.bookings()

    assert whole.usage == usage
    assert cut.usage.details == sealed.usage.details == {"estimated": True}
    assert cut.usage.completion_tokens >= 4
    assert sealed.usage.total_tokens == cut.usage.total_tokens + 2_000_000
    assert sealed.cost_usd == cut.cost_usd + whole.cost_usd == cut.cost_usd + 3.0


async def test_what_gave_nothing_is_not_booked():
    """A refusal, a silence, an open circuit: no provider charges them."""
    subject = Subject((CUT,), (CUT,), (CUT,), continues=True)

    await subject.failed(AllProvidersDown)
    sealed = subject.progress.sealed(State.FAILED)

    assert (sealed.usage, sealed.cost_usd, subject.progress.bookings()) == (None, None, [])


@pytest.mark.parametrize(("continues", "text"), [(True, ANSWER), (False, "".join(TOKENS[:5]))])
async def test_what_an_earlier_leader_has_left_is_gone_on_with(continues, text):
    """Whoever takes over has the same care, or by the operator's word none."""
    subject = Subject(rest_from(5), continues=continues)
    left = Generation(
        Opened(generation_id="g", fingerprint="f", created_at_s=0, thread_id="t", user="u", scope="", model="m")
    )
    epoch = left.claim()
    for record in (ProviderChange(status="selected", provider="z", model="z-1"), *said(TOKENS[:5])):
        left.append(epoch, record)
    subject.progress.resume(left, REQUEST, [Route(provider="z", model="z-1", usd_per_mtok_in=3, usd_per_mtok_out=5)])

    if continues:
        await subject.answer()
        assert subject.changes == [("continued", "z", "a", "the instance that asked it was lost")]
    else:
        await subject.failed(StreamInterrupted)
    assert "".join(TOKENS[:5]) + subject.text == text


async def test_what_an_earlier_leader_has_spent_is_estimated_and_part_of_what_the_answer_took():
    """The caller's budget is not spared by the loss of an instance; what was asked elsewhere is not booked here."""
    usage = Usage(prompt_tokens=10, completion_tokens=20, total_tokens=30)
    subject = Subject((*rest_from(5), Chunk(usage=usage)), continues=True)
    left = Generation(
        Opened(generation_id="g", fingerprint="f", created_at_s=0, thread_id="t", user="u", scope="", model="m")
    )
    epoch = left.claim()
    for record in (ProviderChange(status="selected", provider="z", model="z-1"), *said(TOKENS[:5])):
        left.append(epoch, record)

    subject.progress.resume(left, REQUEST, [Route(provider="z", model="z-1", usd_per_mtok_in=3, usd_per_mtok_out=5)])
    await subject.answer()
    inherited, here = subject.progress.bookings()
    sealed = subject.progress.sealed(State.DONE)

    assert (inherited.route.provider, inherited.usage.details) == ("z", {"estimated": True})
    assert inherited.usage.completion_tokens >= 5
    assert inherited.cost_usd == (3 * inherited.usage.prompt_tokens + 5 * inherited.usage.completion_tokens) / 1e6
    assert subject.progress.bookings_here() == [here]
    assert sealed.usage.total_tokens == inherited.usage.total_tokens + 30
    assert sealed.usage.details == {"estimated": True}
    assert sealed.cost_usd == inherited.cost_usd + here.cost_usd


async def test_a_tool_may_be_called_behind_a_text_that_was_cut():
    """Agents say what they do, and then do it; of the thoughts of the second model none is sent."""
    call = {"tool_calls": [{"index": 0, "function": {"name": "weather", "arguments": "{}"}}]}
    words = anchor("".join(TOKENS[:12]))
    end = Chunk(finish_reason="tool_calls")
    subject = Subject(
        lost_at(12), (Chunk(words), *said(TOKENS[12:]), Chunk(delta=call), Chunk(delta=call), end), continues=True
    )

    await subject.answer(ChatRequest(model="m", messages=REQUEST.messages, options={"tools": [{"type": "function"}]}))

    assert subject.text == ANSWER
    assert [chunk.delta for chunk in subject.chunks if chunk.delta] == [call, call]
    assert subject.progress.finish_reason == "tool_calls"


async def test_thoughts_that_are_over_do_not_hinder():
    """They have been sent; what was lost is text."""
    thought = Chunk(delta={"reasoning_content": "Well"})
    subject = Subject((thought, *lost_at(12)), rest_from(12), continues=True)

    await subject.answer()

    assert subject.text == ANSWER


@pytest.mark.parametrize("max_tokens", [14, 20])
async def test_a_limit_of_tokens_counts_the_text_by_what_came(max_tokens):
    """A chunk is a token at least; by its length alone the text would have used the limit up, and be cut short."""
    subject = Subject(lost_at(12), goes_on_from(12), continues=True, routes=TAKES_PREFIX)

    await subject.answer(ChatRequest(model="m", messages=REQUEST.messages, options={"max_tokens": max_tokens}))

    assert subject.providers["b"].requests[0].options == {"max_tokens": max_tokens - 12}


async def test_who_has_nothing_to_say_is_followed_by_another_once():
    """A hiccup of one model is not the answer; that two have nothing to say is."""
    subject = Subject((STOP,), (Chunk("x"), STOP), WHOLE)
    await subject.answer()
    assert (subject.text, subject.calls) == ("x", {"a": 1, "b": 1, "c": 0})
    assert subject.changes[-1] == ("failover", "a", "b", "had nothing to say")
    assert subject.outcomes[0] == ("a", "empty", "had nothing to say")
    assert "failure" not in subject.breakers.told["a"]

    subject = Subject((STOP,), (STOP,), WHOLE)
    await subject.answer()
    assert (subject.text, subject.calls) == ("", {"a": 1, "b": 1, "c": 0})
    assert subject.progress.finish_reason == "stop"


async def test_an_answer_that_says_nothing_is_one_where_nobody_else_has_another():
    """Alone, or when all others are down; one that a limit has ended is not asked for again."""
    subject = Subject((STOP,))
    await subject.answer()
    assert (subject.text, subject.progress.finish_reason) == ("", "stop")

    down = ProviderTimeout("is silent")
    subject = Subject((STOP,), (down,), (down,))
    await subject.answer()
    assert (subject.text, subject.progress.finish_reason) == ("", "stop")
    assert subject.progress.route.provider == "a"

    subject = Subject((Chunk(finish_reason="length"),), WHOLE)
    await subject.answer()
    assert subject.calls == {"a": 1, "b": 0}


async def test_a_rest_that_is_held_back_is_given_when_its_end_comes():
    """It was held back for what might have followed."""
    subject = Subject(lost_at(5), rest_from(5), continues=True)

    await subject.answer()

    assert subject.text == ANSWER


async def test_a_cancelled_rest_leaves_the_provider():
    """As any other call."""
    subject = Subject(lost_at(5), (Chunk(TOKENS[5]), asyncio.Event()), continues=True)
    running = asyncio.create_task(subject.answer())
    await settle()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert subject.is_left
    assert subject.breakers.told["b"][-1] == "abandon"


def sized(**tokens):
    return {name: Route(provider=name, model=f"{name}-1", context_tokens=size) for name, size in tokens.items()}


@pytest.mark.parametrize(
    ("routes", "asked"),
    [
        (sized(a=10, b=10, c=20), {"a": 1, "b": 0, "c": 1}),
        (sized(a=10, b=20, c=30), {"a": 1, "b": 1, "c": 0}),
        (sized(a=10, b=None, c=11), {"a": 1, "b": 0, "c": 1}),
        (sized(a=10, b=10, c=None), {"a": 1, "b": 0, "c": 0}),
        (sized(a=None, b=10, c=20), {"a": 1, "b": 0, "c": 0}),
    ],
)
async def test_what_is_too_long_goes_only_to_what_the_catalogue_knows_to_be_larger(routes, asked):
    """All others would refuse it too."""
    subject = Subject((ContextTooLong("finds it too long"),), (Chunk("x"), STOP), (Chunk("x"), STOP), routes=routes)

    if sum(asked.values()) > 1:
        await subject.answer()
    else:
        assert (await subject.failed(RequestRejected)).attempts == (Attempt("a", "a-1", "finds it too long"),)

    assert subject.calls == asked
