"""What goes wrong upstream is mended or told, once and in the route's own words."""

import pytest

from tests.app.asking import CHAT, STREAM, connected, of_type, question, statuses, text
from tests.serving import KEY, serving

pytestmark = pytest.mark.anyio
PROVIDERS = ("openai", "deepseek", "gemini")
MIDSTREAM = pytest.mark.parametrize(
    "fault", ["cut", "reset_midstream", "stall", "malformed", "error_event", "no_finish"]
)


@pytest.fixture(scope="module")
def hasty_service(simulation):
    """A service that waits shortly for providers, long before it commits to a stream, and goes on with none."""
    settings = {"WEIR_FIRST_TOKEN_TIMEOUT_S": "0.2", "WEIR_STALL_TIMEOUT_S": "0.2", "WEIR_HEARTBEAT_S": "30"}
    with serving(simulation, **settings, WEIR_MIDSTREAM="fail") as running:
        yield running


@pytest.fixture
async def hasty(hasty_service, simulator):
    async with connected(hasty_service.url) as each:
        each.simulator = simulator
        yield each


def all_behave(client, **behaviour):
    for provider in PROVIDERS:
        client.simulator.behave(provider, **behaviour)


async def test_a_failure_before_the_first_token_is_retried_and_said(client):
    """On the same provider, with the reason."""
    client.simulator.behave("openai", fault="503", times=2)
    events = (await client.ask(STREAM)).events

    assert statuses(events) == ["validated", "selected", "retrying", "retrying"]
    retrying = of_type(events, "status")[2].json
    assert (retrying["from"], retrying["to"]) == ("openai", "openai")
    assert retrying["reason"]
    assert events[-1].type == "complete"
    assert [event.number for event in events] == list(range(len(events)))


async def test_a_provider_that_is_off_is_passed_over_and_that_is_said(client):
    """The answer names the one that gave it."""
    client.simulator.control("POST", "/providers/openai/off")
    events = (await client.ask(STREAM)).events
    failover = of_type(events, "status")[-1].json

    assert (failover["status"], failover["from"], failover["to"]) == ("failover", "openai", "deepseek")
    assert failover["model"] == "deepseek-chat"
    assert (events[-1].json["provider"], events[-1].json["model"]) == ("deepseek", "deepseek-chat")


async def test_openais_form_names_the_model_that_answered(client):
    """Not the one that was asked for."""
    client.simulator.control("POST", "/providers/openai/off")
    events = (await client.ask(CHAT)).events

    assert {event.json["model"] for event in events[:-1]} == {"deepseek-chat"}
    assert events[-1].data == "[DONE]"


@MIDSTREAM
async def test_a_stream_that_is_cut_short_ends_in_an_error_event(hasty, fault):
    """An answer that is not whole is never presented as whole."""
    hasty.simulator.behave("openai", fault=fault, at=3)
    events = (await hasty.ask(STREAM)).events
    error = events[-1].json

    assert (events[-1].type, error["code"], error["status"]) == ("error", "stream_interrupted", 502)
    assert not of_type(events, "complete")
    assert error["retryable"] is True
    assert [attempt["provider"] for attempt in error["attempts"]] == ["openai"]
    assert set(error) >= {"type", "title", "detail", "thread_id", "retry_after_s"}
    assert len(of_type(events, "chunk")) == 3
    assert [event.number for event in events] == list(range(len(events)))


@MIDSTREAM
async def test_in_openais_form_it_ends_in_an_error_and_no_done(hasty, fault):
    """So that an SDK raises, and does not return half an answer."""
    hasty.simulator.behave("openai", fault=fault, at=3)
    stream = await hasty.ask(CHAT)

    assert stream.events[-1].json["error"]["code"] == "stream_interrupted"
    assert b"[DONE]" not in stream.raw
    assert b'finish_reason":"stop' not in stream.raw


@MIDSTREAM
async def test_half_an_answer_is_no_answer_to_who_waits_for_the_whole(hasty, fault):
    """The status says it."""
    hasty.simulator.behave("openai", fault=fault, at=3)
    response = await hasty.ask(CHAT, stream=False)

    assert (response.status, response.json()["error"]["code"]) == (502, "stream_interrupted")


@MIDSTREAM
async def test_what_was_cut_short_is_not_stored(hasty, fault):
    """The next one who asks gets a whole answer."""
    query = question()
    hasty.simulator.behave("openai", fault=fault, at=3, times=1)
    await hasty.ask(STREAM, query)
    again = await hasty.ask(STREAM, query)

    assert again.headers["x-cache"] == "miss"
    assert again.events[-1].type == "complete"


async def test_all_providers_down_is_told_with_each_attempt(hasty):
    """Whose fault it is, and what each one said."""
    all_behave(hasty, fault="503")
    native = (await hasty.ask(STREAM)).events[-1]
    streamed = await hasty.ask(CHAT)
    whole = await hasty.ask(CHAT, stream=False)

    assert (native.type, native.json["code"], native.json["status"]) == ("error", "all_providers_down", 503)
    assert {attempt["provider"] for attempt in native.json["attempts"]} == set(PROVIDERS)
    for response in (streamed, whole):
        error = response.json()["error"]
        assert (response.status, error["code"], error["type"]) == (503, "all_providers_down", "server_error")
        assert {attempt["provider"] for attempt in error["attempts"]} == set(PROVIDERS)
        assert response.headers["x-thread-id"]


@pytest.mark.parametrize("fault", ["silence_headers", "silence_first_token"])
async def test_providers_that_are_all_silent_are_a_timeout(hasty, fault):
    """Which is not the same as being down."""
    all_behave(hasty, fault=fault)
    native = (await hasty.ask(STREAM)).events[-1]
    streamed = await hasty.ask(CHAT)
    whole = await hasty.ask(CHAT, stream=False)

    assert (native.type, native.json["code"], native.json["status"]) == ("error", "upstream_timeout", 504)
    for response in (streamed, whole):
        assert (response.status, response.json()["error"]["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize(("fault", "status"), [("context_length", 400), ("400", 400), ("422", 422)])
async def test_what_the_provider_refuses_is_not_tried_elsewhere(hasty, fault, status):
    """Another provider would refuse it too; its reason is passed on."""
    all_behave(hasty, fault=fault)
    native = (await hasty.ask(STREAM)).events[-1]
    whole = await hasty.ask(CHAT, stream=False)

    assert (native.type, native.json["code"], native.json["status"]) == ("error", "provider_rejected", status)
    assert native.json["retryable"] is False
    assert (whole.status, whole.json()["error"]["code"]) == (status, "provider_rejected")
    assert hasty.simulator.counters("openai")["calls"] == 2
    assert hasty.simulator.counters("deepseek")["calls"] == 0


async def test_after_a_heartbeat_a_failure_is_an_event_in_openais_form_too(client):
    """The status was sent already."""
    all_behave(client, fault="503", ttft_s=0.4)
    stream = await client.ask(CHAT)

    assert stream.status == 200
    assert stream.comments
    assert stream.events[-1].json["error"]["code"] == "all_providers_down"
    assert b"[DONE]" not in stream.raw


@pytest.mark.parametrize("fault", ["401", "403", "quota"])
async def test_a_key_that_is_refused_is_told_without_the_key(hasty, hasty_service, fault):
    """It is our misconfiguration: the client learns who failed, and nothing of our secrets."""
    all_behave(hasty, fault=fault)
    native = await hasty.ask(STREAM)
    whole = await hasty.ask(CHAT, stream=False)

    assert (whole.status, whole.json()["error"]["code"]) == (503, "all_providers_down")
    assert len(whole.json()["error"]["attempts"]) >= len(PROVIDERS)
    assert native.events[-1].json["code"] == "all_providers_down"
    for told in (native.raw.decode(), whole.raw.decode(), hasty_service.log()):
        assert KEY[-8:] not in told
        assert KEY[:8] not in told


async def test_a_filtered_answer_is_whole_but_not_kept(client):
    """The filter may think otherwise next time."""
    query = question()
    client.simulator.behave("openai", blocked=True, at=3)
    first = await client.ask(STREAM, query)
    again = await client.ask(STREAM, query)

    assert first.events[-1].json["finish_reason"] == "content_filter"
    assert text(first.events)
    assert again.headers["x-cache"] == "miss"


async def test_prompts_and_answers_are_not_in_the_log(client, service):
    """Unless an operator asks for them."""
    stream = await client.ask(STREAM, "a question that must stay private")
    await client.send("GET", "/health/live")  # a line is written when the service's loop comes round

    assert "must stay private" not in service.log()
    assert text(stream.events)[:30] not in service.log()
    assert stream.headers["x-thread-id"] in service.log()


async def test_an_empty_answer_is_asked_for_elsewhere_and_never_kept(client):
    """A model may have nothing to say, but that one had none is not everybody's answer for an hour."""
    for provider in ("openai", "deepseek", "gemini"):
        client.simulator.behave(provider, fault="empty")
    query = question()
    events = (await client.ask(STREAM, query)).events

    assert (events[-1].type, text(events)) == ("complete", "")
    assert [client.simulator.counters(provider)["calls"] for provider in ("openai", "deepseek", "gemini")] == [1, 1, 0]
    client.simulator.reset()
    client.simulator.behave("openai", fault="empty")
    again = (await client.ask(STREAM, query)).events
    assert (again[-1].type, again[-1].json["cache"]) == ("complete", "miss")
    assert text(again)
    assert client.simulator.counters("openai")["calls"] == 1
