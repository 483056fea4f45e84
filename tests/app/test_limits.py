"""What keys' own limits do, through real HTTP."""

import asyncio
import json

import openai
import pytest

from domain.limiting import Rate
from infrastructure.memory.key_file import change_keys
from tests.api_keys import api_key
from tests.app.asking import CHAT, MODEL, STREAM, connected, question
from tests.serving import serving

pytestmark = pytest.mark.anyio

KEYS = {
    "standard": {},
    "quick": {"user": "bob", "rate": Rate(amount=7, per_s=60.0)},
    "quick too": {"user": "bob", "rate": Rate(amount=7, per_s=60.0)},
    "few tokens": {"user": "cy", "tokens_per_minute": 1200},
    "sdk": {"user": "eve", "tokens_per_minute": 1200},
    "poor": {"user": "dee", "budget_usd_per_day": 0.0001},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return {name: api_key(**changes) for name, changes in KEYS.items()}


@pytest.fixture(scope="module")
def limited(simulation, texts, tmp_path_factory):
    """A service with limits, and those keys."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    change_keys(path, lambda _: {key.key_id: key for key, _ in texts.values()})
    with serving(simulation, WEIR_API_KEYS_FILE=str(path), WEIR_RATE_STANDARD="100/minute") as service:
        yield service


@pytest.fixture
def key_of(texts):
    return lambda name: texts[name][1]


@pytest.fixture
async def ask(limited, simulator, key_of):
    """Ask with the key of that name."""
    async with connected(limited.url) as client:

        async def asking(name, query=None, path=STREAM, **fields):
            return await client.ask(path, query, {"Authorization": f"Bearer {key_of(name)}"}, **fields)

        yield asking


async def test_a_key_has_its_tiers_limit_or_its_own(ask):
    """And its user's keys of the same rate share that."""
    tiers, own, shared = await ask("standard"), await ask("quick"), await ask("quick too")

    assert tiers.headers["ratelimit-policy"] == '"standard";q=100;w=60'
    assert own.headers["ratelimit-policy"] == '"standard";q=7;w=60'
    assert [each.headers["x-ratelimit-remaining-requests"] for each in (tiers, own, shared)] == ["99", "6", "5"]


async def test_nothing_tells_a_caller_what_another_has_spent(ask):
    """Who is served what somebody else has asked is told of its own limits."""
    query = question()
    await ask("quick", query)

    hit = await ask("standard", query)

    assert hit.headers["x-cache"] == "l1"
    assert hit.headers["ratelimit-policy"] == '"standard";q=100;w=60'
    assert int(hit.headers["x-ratelimit-remaining-requests"]) >= 98


async def test_a_key_may_be_limited_in_tokens(ask):
    """Beside requests; a refusal has the headers of both."""
    first = await ask("few tokens", max_tokens=1150)
    assert first.status == 200

    statuses = [(await ask("few tokens", max_tokens=1150)) for _ in range(2)]

    over = statuses[-1]
    assert over.status == 429
    assert "1200 tokens a minute are allowed" in over.json()["detail"]
    assert over.headers["x-ratelimit-limit-tokens"] == "1200"
    assert 1 <= int(over.headers["retry-after"]) <= 60


async def test_a_days_budget_ends_at_midnight(ask):
    """A refusal says how much is left and when there is more; what is stored is served all the same."""
    query = question()
    assert (await ask("poor", query)).status == 200

    over = await ask("poor", path=CHAT, max_tokens=100_000)
    hit = await ask("poor", query)

    assert (over.status, hit.status) == (429, 200)
    error = json.loads(over.raw)["error"]
    assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
    assert "USD are left of the day's budget, and this request may cost 0.2500; a new day begins" in error["message"]
    assert 1 <= int(over.headers["retry-after"]) <= 86_400


async def test_openais_sdk_reads_the_limits(limited, simulator, key_of):
    """As from OpenAI itself."""
    async with openai.AsyncOpenAI(base_url=f"{limited.url}/v1", api_key=key_of("sdk"), max_retries=0) as client:
        messages = [{"role": "user", "content": question()}]
        asked = [
            client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1150, seed=seed)
            for seed in (1, 2)
        ]
        ends = await asyncio.gather(*asked, return_exceptions=True)

    [refusal] = [end for end in ends if isinstance(end, openai.RateLimitError)]
    headers = refusal.response.headers
    assert headers["x-ratelimit-limit-tokens"] == "1200"
    assert headers["x-ratelimit-reset-tokens"].endswith("s")
