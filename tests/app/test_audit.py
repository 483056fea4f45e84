"""The audit trail, through services of one's own."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.app.asking import CHAT, MODEL, STREAM, connected, of_type, question
from tests.redis_servers import RedisServer
from tests.serving import ADMIN_KEY, serving

pytestmark = pytest.mark.anyio

BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}
AUDIT = "/admin/audit"
SECRET = "weir_0123456789ab_" + "S" * 32


@pytest.fixture(scope="module")
def redis():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def services(simulation, redis):
    with (
        serving(simulation, WEIR_REDIS_URL=redis.url) as first,
        serving(simulation, WEIR_REDIS_URL=redis.url) as second,
    ):
        yield first, second


@pytest.fixture
async def clients(services, simulator):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(service.url)) for service in services]


async def page(client, **parameters):
    response = await client.send("GET", AUDIT, params=parameters, headers=BEARER)
    assert response.status == 200, response.raw
    return response.json()


async def told_of(client, threads):
    """The entries of these threads by thread, once all are there; elsewhere they come a moment later."""
    while True:
        entries = (await page(client))["entries"]
        found = {entry["thread_id"]: entry for entry in entries if entry["thread_id"] in threads}
        if len(found) == len(threads):
            return found


async def asked(client, thread, query=None, path=STREAM, **fields):
    return await client.ask(path, query, headers={"X-Thread-ID": thread}, **fields)


async def follow(client, simulator, query):
    """Two ask the same at once; return what both were told at last."""
    simulator.behave("openai", tokens=20, gap_s=0.02)
    async with client.open(STREAM, query, headers={"X-Thread-ID": "leads"}) as leading:
        await leading.chunks(1)
        follower = await asked(client, "follows", query)
        await leading.all()
    simulator.reset()
    return [of_type(stream.events, "complete")[0].json for stream in (leading, follower)]


async def test_each_request_has_its_entry_with_its_numbers_on_every_instance(clients, simulator):
    """A miss, a hit, a follower, a refusal and a failure; nothing that was said is among them."""
    client, query = clients[0], "What do herons eat? " + question()
    led, followed = await follow(client, simulator, query)
    hit = of_type((await asked(client, "hits", query)).events, "complete")[0].json
    await asked(client, "refused", model="secret-model-name")
    for provider in ("openai", "deepseek", "gemini"):
        simulator.behave(provider, fault="400", times=1)
    await asked(client, "fails", path=CHAT)
    await client.ask(STREAM, query, headers={"X-Thread-ID": "other", "x-api-key": SECRET}, session_id="s")

    threads = ("leads", "follows", "hits", "refused", "fails")
    here, there = [await told_of(each, threads) for each in clients]

    assert here == there
    assert {name: (each["outcome"], each["code"], each["cache"]) for name, each in here.items()} == {
        "leads": ("done", None, "miss"),
        "follows": ("done", None, "coalesced"),
        "hits": ("done", None, "l1"),
        "refused": ("refused", "unknown_model", None),
        "fails": ("failed", "provider_rejected", "miss"),
    }
    told = {"leads": led, "follows": followed, "hits": hit}
    assert led["cost_usd"] == followed["saved_usd"] == hit["saved_usd"] > 0
    for thread, complete in told.items():
        entry = here[thread]
        for member in ("stream_id", "provider", "model", "cost_usd", "saved_usd"):
            assert entry[member] == complete[member], (thread, member)
        assert entry["usage"]["completion_tokens"] == complete["usage"]["completion_tokens"]
        assert entry["usage"]["estimated"] is False
        assert (entry["requested"], entry["user"], entry["tier"]) == (MODEL, "address:127.0.0.1", "anonymous")
        assert entry["duration_ms"] > 0
    assert (here["fails"]["cost_usd"], here["fails"]["usage"]) == (0.0, None)
    raw = (await client.send("GET", AUDIT, headers=BEARER)).raw
    assert not any(word.encode() in raw for word in ("heron", SECRET, "S" * 32, ADMIN_KEY, "secret-model-name"))


async def test_who_leaves_before_the_end_has_an_entry_that_says_so(clients, simulator):
    """What the answer will have cost is not known by then."""
    simulator.behave("openai", tokens=1000, gap_s=0.05)
    async with clients[0].open(STREAM, headers={"X-Thread-ID": "leaves"}) as stream:
        await stream.chunks(1)

    entry = (await told_of(clients[1], ("leaves",)))["leaves"]

    assert (entry["outcome"], entry["cost_usd"], entry["usage"]) == ("left", None, None)
    await simulator.until("openai.live==0")


async def test_pages_follow_one_another(clients):
    """Until there is no more."""
    await asyncio.gather(*(asked(clients[0], f"page-{number}") for number in range(5)))
    everything = (await page(clients[0], limit=1000))["entries"]
    seen, before = [], {}
    while before is not None:
        each = await page(clients[0], limit=3, **before)
        seen += each["entries"]
        before = each["next"] and {"before": each["next"]}

    assert seen == everything
    assert {f"page-{number}" for number in range(5)} <= {entry["thread_id"] for entry in seen[:5]}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("limit", "0", "1 to 1000"),
        ("limit", "1001", "1 to 1000"),
        ("limit", "many", "1 to 1000"),
        ("limit", "", "1 to 1000"),
        ("before", "yesterday", "next"),
        ("before", "", "next"),
        ("before", "1-1\n", "next"),
        ("before", "-", "next"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(clients, name, value, words):
    """With what would be right."""
    response = await clients[0].send("GET", AUDIT, params={name: value}, headers=BEARER)

    assert (response.status, [error["field"] for error in response.json()["errors"]]) == (400, [name])
    assert words in response.json()["detail"] + str(response.json()["errors"])


async def test_without_redis_a_service_has_a_trail_of_its_own(service, simulator):
    """In memory."""
    async with connected(service.url) as client:
        await asked(client, "alone")

        assert (await told_of(client, ("alone",)))["alone"]["outcome"] == "done"
