"""OpenAI's words: what goes up and comes down unchanged, and where an answer ends."""

import asyncio
import json

import psutil
import pytest

from domain.chat import ChatRequest, Chunk, Usage
from domain.errors import ProviderMisconfigured, ProviderOverloaded, ProviderRejected, ProviderUnavailable, RouteUnfit
from domain.selection import Route
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.openai import OpenAIProvider
from infrastructure.providers.openai_chunks import OpenAIReader
from infrastructure.providers.sse import MAX_EVENT_BYTES
from infrastructure.providers.streams import read_stream, settle

pytestmark = pytest.mark.anyio

QUESTION = ({"role": "user", "content": "How does a weir work?", "name": "heron"},)
TOOL = {"type": "function", "function": {"name": "gauge", "parameters": {"type": "object"}}, "unheard_of": 1}
FINISHED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.fixture
async def provider(simulator):
    provider = OpenAIProvider(simulator.urls["openai"], "sk-test", 5.0)
    yield provider
    await provider.close()


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def said(content: str = "", *, finish: str | None = None, index: int = 0) -> dict:
    return {"choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}]}


async def body(*pieces: bytes, error: Exception | None = None):
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


async def endless(*pieces: bytes):
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


def connections() -> set[int]:
    return {each.laddr.port for each in psutil.Process().net_connections() if each.status == "ESTABLISHED"}


async def read(stream, choice_count: int = 1) -> list[Chunk]:
    reader = OpenAIReader("some-model", "sk-test")
    return [chunk async for chunk in read_stream(stream, reader, choice_count)]


async def ask(provider: OpenAIProvider, model: str, **options: object) -> list[Chunk]:
    request = ChatRequest(model="m", messages=QUESTION, options=options)
    async with provider.open(Route(provider="openai", model=model), request) as chunks:
        return [chunk async for chunk in chunks]


async def test_options_go_up_unchanged_and_a_stream_with_usage_is_always_asked(provider, simulator):
    """What Weir does not know is the provider's to judge."""
    options = {"tools": [TOOL], "tool_choice": "none", "unheard_of": {"a": [1, None]}, "temperature": 0.1, "seed": None}

    await ask(provider, "gpt-4o-mini", **options)

    delivery = {"stream": True, "stream_options": {"include_usage": True}}
    (call,) = simulator.calls("openai")
    assert call["body"] == {**options, "model": "gpt-4o-mini", "messages": list(QUESTION), **delivery}


async def test_the_pieces_of_a_tool_call_come_down_unchanged(provider):
    chunks = await ask(provider, "gpt-4o-mini@tool_call=true", tools=[TOOL])

    calls = [chunk.delta["tool_calls"][0] for chunk in chunks if chunk.delta]
    assert calls[0]["function"]["name"] == "gauge"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {}
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]


async def test_every_token_comes_once_and_in_order(provider):
    chunks = await ask(provider, "gpt-4o-mini@text=one two  three,gap_ms=0")

    assert "".join(chunk.content for chunk in chunks) == "one two  three"


@pytest.mark.parametrize(
    ("choice", "chunk"),
    [
        ({"delta": {"content": "a"}}, Chunk("a")),
        ({"delta": {"role": "assistant", "content": ""}}, None),
        ({"delta": {"role": "assistant", "content": None, "refusal": None}, "logprobs": None}, None),
        ({"delta": {}}, None),
        ({"delta": None, "finish_reason": "length", "index": 2}, Chunk(finish_reason="length", index=2)),
        ({"delta": {"role": "assistant", "content": None, "reasoning_content": ""}}, None),
        ({"delta": {"content": "", "tool_calls": [], "annotations": [], "audio": {}}}, None),
        ({"delta": {"content": "a", "tool_calls": []}, "content_filter_results": {}}, Chunk("a")),
        ({"delta": {"content": ""}, "logprobs": {"content": None, "refusal": []}}, None),
        ({"delta": {"flag": False, "count": 0}}, Chunk(delta={"flag": False, "count": 0})),
        (
            {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}},
            Chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
        ),
        ({"delta": {"reasoning_content": "hm"}}, Chunk(delta={"reasoning_content": "hm"})),
        ({"delta": {"refusal": "No."}}, Chunk(delta={"refusal": "No."})),
        ({"delta": {"content": "b"}, "message": {"role": "assistant", "content": "ab"}}, Chunk("b")),
        ({"delta": {"audio": {"id": "x"}, "content": "a"}}, Chunk("a", delta={"audio": {"id": "x"}})),
        (
            {"delta": {"content": "a"}, "logprobs": {"content": [{"logprob": -0.5}]}},
            Chunk("a", choice={"logprobs": {"content": [{"logprob": -0.5}]}}),
        ),
    ],
)
async def test_a_choice_becomes_a_chunk_and_loses_nothing(choice, chunk):
    *chunks, _ = await read(body(event({"choices": [choice]}), event(FINISHED)))

    assert chunks == ([] if chunk is None else [chunk])


async def test_an_empty_finish_reason_is_none():
    """Some compatible servers say it with every chunk, where OpenAI says null."""
    begun = {"choices": [{"delta": {"content": "a"}, "finish_reason": ""}]}

    assert await read(body(event(begun), event(FINISHED))) == [Chunk("a"), Chunk(finish_reason="stop")]
    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(body(event(begun)))


async def test_usage_keeps_its_details():
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    details = {"prompt_tokens_details": {"cached_tokens": 1}, "prompt_cache_hit_tokens": 1}

    chunks = await read(body(event(FINISHED), event({"choices": [], "usage": counts | details})))

    assert chunks[-1] == Chunk(usage=Usage(**counts, details=details))


@pytest.mark.parametrize("number", [-1, -(2**70), 2**31, 10**30, 1e30, -0.5, "-7", None])
async def test_a_number_that_cannot_be_a_count_of_tokens_is_none(number):
    """It would be priced, and counted in the metrics."""
    usage = {"prompt_tokens": number, "completion_tokens": 2, "total_tokens": number}

    chunks = await read(body(event(FINISHED), event({"choices": [], "usage": usage})))

    assert chunks[-1].usage == Usage(prompt_tokens=0, completion_tokens=2, total_tokens=2)


async def test_the_end_mark_is_the_end_though_the_body_goes_on():
    """Some servers keep the connection open behind it."""
    async with asyncio.timeout(5):
        assert await read(endless(event(FINISHED) + event(b"[DONE]"))) == [Chunk(finish_reason="stop")]


async def test_nothing_behind_the_end_mark_is_read():
    behind = event(b"[DONE]") + event(said("late")) + event(b"{broken")[:-1]

    assert await read(body(event(FINISHED) + behind)) == [Chunk(finish_reason="stop")]


@pytest.mark.parametrize("blank", [b"data:\n\n", b"data: \n\n", b"data\n\n", b"data:  \r\n\r\n"])
async def test_an_event_without_data_says_nothing(blank):
    """A sign of life of some servers."""
    assert await read(body(blank, event(FINISHED) + blank, event(b"[DONE]"))) == [Chunk(finish_reason="stop")]


@pytest.mark.parametrize("mark", [b"[DONE] ", b"  [DONE]", b"[DONE]\t"])
async def test_the_end_mark_may_have_blanks_around_it(mark):
    async with asyncio.timeout(5):
        assert await read(endless(event(FINISHED), event(mark))) == [Chunk(finish_reason="stop")]


async def test_a_break_behind_the_last_finish_reason_takes_nothing_away():
    assert await read(body(event(FINISHED), error=ConnectionResetError())) == [Chunk(finish_reason="stop")]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (body(event({"choices": [{"delta": {"content": "a"}}]})), "ended without a finish reason"),
        (body(error=ConnectionResetError()), "broke off the stream"),
        (body(event(b'{"choices":[{"del')), "sent a malformed event"),
        (body(event(b"[]")), "sent a malformed event"),
        (body(event(b'{"choices":[{"delta":{"x":' + b"[" * 100_000)), "sent a malformed event"),
        (body(b"data: " + bytes(MAX_EVENT_BYTES)), "sent a malformed event"),
        (body(event({"choices": [{"delta": "a"}]})), "sent a malformed event"),
        (body(event({"choices": [{"delta": {"content": ["a"]}}]})), "sent a malformed event"),
        (body(event({"choices": [{"delta": {}, "finish_reason": 1}]})), "sent a malformed event"),
        (body(event({"usage": {"prompt_tokens": "many"}})), "sent a malformed event"),
        (
            body(event({"choices": [{"delta": {}, "finish_reason": "insufficient_system_resource"}]})),
            "ran out of resources",
        ),
    ],
)
async def test_an_answer_that_is_not_whole_says_what_went_wrong(stream, reason):
    with pytest.raises(ProviderUnavailable, match=reason):
        await read(stream)


async def test_an_end_mark_stands_for_no_finish_reason():
    """Proxies send it when the server behind them has broken off: half an answer would pass for the whole."""
    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(body(event(said("a")), event(b"[DONE]")))


@pytest.mark.parametrize(
    ("choice_count", "events"),
    [
        (1, ()),
        (1, ({"usage": {"prompt_tokens": 1}},)),
        (1, ({"choices": [{"delta": {"role": "assistant", "content": ""}}]},)),
        (1, ({"choices": [{"delta": {"reasoning_content": "hm"}}]},)),
        (1, (said("a"), said("b", index=1), said(finish="stop"))),
        (1, (said("a"), said("b", index=1))),
        (2, (said("a"), said("b", index=1))),
        (2, (said("a"), said("b", index=1), said(finish="stop"))),
        (2, (said(finish="stop"), said(finish="stop", index=1), said("a", index=1))),
    ],
)
@pytest.mark.parametrize("end", [(), (event(b"[DONE]"),)])
async def test_an_answer_with_a_choice_that_has_not_finished_is_not_whole(choice_count, events, end):
    """Whatever the end mark says."""
    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(body(*map(event, events), *end), choice_count)


@pytest.mark.parametrize("finish_count", [1, 2])
@pytest.mark.parametrize("end", [(), (event(b"[DONE]"),)])
async def test_whole_choices_that_are_too_few_are_not_the_answer_and_no_failure(finish_count, end):
    """A provider that takes no notice of n must not pass, nor be cached; nor is it out of order."""
    events = map(event, (said("a"), *[said(finish="stop")] * finish_count))

    with pytest.raises(RouteUnfit, match="gave 1 of 2 choices"):
        await read(body(*events, *end), 2)


async def test_a_provider_that_takes_no_notice_of_n_has_not_answered(simulator):
    provider = OpenAIProvider(simulator.urls["deepseek"], "sk-test", 5.0)
    try:
        with pytest.raises(RouteUnfit, match="gave 1 of 2 choices"):
            await ask(provider, "deepseek-chat@tokens=4", n=2)
    finally:
        await provider.close()


async def test_content_behind_a_finish_reason_has_to_finish_again():
    resumed = [event(said(finish="stop")), event(said("a"))]

    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(body(*resumed))
    with pytest.raises(ProviderUnavailable, match="broke off the stream"):
        await read(body(*resumed, error=ConnectionResetError()))
    assert len(await read(body(*resumed, event(said(finish="length"))))) == 3


async def test_an_answer_whose_last_line_is_not_ended_is_whole():
    assert await read(body(event(FINISHED)[:-2])) == [Chunk(finish_reason="stop")]


@pytest.mark.parametrize(
    ("error", "leaf", "reason"),
    [
        ({"code": "rate_limit_exceeded", "type": "requests"}, ProviderOverloaded, "asks for fewer requests"),
        ({"type": "tokens", "code": None}, ProviderOverloaded, "asks for fewer requests"),
        ({"code": 429, "message": "Slow down"}, ProviderOverloaded, "asks for fewer requests"),
        ({"code": "content_filter", "message": "Not that."}, ProviderRejected, "Not that."),
        ({"type": "invalid_request_error", "message": "No."}, ProviderRejected, "No."),
        ({"type": "insufficient_quota"}, ProviderMisconfigured, "has no quota left for our key"),
        ({"type": "server_error", "message": "Oh, sk-test"}, ProviderUnavailable, "answered 500"),
        (
            {"type": "tokens", "code": "rate_limit_exceeded", "message": "Request too large for m on tokens per min"},
            RouteUnfit,
            "takes no request of this size from us",
        ),
        ("Something broke", ProviderUnavailable, "answered 500"),
    ],
)
async def test_an_error_inside_the_stream_is_told_by_its_code(error, leaf, reason):
    with pytest.raises(leaf) as failed:
        await read(body(event({"error": error})))

    assert (type(failed.value), failed.value.reason) == (leaf, reason)


async def test_an_error_event_comes_behind_the_tokens_before_it(provider):
    route = Route(provider="openai", model="m@gap_ms=0,fault=error_event,at=3")

    async with provider.open(route, ChatRequest(model="m", messages=QUESTION)) as chunks:
        before = [(await anext(chunks)).content for _ in range(3)]
        with pytest.raises(ProviderUnavailable):
            await anext(chunks)

    assert all(before)


async def test_signs_of_life_while_a_request_waits_are_no_chunks(simulator):
    """DeepSeek sends comments for as long as it has no place for the request."""
    provider = OpenAIProvider(simulator.urls["deepseek"], "sk-test", 5.0)
    try:
        chunks = await ask(provider, "deepseek-reasoner@queued_ms=30,keepalive_ms=5,tokens=4")
    finally:
        await provider.close()

    assert [list(chunk.delta) for chunk in chunks[:2]] == [["reasoning_content"]] * 2
    assert chunks[-1].usage.details["completion_tokens_details"]["reasoning_tokens"] == 2


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_a_connection_serves_one_answer_after_another(simulator, name):
    """A new one costs round trips before the first token."""
    adapter = {"openai": OpenAIProvider, "gemini": GeminiProvider}[name]
    provider = adapter(simulator.urls[name], "sk-test", 5.0)
    before, used = connections(), set()
    try:
        for _ in range(5):
            await ask(provider, "m@tokens=3")
            used |= connections() - before
    finally:
        await provider.close()

    assert len(used) == 1


async def test_a_body_that_does_not_end_is_left_all_the_same():
    async with asyncio.timeout(5):
        await settle(endless())


async def test_a_hundred_streams_wait_for_no_place_in_a_pool(provider, simulator):
    """The transport's own limit is 100 connections; the next would wait in a queue that nobody sees."""
    asking = [asyncio.create_task(ask(provider, "m@fault=silence_headers")) for _ in range(110)]
    await simulator.until("openai.live==110")

    for task in asking:
        task.cancel()

    await asyncio.gather(*asking, return_exceptions=True)
    await simulator.until("openai.closed_by_client==110")
    await simulator.until("openai.live==0")
