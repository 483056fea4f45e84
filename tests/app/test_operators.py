"""What those may do who have the operator's key, and nobody else."""

import json
from itertools import product

import pytest

from tests.app import metrics
from tests.app.asking import CHAT, MODEL, STREAM, body_for, connected, question
from tests.app.refusals import check_refusal
from tests.serving import ADMIN_KEY as KEY
from tests.serving import serving

pytestmark = pytest.mark.anyio

BEARER = {"authorization": f"Bearer {KEY}"}
ROUTES = [
    ("POST", "/admin/cache/purge"),
    ("POST", "/admin/cache/warm"),
    ("GET", "/admin/circuits"),
    ("GET", "/admin/audit"),
    ("POST", "/admin/circuits/openai/reset"),
]
PURGE = "/admin/cache/purge"
WARM = "/admin/cache/warm"


@pytest.fixture(scope="module")
def operated_service(simulation):
    settings = {
        "WEIR_RATE_ANONYMOUS": "100/minute",
        "WEIR_MAX_CONNECTIONS_PER_USER": "1",
        "WEIR_BREAKER_FAILURES": "2",
        "WEIR_BREAKER_WINDOW": "10",
        "WEIR_RETRY_ATTEMPTS": "2",
        "WEIR_LOG_LEVEL": "debug",
    }
    with serving(simulation, **settings) as running:
        yield running


@pytest.fixture
async def client(operated_service, simulator):
    async with connected(operated_service.url) as each:
        each.simulator = simulator
        each.log = operated_service.log
        yield each


async def purge(client, **body):
    response = await client.send("POST", PURGE, json=body, headers=BEARER)
    assert response.status == 200, response.raw
    return response.json()


async def warm(client, *bodies):
    lines = b"".join(json.dumps(body).encode() + b"\n" for body in bodies)
    return await client.send("POST", WARM, data=lines, headers=BEARER)


async def cache_of(client, query, model=MODEL):
    """Where the answer comes from now."""
    return (await client.ask(STREAM, query, model=model)).headers["x-cache"]


@pytest.fixture(scope="module")
def service_without_operators(simulation):
    with serving(simulation, WEIR_ADMIN_KEY="") as running:
        yield running


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_the_setting_there_is_nothing(service_without_operators, method, path):
    """Not even a hint that there could be."""
    async with connected(service_without_operators.url) as each:
        for headers in ({}, BEARER, {"authorization": "Bearer "}):
            response = await each.send(method, path, headers=headers)
            nothing = await each.send(method, "/admin/nothing", headers=headers)

            assert (response.status, nothing.status) == (404, 404)
            assert response.json()["code"] == nothing.json()["code"] == "not_found"
            check_refusal(path, response)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"x-api-key": KEY},
    ],
)
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_the_right_key_nothing_is_done(client, method, path, given):
    """Whoever can reach the port is not an operator yet."""
    response = await client.send(method, path, headers=given)

    assert (response.status, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer realm="weir"'
    check_refusal(path, response)


async def test_a_purge_empties_the_cache(client):
    """What was stored is asked again, and the new answer is stored."""
    query = question()
    assert [await cache_of(client, query) for _ in range(2)] == ["miss", "l1"]
    before = await metrics.total(client, "sse_cache_purges_total")

    purged = await purge(client)

    assert (purged["model"], purged["scope"], purged["is_fleetwide"]) == (None, None, True)
    assert [await cache_of(client, query) for _ in range(2)] == ["miss", "l1"]
    assert await metrics.total(client, "sse_cache_purges_total") == before + 1
    assert '"event":"cache purged"' in client.log()


async def test_a_purge_of_a_model_leaves_the_others(client):
    """A new version of one model is no reason to pay again for all."""
    models = [each["id"] for each in (await client.send("GET", "/v1/models")).json()["data"]][:2]
    query = question()
    for model in models:
        await cache_of(client, query, model)

    await purge(client, model=models[0])

    assert [await cache_of(client, query, model) for model in models] == ["miss", "l1"]


async def test_a_purge_that_says_nothing_is_of_everything(client):
    """As a person with curl would type it."""
    query = question()
    await cache_of(client, query)

    assert (await client.send("POST", PURGE, headers=BEARER)).status == 200

    assert await cache_of(client, query) == "miss"


@pytest.mark.parametrize(("scope", "left"), [("shared", "miss"), ("tenant:acme", "l1"), ("user:ann", "l1")])
async def test_a_purge_of_a_scope_leaves_the_others(client, scope, left):
    """All answers here are shared."""
    query = question()
    await cache_of(client, query)

    assert (await purge(client, scope=scope))["scope"] == scope

    assert await cache_of(client, query) == left


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, ["body", "not JSON"]),
        (b'{"modle": "m"}', 400, ["modle"]),
        (b'{"scope": "everybody"}', 400, ["scope"]),
        (b'{"model": "gpt-9"}', 404, ["gpt-9", MODEL]),
    ],
)
async def test_a_purge_that_cannot_be_right_purges_nothing(client, body, status, words):
    """A typing error must not empty the cache, nor pass for having done so."""
    query = question()
    await cache_of(client, query)
    headers = BEARER | {"content-type": "application/json"}

    response = await client.send("POST", PURGE, data=body, headers=headers)

    assert response.status == status
    assert all(word in response.raw.decode() for word in words)
    assert await cache_of(client, query) == "l1"


async def test_what_is_asked_ahead_is_stored(client):
    """More at once than a user may have, and more than its rate allows: an operator has no limits."""
    questions = [question() for _ in range(150)]
    await cache_of(client, questions[0])

    response = await warm(client, *({"model": MODEL, "query": query} for query in questions))

    assert response.status == 200, response.raw
    assert response.json() == {"asked": 150, "stored_already": 1, "answered": 149, "failed": {}}
    assert [await cache_of(client, query) for query in questions[-3:]] == ["l1"] * 3


async def test_what_could_not_be_stored_is_counted_by_its_reason(client):
    """And does not stop the rest."""
    for provider in ("openai", "deepseek", "gemini"):
        client.simulator.behave(provider, fault="400", times=1)

    response = await warm(client, {"model": "gpt-9", "query": "?"}, body_for(STREAM))

    assert response.json() == {
        "asked": 2,
        "stored_already": 0,
        "answered": 0,
        "failed": {"unknown_model": 1, "provider_rejected": 1},
    }


async def test_lines_that_cannot_be_right_are_all_named_and_nothing_is_asked(client):
    """So that the file can be mended in one go."""
    lines = [body_for(STREAM), {}, {"model": MODEL}, {"model": MODEL, "query": "x", "colour": "red"}]
    lines.append(body_for(STREAM, session_id="s"))

    response = await warm(client, *lines)

    assert response.status == 400
    named = [error["field"] for error in response.json()["errors"]]
    assert [field.partition(":")[0] for field in named] == ["line 2", "line 3", "line 4", "line 5"]
    assert client.simulator.calls("openai") == []


@pytest.mark.parametrize("count", [0, 1001])
async def test_too_many_lines_or_none_are_refused(client, count):
    """One request must not keep a worker busy for hours."""
    assert (await warm(client, *[{"model": "gpt-9", "query": "?"}] * count)).status == 400


async def test_circuits_are_shown_and_reset(client):
    """Who knows that the provider is well again need not wait for the next probe."""
    client.simulator.behave("openai", fault="503")
    await client.ask(STREAM)
    client.simulator.reset()
    states = await circuits(client)
    assert (states["openai"]["state"], states["deepseek"]["state"]) == ("open", "closed")
    assert 0 < states["openai"]["retry_after_s"] <= 60
    assert {name: each["state"] for name, each in states["openai"]["models"].items() if each["retry_after_s"]} == {
        "gpt-4o-mini": "open"
    }

    response = await client.send("POST", "/admin/circuits/openai/reset", headers=BEARER)

    closed = {"state": "closed", "retry_after_s": 0.0}
    assert response.json() == {
        "provider": "openai",
        **closed,
        "models": dict.fromkeys(states["openai"]["models"], closed),
    }
    assert (await circuits(client))["openai"]["state"] == "closed"
    assert (await client.ask(STREAM)).events[-1].json["provider"] == "openai"


async def circuits(client):
    shown = (await client.send("GET", "/admin/circuits", headers=BEARER)).json()["circuits"]
    return {each["provider"]: each for each in shown}


async def test_a_provider_that_is_not_in_use_has_no_circuit(client):
    """The answer names those that have."""
    response = await client.send("POST", "/admin/circuits/opanai/reset", headers=BEARER)

    assert (response.status, response.json()["code"]) == (404, "unknown_provider")
    assert "openai" in response.json()["detail"]


@pytest.mark.parametrize(("path", "cache_control"), [*product((STREAM, CHAT), ("", "no-store"))])
async def test_an_operator_can_stop_anybodys_stream(client, path, cache_control):
    """Whoever asked for it, and whether it is shared or not."""
    client.simulator.behave("openai", tokens=1000, gap_s=0.05)
    async with client.open(path, headers={"cache-control": cache_control}) as stream:
        await stream.until(lambda _: True)
        wrong = await client.send("DELETE", f"/v1/streams/{'0' * 26}", headers=BEARER)

        stopped = await client.send("DELETE", f"/v1/streams/{stream.stream_id}", headers=BEARER)

        assert (wrong.status, stopped.status) == (404, 204)
        assert b"An operator stopped the stream." in (await stream.all()).raw


async def test_the_key_is_in_no_log(client):
    """However it was given."""
    for headers in (BEARER, {"authorization": f"Bearer {KEY}x"}):
        await client.send("GET", "/admin/circuits", headers=headers)

    assert "exchange ended" in client.log()
    assert KEY not in client.log()
