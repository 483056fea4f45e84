"""What answers cost, whose turn it is and how many calls a provider takes: through a service of its own."""

import asyncio
from contextlib import AsyncExitStack

import openai
import pytest

from tests.app.asking import CHAT, STREAM, connected, of_type, question
from tests.app.metrics import total
from tests.serving import serving

pytestmark = pytest.mark.anyio

CATALOGUE = """
[providers.openai]
kind = "openai"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"
max_concurrency = 2

[providers.gemini]
kind = "gemini"
base_url = "https://generativelanguage.googleapis.com"
api_key_env = "GEMINI_API_KEY"

[models.both]
routes = [
  { provider = "openai", model = "gpt-4o", usd_per_mtok_in = 1, usd_per_mtok_out = 2 },
  { provider = "gemini", model = "gemini-2.5-flash", usd_per_mtok_in = 10, usd_per_mtok_out = 20 },
]

[models.turns]
strategy = "round_robin"
routes = [{ provider = "openai", model = "gpt-4o" }, { provider = "gemini", model = "gemini-2.5-flash" }]

[models.cheap]
strategy = "cheapest"
routes = [
  { provider = "gemini", model = "gemini-2.5-flash", usd_per_mtok_in = 10, usd_per_mtok_out = 20 },
  { provider = "openai", model = "gpt-4o", usd_per_mtok_in = 1, usd_per_mtok_out = 2 },
]

[models.fast]
strategy = "fastest"
routes = [{ provider = "openai", model = "gpt-4o" }, { provider = "gemini", model = "gemini-2.5-flash" }]

[models.one]
routes = [{ provider = "openai", model = "gpt-4o" }]
"""


@pytest.fixture(scope="module")
def priced(simulation, tmp_path_factory):
    """A service with prices that are easy to see, and a provider that takes two calls."""
    path = tmp_path_factory.mktemp("books") / "catalogue.toml"
    path.write_text(CATALOGUE)
    with serving(simulation, WEIR_CATALOGUE=str(path), WEIR_MIDSTREAM="continue") as running:
        yield running


@pytest.fixture
async def client(priced, simulator):
    async with connected(priced.url) as each:
        each.simulator = simulator
        yield each


async def completed(client, model, query=None, **fields):
    """The last event of a whole answer."""
    stream = await client.ask(STREAM, query, model=model, **fields)
    [last] = of_type(stream.events, "complete")
    return last.json


async def test_a_counted_answer_says_nothing_of_estimates(client):
    """Its cost is exact."""
    last = await completed(client, "both")

    assert last["usage"]["completion_tokens"] == 25
    assert "estimated" not in last["usage"]
    assert last["cost_usd"] == pytest.approx((last["usage"]["prompt_tokens"] + 25 * 2) / 1e6)


async def test_an_answer_of_two_providers_costs_what_both_take(client):
    """And says that some of it is estimated; each is booked with its own."""
    client.simulator.behave("openai", fault="cut", at=10)
    before = {name: await total(client, "sse_cost_usd_total", provider=name) for name in ("openai", "gemini")}

    last = await completed(client, "both")
    spent = {name: await total(client, "sse_cost_usd_total", provider=name) - before[name] for name in before}

    assert last["usage"]["estimated"] is True
    assert last["usage"]["completion_tokens"] >= 10 + 15
    assert spent["openai"] > 0
    assert spent["gemini"] > 15 * 20 / 1e6
    assert last["cost_usd"] == pytest.approx(sum(spent.values()))


async def test_a_stored_answer_has_saved_what_it_cost_also_where_that_is_estimated(client):
    """And OpenAI's SDK reads the usage."""
    client.simulator.behave("openai", fault="cut", at=10)
    query = question()
    first = await completed(client, "both", query)
    again = await completed(client, "both", query)
    async with openai.AsyncOpenAI(api_key="any", base_url=client.url + "/v1", max_retries=0) as sdk:
        completion = await sdk.chat.completions.create(model="both", messages=[{"role": "user", "content": query}])

    assert (again["cost_usd"], again["saved_usd"]) == (0.0, first["cost_usd"])
    assert completion.usage.model_dump()["estimated"] is True
    assert completion.usage.total_tokens == first["usage"]["total_tokens"]


async def test_routes_lead_as_the_strategy_says(client):
    """Who leads answers, here."""
    turns = [(await completed(client, "turns"))["provider"] for _ in range(4)]

    assert turns[:2] == turns[2:]
    assert set(turns) == {"openai", "gemini"}
    assert (await completed(client, "cheap"))["provider"] == "openai"
    assert (await completed(client, "cheap", provider="gemini"))["provider"] == "gemini"


async def test_the_faster_route_gets_nearly_all_requests(client):
    """Once both are known."""
    client.simulator.behave("openai", ttft_s=0.1)
    answered = [(await completed(client, "fast"))["provider"] for _ in range(20)]

    assert answered.count("gemini") >= 14


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_a_full_provider_is_passed_over_and_refused_where_it_is_the_only_one(client, path):
    """Nothing waits, and its circuit hears nothing of it."""
    client.simulator.behave("openai", queued_s=60)
    labels = {"provider": "openai"}
    before = await total(client, "sse_provider_attempts_total", **labels)
    async with AsyncExitStack() as under_way:
        asking = [asyncio.ensure_future(client.ask(STREAM, model="one")) for _ in range(2)]
        under_way.callback(lambda: [each.cancel() for each in asking])
        await client.simulator.until("openai.live==2")

        assert (await completed(client, "both"))["provider"] == "gemini"
        refused = await client.ask(path, model="one")

        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert b"has as many calls open as it may" in refused.raw or path == CHAT
        assert await total(client, "sse_provider_attempts_total", **labels) == before
    await client.simulator.until("openai.live==0")
