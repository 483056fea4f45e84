"""Two services on one Redis: what an operator or a provider does to one, it does to both."""

import time
from contextlib import AsyncExitStack

import pytest

from tests.app.asking import MODEL, STREAM, connected, question
from tests.redis_servers import RedisServer
from tests.serving import ADMIN_KEY, serving

pytestmark = pytest.mark.anyio

BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}
HEARD_WITHIN_S = 0.25
"""100 ms, and the requests that look whether it has been heard."""


@pytest.fixture(scope="module")
def redis():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def settings(redis):
    return {"WEIR_REDIS_URL": redis.url, "WEIR_BREAKER_FAILURES": "2", "WEIR_BREAKER_WINDOW": "5"}


@pytest.fixture(scope="module")
def services(simulation, settings):
    with serving(simulation, **settings) as first, serving(simulation, **settings) as second:
        yield first, second


@pytest.fixture
async def clients(services, simulator):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(service.url)) for service in services]


async def cache_of(client, query, **fields):
    return (await client.ask(STREAM, query, **fields)).headers["x-cache"]


async def stored(clients):
    """A question whose answer is in Redis, and in L1 of both."""
    query = question()
    await cache_of(clients[0], query)
    while await cache_of(clients[1], query) != "l1":
        pass
    return query


async def circuit(client, provider="openai"):
    shown = (await client.send("GET", "/admin/circuits", headers=BEARER)).json()["circuits"]
    return next(each for each in shown if each["provider"] == provider)


async def until_state(client, state, within_s):
    """The circuit comes into that state; each look is a request."""
    began_s = time.perf_counter()
    while (await circuit(client))["state"] != state:
        assert time.perf_counter() - began_s < within_s


async def test_who_comes_back_with_more_than_there_is_is_wrong_where_it_is_led_and_may_be_right_elsewhere(
    clients, simulator
):
    """Its leader may be cut off, and have sent what nobody else has yet."""
    simulator.behave("openai", fault="stall", at=5)
    async with clients[0].open(STREAM) as stream:
        await stream.chunks(3)
        path, headers = f"/v1/streams/{stream.stream_id}", {"Last-Event-ID": "500"}
        there, here = [await client.send("GET", path, headers=headers) for client in clients]

    assert (there.status, there.json()["code"]) == (400, "invalid_request")
    assert (here.status, here.json()["code"], here.headers["retry-after"]) == (503, "stream_unavailable", "1")


async def test_a_purge_on_one_empties_l1_of_both_and_l2(clients):
    """At once, and the new answer is stored for both again."""
    query = await stored(clients)

    purged = await clients[0].send("POST", "/admin/cache/purge", json={"model": MODEL}, headers=BEARER)

    assert purged.json()["is_fleetwide"] is True
    time_limit_s = time.perf_counter() + HEARD_WITHIN_S
    while (tier := await cache_of(clients[1], query)) == "l1":
        assert time.perf_counter() < time_limit_s
    assert tier == "miss"
    while await cache_of(clients[0], query) == "coalesced":
        pass
    assert await cache_of(clients[0], query) == "l1"


async def test_a_purge_of_another_model_leaves_both_tiers_of_both(clients):
    """Nothing is paid for twice without need."""
    models = [each["id"] for each in (await clients[0].send("GET", "/v1/models")).json()["data"]]
    query = await stored(clients)

    await clients[0].send("POST", "/admin/cache/purge", json={"model": models[-1]}, headers=BEARER)

    assert [await cache_of(client, query) for client in clients] == ["l1", "l1"]


async def test_a_service_that_starts_obeys_earlier_purges_and_has_what_is_popular(clients, simulation, settings):
    """As in a rolling update."""
    purged = await stored(clients)
    await clients[0].send("POST", "/admin/cache/purge", json={}, headers=BEARER)
    popular = await stored(clients)
    with serving(simulation, **settings) as brief:
        async with connected(brief.url) as client:
            assert [await cache_of(client, popular) for _ in range(2)][1] == "l1"

    with serving(simulation, **settings) as third:
        async with connected(third.url) as client:
            assert await cache_of(client, popular) == "l1"
            assert await cache_of(client, purged) == "miss"


async def test_a_circuit_that_opens_on_one_is_open_on_both_and_one_reset_closes_it(clients, simulator):
    """The second instance does not have to fail as often as the first."""
    simulator.behave("openai", fault="503")
    await clients[0].ask(STREAM)
    await until_state(clients[0], "open", 1.0)
    await until_state(clients[1], "open", HEARD_WITHIN_S)
    simulator.reset()
    await clients[1].ask(STREAM)
    assert simulator.calls("openai") == []

    await clients[1].send("POST", "/admin/circuits/openai/reset", headers=BEARER)

    await until_state(clients[0], "closed", HEARD_WITHIN_S)
    assert (await clients[0].ask(STREAM)).events[-1].json["provider"] == "openai"


async def test_an_operator_stops_a_stream_that_another_instance_leads(clients, simulator):
    """Whichever instance the operator happened to reach."""
    simulator.behave("openai", tokens=1000, gap_s=0.05)
    async with clients[0].open(STREAM) as stream:
        await stream.chunks(1)

        stopped = await clients[1].send("DELETE", f"/v1/streams/{stream.stream_id}", headers=BEARER)

        assert stopped.status == 204
        assert (await stream.event("error")).json["code"] == "cancelled"
