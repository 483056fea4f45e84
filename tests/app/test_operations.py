"""What operators' machines read: health, and metrics that move when they should."""

import pytest

from tests.app import metrics
from tests.app.asking import CHAT, MODEL, STREAM, connected, question
from tests.serving import serving

pytestmark = pytest.mark.anyio
PROVIDERS = ("openai", "deepseek", "gemini")


async def test_health_is_good_while_a_provider_can_be_used(client):
    """Live, ready, and all checks."""
    live, ready, health = [await client.send("GET", f"/health{path}") for path in ("/live", "/ready", "")]

    assert [response.status for response in (live, ready, health)] == [200, 200, 200]
    assert (live.json(), ready.json()) == ({"status": "live"}, {"status": "ready"})
    assert health.json()["status"] == "healthy"
    assert set(health.json()["checks"]["providers"]) == set(PROVIDERS)


async def test_with_all_circuits_open_it_is_not_ready_and_says_so(simulator):
    """503 to probes and to who asks; what is stored is served on."""
    with serving(simulator, WEIR_BREAKER_FAILURES="1", WEIR_BREAKER_WINDOW="1", WEIR_RETRY_ATTEMPTS="1") as service:
        async with connected(service.url) as client:
            query = question()
            await client.ask(STREAM, query)
            for provider in PROVIDERS:
                simulator.behave(provider, fault="500")
            await client.ask(STREAM)
            live, ready, health = [await client.send("GET", f"/health{path}") for path in ("/live", "/ready", "")]
            native, openai, stored = await client.ask(STREAM), await client.ask(CHAT), await client.ask(STREAM, query)
            states = [await metrics.total(client, "sse_circuit_state", provider=provider) for provider in PROVIDERS]
            opened = await metrics.total(client, "sse_circuit_transitions_total", to="open")

    assert (live.status, ready.status, health.status) == (200, 503, 503)
    assert health.json()["status"] == "unhealthy"
    assert {check["circuit"] for check in health.json()["checks"]["providers"].values()} == {"open"}
    assert (native.status, native.json()["code"]) == (503, "all_providers_down")
    assert (openai.status, openai.json()["error"]["code"]) == (503, "all_providers_down")
    assert {attempt["provider"] for attempt in native.json()["attempts"]} == set(PROVIDERS)
    assert (stored.status, stored.headers["x-cache"]) == (200, "l1")
    assert (states, opened) == ([2, 2, 2], 3)


async def test_metrics_are_prometheus_text(client):
    """With the version that is running."""
    response = await client.send("GET", "/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=")
    assert await metrics.total(client, "sse_build_info") == 1


async def ask_something_new(client):
    await client.ask(STREAM)


async def ask_twice(client):
    query = question()
    await client.ask(STREAM, query)
    await client.ask(STREAM, query)


async def follow(client):
    client.simulator.behave("openai", ttft_s=0.2)
    query = question()
    async with client.open(STREAM, query) as first:
        await first.until(lambda _: True)
        await client.ask(STREAM, query)


async def fail_over(client):
    client.simulator.control("POST", "/providers/openai/off")
    await client.ask(STREAM)


async def ask_for_nothing(client):
    await client.send("POST", STREAM, data=b"{}", headers={"content-type": "application/json"})


async def ask_elsewhere(client):
    await client.send("GET", "/nowhere")


MOVES = [
    (ask_something_new, "sse_requests_total", {"method": "POST", "endpoint": STREAM, "status": "200"}, 1),
    (ask_for_nothing, "sse_requests_total", {"method": "POST", "endpoint": STREAM, "status": "400"}, 1),
    (ask_elsewhere, "sse_requests_total", {"endpoint": "unmatched", "status": "404"}, 1),
    (ask_something_new, "sse_request_duration_seconds_count", {"endpoint": STREAM}, 1),
    (ask_something_new, "sse_stage_duration_seconds_count", {"stage": "1"}, 1),
    (ask_something_new, "sse_stage_duration_seconds_count", {"stage": "2.1"}, 1),
    (ask_something_new, "sse_stage_duration_seconds_count", {"stage": "5"}, 1),
    (ask_something_new, "sse_stage_duration_seconds_count", {"stage": "6"}, 1),
    (ask_something_new, "sse_time_to_first_token_seconds_count", {"provider": "openai", "cache": "miss"}, 1),
    (ask_twice, "sse_time_to_first_token_seconds_count", {"cache": "l1"}, 1),
    (ask_something_new, "sse_cache_misses_total", {}, 1),
    (ask_twice, "sse_cache_hits_total", {"tier": "l1"}, 1),
    (follow, "sse_coalesced_total", {}, 1),
    (ask_something_new, "sse_provider_attempts_total", {"provider": "openai", "outcome": "ok"}, 1),
    (fail_over, "sse_provider_attempts_total", {"provider": "openai", "outcome": "unavailable"}, 3),
    (fail_over, "sse_failovers_total", {"from": "openai", "to": "deepseek"}, 1),
    (ask_something_new, "sse_tokens_total", {"provider": "openai", "direction": "out"}, 25),
]


@pytest.mark.parametrize(("act", "name", "labels", "step"), MOVES, ids=lambda value: getattr(value, "__name__", None))
async def test_a_metric_moves_by_what_happened(client, act, name, labels, step):
    """Dashboards and alerts are built on it."""
    before = await metrics.total(client, name, **labels)
    await act(client)

    await metrics.until(client, name, lambda value: value == before + step, **labels)


@pytest.mark.parametrize(
    ("act", "name"), [(ask_something_new, "sse_cost_usd_total"), (ask_twice, "sse_saved_usd_total")]
)
async def test_money_is_counted(client, act, name):
    """What was paid, and what was not."""
    before = await metrics.total(client, name)
    await act(client)

    await metrics.until(client, name, lambda value: value > before)


async def test_live_streams_are_counted_while_they_live(client):
    """And not after."""
    client.simulator.behave("openai", fault="stall", at=1)
    async with client.open(STREAM) as stream:
        await stream.chunks(1)
        assert await metrics.total(client, "sse_active_connections") == 1

    await metrics.until(client, "sse_active_connections", lambda live: live == 0)


async def test_refusals_for_want_of_room_are_counted(simulator):
    """By the limit that refused, and by tier."""
    simulator.behave("openai", fault="stall", at=1)
    settings = {"WEIR_MAX_CONNECTIONS_PER_USER": "1", "WEIR_RATE_ANONYMOUS": "1/hour", "WEIR_GRACE_S": "0"}
    with serving(simulator, **settings) as service:
        async with connected(service.url) as client:
            async with client.open(STREAM) as stream:
                await stream.chunks(1)
                await client.ask(STREAM)
            await metrics.until(client, "sse_active_connections", lambda live: live == 0)
            await client.ask(STREAM)
            refused = await metrics.total(client, "sse_connections_rejected_total", reason="too_many_connections")
            limited = await metrics.total(client, "sse_rate_limit_exceeded_total", tier="anonymous")
            checked = await metrics.total(client, "sse_rate_limit_checks_total", path="local")

    assert (refused, limited, checked) == (1, 1, 2)


async def test_no_label_has_a_thread_or_a_path_of_the_clients_making(client):
    """Labels that grow with traffic bring Prometheus down."""
    await client.ask(STREAM, headers={"X-Thread-ID": "thread-in-no-label"})
    await client.send("GET", "/v1/streams/stream-in-no-label")
    await client.send("GET", "/path-in-no-label")
    await client.ask(STREAM, model="model-in-no-label")
    labels = {value for _, labels in await metrics.samples(client) for _, value in labels}

    assert not any("in-no-label" in value for value in labels)
    assert MODEL not in labels
