"""What DeepSeek and Gemini do otherwise than OpenAI."""

import time

import pytest

from tests.app.asking import CHAT, STREAM, connected, of_type, question, text
from tests.failover.asking import CATALOGUE, ask, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def failing_service(simulation):
    settings = {"WEIR_FIRST_TOKEN_TIMEOUT_S": "0.5", "WEIR_STALL_TIMEOUT_S": "20", "WEIR_HEARTBEAT_S": "30"}
    with serving(simulation, WEIR_CATALOGUE=CATALOGUE, **settings) as running:
        yield running


async def test_signs_of_life_do_not_hold_off_the_deadline_of_the_first_token(client):
    """DeepSeek says that it is alive for as long as it has not begun: the next route could have answered."""
    client.simulator.behave("deepseek", queued_s=20, keepalive_ms=20)
    query, began_s = question(), time.monotonic()

    told = await ask(client, "deepseek", "named", query)

    assert (told.text, told.changes) == (expected(query), ("failover",))
    assert time.monotonic() - began_s < 5


async def test_thoughts_are_passed_on(service, simulator):
    """In OpenAI's form beside the content, as DeepSeek has them."""
    async with connected(service.url) as client:
        stream = await client.ask(CHAT, model="deepseek-reasoner")
        whole = await client.ask(CHAT, model="deepseek-reasoner", stream=False)

    deltas = [event.json["choices"][0]["delta"] for event in stream.events[:-1] if event.json["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert whole.json()["choices"][0]["message"]["reasoning_content"]
    assert simulator.counters("deepseek")["finished"] == 2


async def test_a_safety_block_is_told_with_its_reason(client):
    """It is about the prompt: no other route is asked."""
    client.simulator.behave("gemini", blocked=True)
    told = (await client.ask(STREAM, model="gemini-first")).events[-1].json
    whole = await client.ask(CHAT, model="gemini-first", stream=False)

    assert (told["code"], told["status"], whole.status) == ("provider_rejected", 400, 400)
    assert whole.json()["error"]["code"] == "provider_rejected"
    for reason in (told["detail"], whole.json()["error"]["message"]):
        assert "PROHIBITED_CONTENT" in reason
    assert client.simulator.counters("openai")["calls"] == 0


async def test_gemini_needs_no_end_mark(client):
    """Its answer has ended when its body has: nobody waits for a mark that does not come."""
    query, began_s = question(), time.monotonic()

    stream = await client.ask(STREAM, query, model="gemini-first")

    assert text(stream.events) == expected(query)
    assert of_type(stream.events, "complete")[0].json["provider"] == "gemini"
    assert time.monotonic() - began_s < 5
