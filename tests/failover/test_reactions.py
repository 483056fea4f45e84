"""The table of domain/reactions.py, row by row: what providers were asked, and what clients were told."""

import asyncio

import pytest

from domain.reactions import REACTIONS, WAYS, Elsewhere, Here
from tests.app import metrics
from tests.app.asking import connected, question
from tests.failover.asking import CATALOGUE, ORDERS, ask, circuit, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

ATTEMPTS = 3
REQUESTS = 3
"""So many failures open a circuit, whether they are of one request or of as many."""

LONG_S = 60
SETTINGS = {
    "WEIR_CATALOGUE": CATALOGUE,
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "0.5",
    "WEIR_STALL_TIMEOUT_S": "0.5",
    "WEIR_CONNECT_TIMEOUT_S": "0.4",
    "WEIR_RETRY_ATTEMPTS": str(ATTEMPTS),
    "WEIR_BREAKER_FAILURES": str(REQUESTS),
    "WEIR_BREAKER_WINDOW": str(3 * REQUESTS),
}
SERVER_ERROR = "answers 500, 502, 503 or 529"
DEFERRED = "answers 429, 503 or 529 and says when to come back"
REJECTED = "answers 400, 413 or 422: the request is wrong"
CUT = "cuts the stream"
ROWS = [
    ({"off": True}, "refuses the connection"),
    ({"fault": "reset"}, "resets the connection"),
    ({"fault": "401"}, "answers 401 or 403: our key is bad"),
    ({"fault": "403"}, "answers 401 or 403: our key is bad"),
    ({"fault": "quota"}, "says that our quota is used up"),
    ({"fault": "404"}, "answers 404: it does not have the model"),
    ({"fault": "400"}, REJECTED),
    ({"fault": "413"}, REJECTED),
    ({"fault": "422"}, REJECTED),
    ({"fault": "context_length"}, "finds the context too long"),
    ({"fault": "content_filter"}, "refuses the prompt by its content filter"),
    ({"fault": "408"}, "answers 408"),
    ({"fault": "409"}, "answers 409"),
    ({"fault": "429", "retry_after_ms": 20}, DEFERRED),
    ({"fault": "429", "retry_after_s": LONG_S}, DEFERRED),
    ({"fault": "503", "retry_after_s": LONG_S}, DEFERRED),
    ({"fault": "529", "retry_after_s": LONG_S}, DEFERRED),
    ({"fault": "429"}, "answers 429 and does not say when to come back"),
    ({"fault": "500"}, SERVER_ERROR),
    ({"fault": "502"}, SERVER_ERROR),
    ({"fault": "503"}, SERVER_ERROR),
    ({"fault": "529"}, SERVER_ERROR),
    ({"fault": "silence_headers"}, "is silent before its headers"),
    ({"fault": "silence_first_token"}, "is silent before its first token"),
    ({"fault": "stall", "at": 3}, "stalls after its first token"),
    ({"fault": "cut", "at": 0}, CUT),
    ({"fault": "cut", "at": 3}, CUT),
    ({"fault": "reset_midstream", "at": 3}, CUT),
    ({"fault": "malformed", "at": 0}, "sends a malformed event"),
    ({"fault": "malformed", "at": 3}, "sends a malformed event"),
    ({"fault": "error_event", "at": 0}, "sends an error object in the stream"),
    ({"fault": "error_event", "at": 3}, "sends an error object in the stream"),
    ({"fault": "no_finish", "at": 0}, "ends without a finish reason"),
    ({"fault": "no_finish", "at": 3}, "ends without a finish reason"),
    ({"fault": "empty"}, "answers, and says nothing"),
]
AS_THEY_SAY_IT = {("gemini", "says that our quota is used up"): "answers 429 and does not say when to come back"}
"""Gemini has one error for too many requests and for none left."""


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, **SETTINGS) as running:
        yield running


def name_of(behaviour):
    return " ".join(f"{name}={value}" for name, value in behaviour.items())


def behave(client, provider, behaviour):
    if behaviour.get("off"):
        client.simulator.control("POST", f"/providers/{provider}/off")
    else:
        client.simulator.behave(provider, **behaviour)


class Row:
    """What the table calls for when the first of three routes behaves so, and so many requests come at once."""

    def __init__(self, first, behaviour, way):
        self.way = AS_THEY_SAY_IT.get((first, way), way)
        self.reaction = REACTIONS[WAYS[self.way]]
        self.is_midstream = bool(behaviour.get("at"))
        self.rests = self.reaction.here is Here.WISH and behaviour.get("retry_after_s") == LONG_S
        self.is_retried = self.reaction.here is not Here.NO and not self.is_midstream and not self.rests

    @property
    def calls(self):
        """How often each route is asked by one request."""
        first = ATTEMPTS if self.is_retried else 1
        others = {Elsewhere.NO: (0, 0), Elsewhere.NEXT: (1, 0), Elsewhere.ONCE: (1, 0), Elsewhere.LARGER: (0, 1)}
        return (first, *others[self.reaction.elsewhere])

    @property
    def changes(self):
        """What a client hears of it."""
        if self.is_midstream:
            return ("continued",)
        turned = () if self.reaction.elsewhere is Elsewhere.NO else ("failover",)
        return ("retrying",) * (ATTEMPTS - 1) * self.is_retried + turned


@pytest.mark.parametrize("form", ["named", "chunks", "whole"])
@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize(("behaviour", "way"), ROWS, ids=[name_of(behaviour) for behaviour, _ in ROWS])
async def test_row(client, behaviour, way, first, form):
    """The client has the whole answer, or the one error; no provider is asked more often than the table says."""
    row, query = Row(first, behaviour, way), question()
    behave(client, first, behaviour)

    told = await ask(client, first, form, query)

    if row.reaction.elsewhere is Elsewhere.NO:
        assert told.code == "provider_rejected"
    else:
        assert (told.code, told.text) == (None, expected(query))
    assert told.is_ended_well
    assert form != "named" or told.changes == row.changes
    counted = [0 if behaviour.get("off") and not place else count for place, count in enumerate(row.calls)]
    assert [client.simulator.counters(provider)["calls"] for provider in ORDERS[first]] == counted


@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize(("behaviour", "way"), ROWS, ids=[name_of(behaviour) for behaviour, _ in ROWS])
async def test_what_counts_opens_the_circuit_and_nothing_else_does(client, behaviour, way, first):
    """And the metric has every attempt under its name."""
    row = Row(first, behaviour, way)
    behave(client, first, behaviour)
    labels = {"provider": first, "outcome": row.reaction.outcome}
    before = await metrics.total(client, "sse_provider_attempts_total", **labels)

    await asyncio.gather(*(ask(client, first, "named") for _ in range(REQUESTS)))

    state = await circuit(client, first)
    assert state["state"] == ("open" if row.reaction.counts else "closed")
    assert (state["retry_after_s"] > LONG_S - 10) is (row.rests or row.reaction.counts)
    assert await metrics.total(client, "sse_provider_attempts_total", **labels) > before


ADDRESSES = {
    "fails the TLS handshake": lambda url: url.replace("http://", "https://"),
    "has a name that does not resolve": lambda _: "http://no-such-host.invalid/v1",
}


@pytest.mark.parametrize("way", ADDRESSES)
@pytest.mark.parametrize("first", ["openai", "gemini"])
async def test_addresses_that_cannot_be_called(simulator, way, first):
    """As a provider that is down."""
    address = ADDRESSES[way](simulator.urls[first])
    with serving(simulator, **SETTINGS, **{f"{first.upper()}_BASE_URL": address}) as service:
        async with connected(service.url) as client:
            query = question()
            told = await ask(client, first, "named", query)
            state = await circuit(client, first)

    assert told.text == expected(query)
    assert told.changes == ("retrying",) * (ATTEMPTS - 1) + ("failover",)
    assert state["state"] == "open"


TRIED_ELSEWHERE = {
    "cannot be connected to within `WEIR_CONNECT_TIMEOUT_S`": "tests/infrastructure/test_providers_errors.py",
    "answers with another status below 500": "tests/infrastructure/test_providers_errors.py",
    "has no words for something in the request": "tests/infrastructure/test_providers_gemini.py",
    "cannot be called for want of sockets here": "tests/infrastructure/test_providers_errors.py",
    "goes on with an answer in a way that cannot be joined to it, or with nothing": "tests/failover/test_cuts.py",
    "refuses to be given the beginning of an answer": "tests/failover/test_cuts.py",
    "has as many calls open as its `max_concurrency` allows": "tests/app/test_books.py",
    "is being left alone: its circuit is open, or it has asked for rest": "tests/failover/test_outages.py",
}


def test_every_way_has_its_row():
    """A way of failing that nobody has tried is a guess."""
    assert {way for _, way in ROWS} | set(ADDRESSES) | set(TRIED_ELSEWHERE) == set(WAYS)
