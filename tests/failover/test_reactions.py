"""The table of domain/reactions.py, row by row: what providers were asked, and what clients were told.

What is expected stands here in full, and is not taken from the table.
"""

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domain.reactions import WAYS
from tests.app import metrics
from tests.app.asking import CHAT, connected, question, text
from tests.deaf import deaf_port
from tests.failover.asking import CATALOGUE, FORMS, ORDERS, ask, circuit, close_circuits, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).resolve().parents[2]
REQUESTS = 3
"""So many failures open a circuit, whether they are of one request or of as many."""

LONG_S = 60
SETTINGS = {
    "WEIR_CATALOGUE": CATALOGUE,
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "0.8",
    "WEIR_STALL_TIMEOUT_S": "0.5",
    "WEIR_CONNECT_TIMEOUT_S": "0.4",
    "WEIR_RETRY_ATTEMPTS": "3",
    "WEIR_BREAKER_FAILURES": str(REQUESTS),
    "WEIR_BREAKER_WINDOW": str(3 * REQUESTS),
}
ROUTES = ORDERS | {"reasoner": ORDERS["deepseek"]}
"""The providers of the model that begins so, in their order."""

EACH = tuple(ORDERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """How often each of three routes is asked for one answer, and what the client hears of it in named events.

    `code` is the error that it is told instead of an answer.
    """

    calls: tuple[int, int, int]
    changes: tuple[str, ...]
    code: str | None = None


AGAIN_THEN_NEXT = Then(calls=(3, 1, 0), changes=("retrying", "retrying", "failover"))
NEXT = Then(calls=(1, 1, 0), changes=("failover",))
LARGER = Then(calls=(1, 0, 1), changes=("failover",))
GONE_ON_WITH = Then(calls=(1, 1, 0), changes=("continued",))
TOLD = Then(calls=(1, 0, 0), changes=(), code="provider_rejected")
NOT_REACHED = Then(calls=(0, 1, 0), changes=("retrying", "retrying", "failover"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A way of failing, and what is done when the first of three routes (`firsts`, in turn) fails so.

    `behaviour` is the simulator's. `outcome` is the attempt's name in metrics. What `counts` opens the circuit; one
    that `rests` is left alone because it has asked for it.
    """

    way: str
    behaviour: dict[str, Any]
    then: Then
    outcome: str
    counts: bool
    rests: bool = False
    firsts: tuple[str, ...] = EACH

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.behaviour.items())


def fails(way: str, behaviour: dict[str, Any], then: Then, outcome: str, **more: Any) -> Row:
    """A failure of the provider's: it counts."""
    return Row(way=way, behaviour=behaviour, then=then, outcome=outcome, counts=True, **more)


def spares(way: str, behaviour: dict[str, Any], then: Then, outcome: str, **more: Any) -> Row:
    """What says nothing of the provider: it does not count."""
    return Row(way=way, behaviour=behaviour, then=then, outcome=outcome, counts=False, **more)


BAD_KEY = "answers 401 or 403: our key is bad"
NO_QUOTA = "says that our quota is used up"
WRONG = "answers 400, 413 or 422, or 404 for something in the request: the request is wrong"
LATER = "answers 429, 503 or 529 and says when to come back"
FEWER = "answers 429 and does not say when to come back"
SERVER_ERROR = "answers 500, 502, 503 or 529"
CUT = "cuts the stream"
MALFORMED = "sends a malformed event"
ERROR_EVENT = "sends an error object in the stream"
UNFINISHED = "ends without a finish reason, whatever end mark it sends"
DATE = {"retry_after_as": "date"}
REASONER = {"firsts": ("reasoner",)}
ROWS = [
    fails("refuses the connection", {"off": True}, NOT_REACHED, "unavailable"),
    fails("resets the connection", {"fault": "reset"}, AGAIN_THEN_NEXT, "unavailable"),
    fails(BAD_KEY, {"fault": "401"}, NEXT, "unauthorized"),
    fails(BAD_KEY, {"fault": "403"}, NEXT, "unauthorized"),
    fails(NO_QUOTA, {"fault": "quota"}, NEXT, "misconfigured", firsts=("openai", "deepseek")),
    # Gemini has one error for too many requests and for none left.
    fails(FEWER, {"fault": "quota"}, AGAIN_THEN_NEXT, "overloaded", firsts=("gemini",)),
    fails("answers 404: it does not have the model", {"fault": "404"}, NEXT, "misconfigured"),
    fails("answers with another status below 500", {"fault": "405"}, NEXT, "misconfigured"),
    spares(WRONG, {"fault": "400"}, TOLD, "rejected"),
    spares(WRONG, {"fault": "413"}, TOLD, "rejected"),
    spares(WRONG, {"fault": "422"}, TOLD, "rejected"),
    spares("finds the context too long", {"fault": "context_length"}, LARGER, "rejected"),
    spares("refuses the prompt by its content filter", {"fault": "content_filter"}, TOLD, "rejected"),
    fails("answers 408", {"fault": "408"}, NEXT, "timeout"),
    fails("answers 409", {"fault": "409"}, AGAIN_THEN_NEXT, "unavailable"),
    spares(LATER, {"fault": "429", "retry_after_ms": 20}, AGAIN_THEN_NEXT, "overloaded"),
    spares(LATER, {"fault": "429", "retry_after_s": 0} | DATE, AGAIN_THEN_NEXT, "overloaded"),
    spares(LATER, {"fault": "429", "retry_after_s": LONG_S}, NEXT, "overloaded", rests=True),
    spares(LATER, {"fault": "429", "retry_after_s": LONG_S} | DATE, NEXT, "overloaded", rests=True),
    spares(LATER, {"fault": "429", "retry_after_as": "last_date"}, NEXT, "overloaded", rests=True),
    spares(LATER, {"fault": "503", "retry_after_s": LONG_S}, NEXT, "overloaded", rests=True),
    spares(LATER, {"fault": "503", "retry_after_s": LONG_S} | DATE, NEXT, "overloaded", rests=True),
    spares(LATER, {"fault": "529", "retry_after_s": LONG_S}, NEXT, "overloaded", rests=True),
    fails(FEWER, {"fault": "429"}, AGAIN_THEN_NEXT, "overloaded"),
    spares(
        "answers 429 to a request that is by itself larger than our limit",
        {"fault": "above_limit"},
        NEXT,
        "route_unfit",
        firsts=("openai",),
    ),
    fails(SERVER_ERROR, {"fault": "500"}, AGAIN_THEN_NEXT, "unavailable"),
    fails(SERVER_ERROR, {"fault": "502"}, AGAIN_THEN_NEXT, "unavailable"),
    fails(SERVER_ERROR, {"fault": "503"}, AGAIN_THEN_NEXT, "unavailable"),
    fails(SERVER_ERROR, {"fault": "529"}, AGAIN_THEN_NEXT, "unavailable"),
    fails(SERVER_ERROR, {"fault": "endless_error"}, AGAIN_THEN_NEXT, "unavailable"),
    fails("is silent before its headers", {"fault": "silence_headers"}, NEXT, "timeout"),
    fails("is silent before its first token", {"fault": "silence_first_token"}, NEXT, "timeout"),
    fails("is silent before its first token", {"fault": "stall", "at": 0}, NEXT, "timeout", firsts=(*EACH, "reasoner")),
    fails("stalls after its first token", {"fault": "stall", "at": 3}, GONE_ON_WITH, "timeout"),
    fails(CUT, {"fault": "cut", "at": 0}, AGAIN_THEN_NEXT, "unavailable", firsts=(*EACH, "reasoner")),
    fails(CUT, {"fault": "cut", "at": 3}, GONE_ON_WITH, "unavailable"),
    fails(CUT, {"fault": "cut", "at": 3, "remarks": True}, GONE_ON_WITH, "unavailable", firsts=("openai", "deepseek")),
    fails(CUT, {"fault": "reset_midstream", "at": 3}, GONE_ON_WITH, "unavailable"),
    fails(MALFORMED, {"fault": "malformed", "at": 0}, AGAIN_THEN_NEXT, "unavailable", firsts=(*EACH, "reasoner")),
    fails(MALFORMED, {"fault": "malformed", "at": 3}, GONE_ON_WITH, "unavailable"),
    fails(ERROR_EVENT, {"fault": "error_event", "at": 0}, AGAIN_THEN_NEXT, "unavailable", firsts=(*EACH, "reasoner")),
    fails(ERROR_EVENT, {"fault": "error_event", "at": 3}, GONE_ON_WITH, "unavailable"),
    fails(UNFINISHED, {"fault": "no_finish", "at": 0}, AGAIN_THEN_NEXT, "unavailable", firsts=(*EACH, "reasoner")),
    fails(UNFINISHED, {"fault": "no_finish", "at": 3}, GONE_ON_WITH, "unavailable"),
    fails(
        UNFINISHED, {"fault": "done_unfinished", "at": 0}, AGAIN_THEN_NEXT, "unavailable", firsts=(*EACH, "reasoner")
    ),
    fails(UNFINISHED, {"fault": "done_unfinished", "at": 3}, GONE_ON_WITH, "unavailable"),
    spares("answers, and says nothing", {"fault": "empty"}, NEXT, "empty"),
]
CASES = [pytest.param(row, first, id=f"{row.name}-{first}") for row in ROWS for first in row.firsts]


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, **SETTINGS) as running:
        yield running


def behave(client, provider, behaviour):
    if behaviour.get("off"):
        client.simulator.control("POST", f"/providers/{provider}/off")
    else:
        client.simulator.behave(provider, **behaviour)


def calls(client, first):
    """How often each of the routes has been asked, in their order."""
    return tuple(client.simulator.counters(provider)["calls"] for provider in ROUTES[first])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("row", "first"), CASES)
async def test_row(client, row, first, form):
    """The client has the whole answer, or the one error; no provider is asked more often than the table says."""
    query = question()
    behave(client, ROUTES[first][0], row.behaviour)

    told = await ask(client, first, form, query)

    assert told.code == row.then.code
    assert told.code or told.text == expected(query)
    assert told.is_ended_well
    assert form != "named" or told.changes == row.then.changes
    assert calls(client, first) == row.then.calls


@pytest.mark.parametrize(("row", "first"), CASES)
async def test_what_counts_opens_the_circuit_and_nothing_else_does(client, row, first):
    """And the metric has every attempt under its name."""
    provider = ROUTES[first][0]
    behave(client, provider, row.behaviour)
    labels = {"provider": provider, "outcome": row.outcome}
    before = await metrics.total(client, "sse_provider_attempts_total", **labels)

    await asyncio.gather(*(ask(client, first, "named") for _ in range(REQUESTS)))

    state = await circuit(client, provider)
    assert state["state"] == ("open" if row.counts else "closed")
    assert (state["retry_after_s"] > LONG_S - 10) is (row.rests or row.counts)
    assert await metrics.total(client, "sse_provider_attempts_total", **labels) > before


NOT_CONNECTED = "cannot be connected to within `WEIR_CONNECT_TIMEOUT_S`"
ADDRESSES = {
    "fails the TLS handshake": (AGAIN_THEN_NEXT, "unavailable"),
    "has a name that does not resolve": (AGAIN_THEN_NEXT, "unavailable"),
    NOT_CONNECTED: (NEXT, "timeout"),
}


@contextmanager
def address(way, url):
    """Where a provider is that fails so."""
    if way == NOT_CONNECTED:
        with deaf_port() as port:
            yield f"http://127.0.0.1:{port}/v1"
    else:
        yield url.replace("http://", "https://") if "TLS" in way else "http://no-such-host.invalid/v1"


@pytest.mark.parametrize("way", ADDRESSES)
@pytest.mark.parametrize("first", ORDERS)
async def test_addresses_that_cannot_be_called(simulator, way, first):
    """As a provider that is down, in every form."""
    then, outcome = ADDRESSES[way]
    with (
        address(way, simulator.urls[first]) as url,
        serving(simulator, **SETTINGS, **{f"{first.upper()}_BASE_URL": url}) as service,
    ):
        async with connected(service.url) as client:
            for form in FORMS:
                query = question()
                await close_circuits(client)
                told = await ask(client, first, form, query)
                assert (told.text, told.code, told.is_ended_well) == (expected(query), None, True)
                assert form != "named" or told.changes == then.changes
            labels = {"provider": first, "outcome": outcome}
            assert await metrics.total(client, "sse_provider_attempts_total", **labels) == then.calls[0] * len(FORMS)
            await asyncio.gather(*(ask(client, first, "named") for _ in range(REQUESTS)))
            state = await circuit(client, first)

    assert state["state"] == "open"


@pytest.mark.parametrize("form", ["chunks", "whole"])
@pytest.mark.parametrize("first", ORDERS)
async def test_who_asks_for_several_answers_gets_them_from_who_gives_several(client, first, form):
    """OpenAI alone does; the others are not called, whatever their order, and nothing is held against them."""
    for _ in range(REQUESTS):
        response = await client.ask(CHAT, model=f"{first}-first", n=2, stream=form == "chunks")
        assert response.status == 200
        assert indices(response, form) == {0, 1}

    assert {name: client.simulator.counters(name)["calls"] for name in ORDERS} == {
        "openai": REQUESTS,
        "deepseek": 0,
        "gemini": 0,
    }
    assert [(await circuit(client, name))["state"] for name in ORDERS] == ["closed"] * 3


def indices(response, form):
    """The choices that have finished."""
    said = [event.json for event in response.events[:-1]] if form == "chunks" else [response.json()]
    return {choice["index"] for each in said for choice in each["choices"] if choice["finish_reason"]}


@pytest.mark.parametrize("form", ["chunks", "whole"])
async def test_who_gives_fewer_answers_than_asked_for_is_not_left_alone_for_it(client, form):
    """Else any caller could shut it off for all others."""
    client.simulator.behave("openai", choices=1)
    responses = [
        await client.ask(CHAT, model="openai-first", n=2, stream=form == "chunks") for _ in range(2 * REQUESTS)
    ]

    for response in responses:
        last = response.events[-1].json if form == "chunks" else response.json()
        assert last["error"]["code"] == "stream_interrupted"
        assert "gave 1 of 2 choices" in last["error"]["message"]
    assert client.simulator.counters("openai")["calls"] == 2 * REQUESTS
    assert (await circuit(client, "openai"))["state"] == "closed"


@pytest.mark.parametrize("form", ["chunks", "whole"])
async def test_who_has_no_words_for_something_is_not_called(client, form):
    """Gemini cannot be told to give logprobs."""
    query = question()

    response = await client.ask(CHAT, query, model="gemini-first", logprobs=True, stream=form == "chunks")

    said = text(response.events) if form == "chunks" else response.json()["choices"][0]["message"]["content"]
    assert said == expected(query)
    assert calls(client, "gemini") == (0, 1, 0)
    assert (await circuit(client, "gemini"))["state"] == "closed"


HERE = {
    "gives fewer choices (`n`) than are asked for, by its `max_choices` or by what came",
    "has no words for something in the request",
}
TRIED_ELSEWHERE = {
    "gives something that a defect of ours keeps us from reading": (
        "tests/domain/test_failover.py",
        "test_a_defect_in_an_adapter_is_told_and_the_next_route_answers",
    ),
    "cannot be called for want of sockets here": (
        "tests/infrastructure/test_providers_errors.py",
        "test_a_shortage_of_ours_is_not_held_against_the_provider",
    ),
    "goes on with an answer in a way that cannot be joined to it, or with nothing": (
        "tests/domain/test_rests_of_answers.py",
        "test_what_cannot_be_joined_is_left_for_the_next_route",
    ),
    "refuses to be given the beginning of an answer": (
        "tests/domain/test_rests_of_answers.py",
        "test_a_route_that_refuses_the_beginning_is_asked_in_words",
    ),
    "has as many calls open as its `max_concurrency` allows": (
        "tests/app/test_books.py",
        "test_a_full_provider_is_passed_over_and_refused_where_it_is_the_only_one",
    ),
    "is being left alone: its circuit is open, or it has asked for rest": (
        "tests/failover/test_outages.py",
        "test_an_outage_of_one_is_noticed_by_nobody_and_it_is_left_alone",
    ),
}


def test_every_way_has_its_row():
    """A way of failing that nobody has tried is a guess."""
    assert {row.way for row in ROWS} | set(ADDRESSES) | HERE | set(TRIED_ELSEWHERE) == set(WAYS)


@pytest.mark.parametrize("way", TRIED_ELSEWHERE)
def test_what_is_tried_elsewhere_is_tried_there(way):
    """A test that was renamed or lost would be missed by nobody."""
    path, name = TRIED_ELSEWHERE[way]

    assert re.search(rf"^(async )?def {name}\(", (PROJECT / path).read_text(), re.MULTILINE)
