"""What every stream promises: its headers, its numbers, its order, its one end."""

import json
import re

import pytest

from tests.app.asking import CHAT, MODEL, STREAM, connected, of_type, question, statuses, text
from tests.serving import serving
from tests.sse_parser import Comment

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])


def check_stream_headers(headers, cache):
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-cache"] == cache
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", headers["x-stream-id"])
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", headers["x-thread-id"])


def check_numbers(events, first=0):
    """Ids have no gap and no repeat."""
    assert [event.number for event in events] == list(range(first, first + len(events)))


def check_whole(events):
    """A native stream that is whole: one end, which is last and counts right."""
    chunks = of_type(events, "chunk")
    assert [chunk.json["chunk_index"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [event.type for event in events if event.type in {"complete", "error"}] == ["complete"]
    assert events[-1].type == "complete"
    assert events[-1].json["chunk_count"] == len(chunks)
    assert [chunk.json["finish_reason"] for chunk in chunks][-1] == events[-1].json["finish_reason"] == "stop"


@BOTH
async def test_live_and_stored_streams_have_the_contracts_headers(client, path):
    """Proxies, caches and clients are told the same by every stream."""
    query = question()
    live = await client.ask(path, query)
    stored = await client.ask(path, query)

    check_stream_headers(live.headers, "miss")
    check_stream_headers(stored.headers, "l1")
    assert "age" not in live.headers
    assert re.fullmatch("[0-9]+", stored.headers["age"])
    assert live.stream_id == stored.stream_id


@BOTH
async def test_the_clients_thread_id_is_echoed_and_otherwise_one_is_made(client, path):
    """It is what the log is searched for."""
    given = await client.ask(path, headers={"X-Thread-ID": "Order-4711:a.b_c"})
    made = await client.ask(path)

    assert given.headers["x-thread-id"] == "Order-4711:a.b_c"
    assert made.headers["x-thread-id"] not in {"", given.headers["x-thread-id"]}


async def test_the_thread_id_may_be_in_the_body(client):
    """For clients that cannot set headers."""
    stream = await client.ask(STREAM, thread_id="from-the-body")

    assert stream.headers["x-thread-id"] == "from-the-body"
    assert stream.events[0].json["thread_id"] == stream.events[-1].json["thread_id"] == "from-the-body"


async def test_a_live_stream_is_numbered_from_0_and_ends_once(client):
    """So that Last-Event-ID says exactly what was seen."""
    stream = await client.ask(STREAM)
    first, *_, last = stream.events

    check_numbers(stream.events)
    check_whole(stream.events)
    assert first.json == {
        "status": "validated",
        "thread_id": stream.headers["x-thread-id"],
        "stream_id": stream.stream_id,
    }
    assert stream.events[1].json == {"status": "selected", "provider": "openai", "model": MODEL}
    assert last.json["thread_id"] == stream.headers["x-thread-id"]
    assert last.json["stream_id"] == stream.stream_id
    assert (last.json["provider"], last.json["model"], last.json["cache"]) == ("openai", MODEL, "miss")
    assert b"\r" not in stream.raw


async def test_the_end_says_what_it_took(client):
    """Tokens as the provider counted them, dollars by the catalogue, milliseconds."""
    last = (await client.ask(STREAM, "one two three four")).events[-1].json

    assert {name: last["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
        "prompt_tokens": 4,
        "completion_tokens": 25,
        "total_tokens": 29,
    }
    assert last["cost_usd"] == pytest.approx(4 * 0.15e-6 + 25 * 0.60e-6)
    assert last["saved_usd"] == 0
    assert 0 < last["ttft_ms"] <= last["duration_ms"]


async def test_a_stored_answer_is_the_live_one_under_its_own_first_events(client):
    """The text, its numbers and its chunks are the same; it cost nothing and saved what the first one cost."""
    query = question()
    live, stored = await client.ask(STREAM, query), await client.ask(STREAM, query)

    check_numbers(stored.events)
    check_whole(stored.events)
    assert stored.events[1].json == {"status": "cache_hit", "tier": "l1"}
    assert stored.events[2:-1] == live.events[2:-1]
    assert stored.events[-1].json["cache"] == "l1"
    assert stored.events[-1].json["cost_usd"] == 0
    assert stored.events[-1].json["saved_usd"] == live.events[-1].json["cost_usd"] > 0


async def test_openais_form_is_one_completion_in_chunks_and_done(client):
    """One id, created and model throughout; the role first, the finish reason last, [DONE] at the end."""
    stream = await client.ask(CHAT)
    *chunks, done = stream.events
    bodies = [chunk.json for chunk in chunks]

    assert done.data == "[DONE]"
    assert {(body["object"], body["id"], body["created"], body["model"]) for body in bodies} == {
        ("chat.completion.chunk", f"chatcmpl-{stream.stream_id}", bodies[0]["created"], MODEL)
    }
    assert bodies[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in body["choices"][0]["delta"] for body in bodies[1:])
    assert [body["choices"][0]["finish_reason"] for body in bodies] == [None] * (len(bodies) - 1) + ["stop"]
    assert not any("usage" in body for body in bodies)
    assert {event.type for event in stream.events} == {"message"}


async def test_usage_comes_as_a_last_chunk_when_it_is_asked_for(client):
    """OpenAI: null in all chunks, then one without choices."""
    stream = await client.ask(CHAT, stream_options={"include_usage": True})
    *chunks, usage, done = stream.events

    assert done.data == "[DONE]"
    assert usage.json["choices"] == []
    assert usage.json["usage"]["completion_tokens"] == 25
    assert all(chunk.json["usage"] is None for chunk in chunks)


async def test_the_two_forms_and_the_whole_object_say_the_same(client):
    """One answer, paid once: asked natively, it is a hit in OpenAI's form."""
    query = question()
    native = await client.ask(STREAM, query)
    chunks = await client.ask(CHAT, query)
    whole = await client.ask(CHAT, query, stream=False)

    assert (chunks.headers["x-cache"], whole.headers["x-cache"]) == ("l1", "l1")
    assert text(native.events) == text(chunks.events) == whole.json()["choices"][0]["message"]["content"] != ""
    assert client.simulator.counters("openai")["calls"] == 1


async def test_a_whole_answer_is_one_object(client):
    """As OpenAI's, with the thread and stream in headers."""
    response = await client.ask(CHAT, stream=False)
    body = response.json()

    assert response.status == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["cache-control"] == "no-store"
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 25


@BOTH
async def test_silence_is_filled_with_comments_between_events(client, path):
    """So that nothing on the way takes the connection for dead."""
    client.simulator.behave("openai", ttft_s=0.7, tokens=3)
    stream = await client.ask(path)

    assert len(stream.comments) >= (2 if path == STREAM else 1)
    assert all(comment.is_between_events for comment in stream.comments)
    assert text(stream.events)


async def test_a_stream_without_silence_has_no_comments(client):
    """They are for silence alone."""
    assert not (await client.ask(STREAM)).comments


async def test_openais_form_begins_when_a_heartbeat_is_due(client):
    """Until then a failure is still an HTTP status; later the client must hear something."""
    client.simulator.behave("openai", ttft_s=0.8, tokens=3)
    async with client.open(CHAT) as stream:
        assert stream.status == 200
        assert client.simulator.counters("openai") | {"live": 1, "tokens": 0} == client.simulator.counters("openai")
        assert isinstance(await stream.until(lambda _: True), Comment)
        await stream.all()

    assert stream.events[-1].data == "[DONE]"


async def test_reasoning_is_passed_on_in_both_forms(client):
    """What Weir does not interpret arrives unchanged."""
    query = question()
    native = await client.ask(STREAM, query, model="deepseek-reasoner")
    chunks = await client.ask(CHAT, query, model="deepseek-reasoner")
    thoughts = [event.json.get("reasoning_content") or "" for event in of_type(native.events, "chunk")]
    deltas = [event.json["choices"][0]["delta"] for event in chunks.events[:-1]]

    assert "".join(thoughts) == "".join(delta.get("reasoning_content") or "" for delta in deltas) != ""


async def test_the_models_are_the_catalogues(client):
    """In OpenAI's form."""
    response = await client.send("GET", "/v1/models")
    models = {model["id"]: model for model in response.json()["data"]}

    assert models[MODEL] | {"created": 0} == {"id": MODEL, "object": "model", "created": 0, "owned_by": "openai"}
    assert {"deepseek-chat", "gemini-2.5-flash"} <= set(models)


STRUCTURED_FIELD = re.compile(r'"(?P<name>[^"\\]*)"(?P<parameters>(;[a-z]+=[0-9]+)*)')


def structured(field):
    """A list of one string with integer parameters (RFC 9651, sections 3.1 and 3.3), taken apart."""
    matched = STRUCTURED_FIELD.fullmatch(field)
    assert matched, field
    parts = (part.split("=") for part in matched["parameters"].split(";") if part)
    return matched["name"], {name: int(number) for name, number in parts}


async def test_a_limit_is_told_in_both_ways_and_counts_down(simulator):
    """By the draft's fields and by OpenAI's; who is served from the cache spends nothing."""
    with serving(simulator, WEIR_RATE_ANONYMOUS="2/minute") as limited:
        async with connected(limited.url) as client:
            query = question()
            first, hit, second, over = [await client.ask(STREAM, each) for each in (query, query, None, None)]

    assert [each.status for each in (first, hit, second, over)] == [200, 200, 200, 429]
    assert structured(first.headers["ratelimit-policy"]) == ("anonymous", {"q": 2, "w": 60})
    for response, remaining in ((first, 1), (hit, 1), (second, 0), (over, 0)):
        name, left = structured(response.headers["ratelimit"])
        assert (name, left["r"]) == ("anonymous", remaining)
        assert 0 < left["t"] <= 30
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        assert response.headers["x-ratelimit-remaining-requests"] == str(remaining)
        assert re.fullmatch("[0-9]+s|1m0s", response.headers["x-ratelimit-reset-requests"])
    assert structured(over.headers["ratelimit"])[1]["t"] <= int(over.headers["retry-after"]) <= 30
    assert json.loads(over.raw)["code"] == "rate_limited"
    assert statuses(hit.events) == ["validated", "cache_hit"]


async def test_tokens_a_minute_are_told_beside_requests_and_refused_by_name(simulator):
    """What an answer may take is taken at its start; at its end it has taken what the provider counted."""
    settings = {"WEIR_RATE_ANONYMOUS": "100/minute", "WEIR_TOKENS_PER_MINUTE_ANONYMOUS": "2000"}
    with serving(simulator, **settings) as limited:
        async with connected(limited.url) as client:
            first = await client.ask(STREAM, max_tokens=1900)
            second = await client.ask(STREAM, max_tokens=1900)
            async with client.open(STREAM, max_tokens=1500):
                over = await client.ask(STREAM, max_tokens=1500)

    assert [each.status for each in (first, second, over)] == [200, 200, 429]
    assert (
        first.headers["ratelimit-policy"] == '"anonymous";q=100;w=60, "anonymous-tokens";q=2000;w=60;weir-unit="tokens"'
    )
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 100
    assert re.fullmatch('"anonymous";r=97;t=1, "anonymous-tokens";r=[0-9]+;t=1', over.headers["ratelimit"])
    assert json.loads(over.raw)["detail"].startswith("2000 tokens a minute are allowed, ")
    assert 1 <= int(over.headers["retry-after"]) <= 60
