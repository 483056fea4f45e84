"""How long routes take to their first token, through the service: who leads for it, and who is asked beside another."""

import asyncio
import time

import pytest

from domain.hedging import ENOUGH
from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type, question, text
from tests.failover.asking import BEARER, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

CATALOGUE = """
[providers.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"

[providers.gemini]
kind = "gemini"
base_url = "https://generativelanguage.googleapis.com"
api_key_env = "GEMINI_API_KEY"

[models.fast]
strategy = "fastest"
routes = [{ provider = "openai", model = "gpt-4o" }, { provider = "gemini", model = "gemini-2.5-flash" }]

[models.both]
routes = [
  { provider = "openai", model = "gpt-4o", usd_per_mtok_in = 1, usd_per_mtok_out = 2 },
  { provider = "gemini", model = "gemini-2.5-flash", usd_per_mtok_in = 10, usd_per_mtok_out = 20 },
]

[models.alone]
routes = [{ provider = "openai", model = "gpt-4o" }]
"""


@pytest.fixture
async def service_with(simulator, tmp_path):
    """A client of a service of its own, with these settings: what it has learnt is the test's."""
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    contexts = []

    async def start(**settings):
        service = serving(simulator, WEIR_CATALOGUE=str(path), WEIR_RETRY_BUDGET_RATIO="0.2", **settings)
        contexts.append(service)
        client = connected(service.__enter__().url)
        contexts.append(client)
        opened = await client.__aenter__()
        opened.simulator = simulator
        return opened

    yield start
    service, client = contexts
    await client.__aexit__(None, None, None)
    service.__exit__(None, None, None)


async def whole(client, model, query=None):
    """The events of an answer that is whole."""
    query = query or question()
    events = (await client.ask(STREAM, query, model=model)).events
    assert (events[-1].type, text(events)) == ("complete", expected(query)), events[-1].json
    return events


def calls(client):
    return {name: client.simulator.counters(name)["calls"] for name in ("openai", "gemini")}


async def test_the_wait_for_headers_is_part_of_the_time_to_the_first_token(service_with):
    """Told in the answer's end, and counted."""
    client = await service_with()
    client.simulator.behave("openai", headers_ms=200, ttft_ms=50)

    events = await whole(client, "both")

    name = "sse_time_to_first_token_seconds_sum"
    assert of_type(events, "complete")[0].json["ttft_ms"] >= 240
    assert await metrics.total(client, name, provider="openai", cache="miss") >= 0.24


async def test_who_holds_the_headers_back_is_not_the_fastest(service_with):
    """Its first token comes right behind them, and late."""
    client = await service_with()
    client.simulator.behave("openai", headers_ms=200, ttft_ms=0)
    client.simulator.behave("gemini", ttft_ms=60)

    for _ in range(30):
        await whole(client, "fast")

    assert calls(client)["gemini"] >= 24, "all but the first of the other, and one in 40"


async def test_who_only_fails_is_not_the_fastest(service_with):
    """Even when its failures are quick and count for nothing."""
    client = await service_with()
    client.simulator.behave("openai", fault="429", retry_after_s=1)
    client.simulator.behave("gemini", ttft_ms=60)

    for _ in range(20):
        await whole(client, "fast")

    assert calls(client)["gemini"] >= 20
    assert calls(client)["openai"] <= 3 + 3, "the first time, and should it be tried once more"


async def test_a_route_that_asks_everybody_to_wait_is_left_alone_meanwhile(service_with):
    """Those who come meanwhile go to the next one; no answer is lost, and the provider is not asked by all of them."""
    client = await service_with()
    client.simulator.behave("openai", fault="429", retry_after_ms=500)
    waits_s = []

    async def asker():
        for _ in range(12):
            began_s = time.monotonic()
            await whole(client, "both")
            waits_s.append(time.monotonic() - began_s)

    began_s = time.monotonic()
    await asyncio.gather(*(asker() for _ in range(8)))
    rests = (time.monotonic() - began_s) / 0.5

    assert calls(client)["gemini"] == 96
    assert calls(client)["openai"] <= 8 * (rests + 1)
    assert calls(client)["openai"] < 48, "most have not asked it"


async def test_a_short_rest_of_the_only_route_is_waited_for(service_with):
    """Nobody is refused for it."""
    client = await service_with()
    client.simulator.behave("openai", fault="429", retry_after_ms=500, times=1)
    first = asyncio.create_task(whole(client, "alone"))
    await client.simulator.until("openai.faults==1")

    await asyncio.gather(first, *(whole(client, "alone") for _ in range(5)))

    assert calls(client)["openai"] == 7


async def test_a_request_that_is_slower_than_usual_asks_the_next_route_too(service_with):
    """The faster one answers; what the slower one has read is in the books; nothing of it is left."""
    client = await service_with(WEIR_HEDGE_RATIO="1")
    client.simulator.behave("openai", headers_ms=20)
    for _ in range(ENOUGH + 5):
        await whole(client, "both")
    spent = await metrics.total(client, "sse_tokens_total", provider="openai", direction="in")
    hedges = await metrics.total(client, "sse_failovers_total", phase="hedge")
    client.simulator.behave("openai", headers_s=30)
    began_s = time.monotonic()

    events = await whole(client, "both")

    assert time.monotonic() - began_s < 2
    await client.simulator.until("openai.live==0")
    [last] = of_type(events, "complete")
    assert last.json["provider"] == "gemini"
    assert last.json["usage"]["estimated"] is True
    assert await metrics.total(client, "sse_failovers_total", phase="hedge") == hedges + 1
    assert await metrics.total(client, "sse_tokens_total", provider="openai", direction="in") > spent
    assert await metrics.total(client, "sse_provider_attempts_total", provider="openai", outcome="cancelled") >= 1
    entry = (await client.send("GET", "/admin/audit?limit=1", headers=BEARER)).json()["entries"][0]
    assert entry["usage"]["estimated"]
    assert entry["cost_usd"] == pytest.approx(last.json["cost_usd"])


async def test_a_route_that_is_always_slow_is_not_hedged_for_that(service_with):
    """What it usually takes is not slow, headers or not."""
    client = await service_with(WEIR_HEDGE_RATIO="1")
    client.simulator.behave("openai", headers_ms=150)

    for _ in range(ENOUGH + 30):
        await whole(client, "both")

    assert calls(client)["gemini"] <= 10
