"""What DeepSeek and Gemini do otherwise than OpenAI."""

import time

import pytest

from tests.app.asking import CHAT, STREAM, connected, of_type, question, text
from tests.failover.asking import CATALOGUE, FORMS, ORDERS, ask, expected
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


async def test_empty_thoughts_do_not_hold_off_the_deadline_of_the_first_token_either(client):
    """DeepSeek's reasoners open with them before they have begun to think."""
    client.simulator.behave("deepseek", fault="stall", at=0)
    query, began_s = question(), time.monotonic()

    told = await ask(client, "reasoner", "named", query)

    assert (told.text, told.changes) == (expected(query), ("failover",))
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ORDERS)
async def test_a_connection_that_is_held_open_behind_the_whole_answer_delays_nothing(client, first, form):
    """Neither its end, nor its being kept: whoever asks again is answered from memory."""
    client.simulator.behave(first, fault="held_open")
    query, began_s = question(), time.monotonic()

    told = [await ask(client, first, form, query) for _ in range(2)]

    assert [(each.text, each.code, each.is_ended_well) for each in told] == [(expected(query), None, True)] * 2
    assert time.monotonic() - began_s < 5
    assert client.simulator.counters(first)["calls"] == 1
    await client.simulator.until(f"{first}.closed_by_client==1")


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_filter_says_of_text_that_it_lets_pass_is_passed_on_beside_it(client, form):
    """And is nothing of the answer: Azure says so with every token."""
    client.simulator.behave("openai", remarks=True)
    query = question()

    told = await ask(client, "openai", form, query)
    stream = await client.ask(CHAT, query, model="openai-first")

    assert (told.text, told.code) == (expected(query), None)
    choices = [choice for event in stream.events[:-1] for choice in event.json["choices"] if choice["delta"]]
    assert choices[-1]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}


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
