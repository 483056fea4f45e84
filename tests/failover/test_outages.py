"""One provider is out of order and a healthy one stands behind it: nobody notices, and it is left alone."""

import asyncio
import time

import pytest

from tests.app import metrics
from tests.app.asking import connected, question
from tests.failover.asking import CATALOGUE, ask, circuit, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

REQUESTS, CONCURRENCY = 500, 32
OPEN_S = 60
SETTINGS = {
    "WEIR_CATALOGUE": CATALOGUE,
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "0.5",
    "WEIR_STALL_TIMEOUT_S": "0.5",
    "WEIR_BREAKER_FAILURES": "5",
    "WEIR_BREAKER_WINDOW": "10",
    "WEIR_RETRY_BUDGET_RATIO": "0.2",
}
OUTAGES = {"refusing": {"off": True}, "answering 500": {"fault": "500"}, "silent": {"fault": "silence_headers"}}


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, **SETTINGS, WEIR_BREAKER_OPEN_S=str(OPEN_S)) as running:
        yield running


def behave(client, provider, behaviour):
    if behaviour.get("off"):
        client.simulator.control("POST", f"/providers/{provider}/off")
    else:
        client.simulator.behave(provider, **behaviour)


async def wrong_answers(client, first, count=REQUESTS):
    """What was not the whole answer, of so many questions, CONCURRENCY at once."""
    wrong, queries = [], iter([question() for _ in range(count)])

    async def asker():
        for query in queries:
            told = await ask(client, first, "named", query)
            if (told.code, told.text) != (None, expected(query)) or not told.is_ended_well:
                wrong.append(told)

    await asyncio.gather(*(asker() for _ in range(CONCURRENCY)))
    return wrong


@pytest.mark.parametrize("first", ["openai", "gemini"])
@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_of_one_is_noticed_by_nobody_and_it_is_left_alone(client, outage, first):
    """All answers are whole; once its circuit is open, the dead route is not called any more."""
    behave(client, first, OUTAGES[outage])
    labels = {"provider": first}
    before = await metrics.total(client, "sse_provider_attempts_total", **labels)

    wrong = await wrong_answers(client, first)
    while_opening = await metrics.total(client, "sse_provider_attempts_total", **labels) - before
    wrong += await wrong_answers(client, first, 100)
    after = await metrics.total(client, "sse_provider_attempts_total", **labels) - before

    assert wrong == []
    assert (await circuit(client, first))["state"] == "open"
    assert while_opening <= 2 * CONCURRENCY  # those that were under way when it opened
    assert after == while_opening


async def test_while_it_is_out_one_probe_at_a_time_asks_it(simulator):
    """And when it is back, it is asked first again."""
    with serving(simulator, **SETTINGS, WEIR_BREAKER_OPEN_S="0.5") as service:
        async with connected(service.url) as client:
            client.simulator = simulator
            simulator.behave("openai", fault="500")
            wrong = await wrong_answers(client, "openai", 100)
            called = simulator.counters("openai")["calls"]
            began_s = time.monotonic()
            while time.monotonic() - began_s < 2.0:
                wrong += await wrong_answers(client, "openai", 50)
            probes = simulator.counters("openai")["calls"] - called
            spent_s = time.monotonic() - began_s
            simulator.reset()
            while simulator.counters("openai")["finished"] < 200:
                wrong += await wrong_answers(client, "openai", 50)
            state = await circuit(client, "openai")

    assert wrong == []
    assert 1 <= probes <= spent_s / 0.5 + 1
    assert state["state"] == "closed"


async def test_a_provider_that_comes_and_goes_costs_nobody_an_answer(simulator):
    """Down, up, down, up: whoever asks has the whole answer, and it is used again soon after each time."""
    with serving(simulator, **SETTINGS, WEIR_BREAKER_OPEN_S="0.3") as service:
        async with connected(service.url) as client:
            client.simulator = simulator
            wrong = []
            for _ in range(3):
                simulator.control("POST", "/providers/openai/off")
                wrong += await wrong_answers(client, "openai", 150)
                simulator.control("POST", "/providers/openai/on")
                back = simulator.counters("openai")["finished"] + 50
                while simulator.counters("openai")["finished"] < back:
                    wrong += await wrong_answers(client, "openai", 50)

    assert wrong == []


async def test_who_asks_while_all_are_out_is_told_when_to_come_back(client):
    """In the header too, since nothing has been sent."""
    for provider in ("openai", "deepseek", "gemini"):
        client.simulator.behave(provider, fault="429", retry_after_s=40)
    await ask(client, "openai", "whole")

    refused = [await ask(client, "openai", form) for form in ("named", "whole")]
    response = await client.send("POST", "/v1/stream", json={"model": "openai-first", "query": question()})

    assert [(told.status, told.code) for told in refused] == [(503, "all_providers_down")] * 2
    assert 30 < int(response.headers["retry-after"]) <= 40
    assert 30 < response.json()["retry_after_s"] <= 40
    assert [client.simulator.counters(name)["calls"] for name in ("openai", "deepseek", "gemini")] == [1, 1, 1]
