"""OpenAI's words into Gemini's, and back."""

import json

import google.genai
import pytest

from domain.chat import ChatRequest, Chunk, Usage
from domain.errors import (
    ProviderDeferred,
    ProviderRejected,
    ProviderUnauthorized,
    ProviderUnavailable,
    RouteUnfit,
)
from domain.selection import Route
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.gemini_chunks import GeminiReader
from infrastructure.providers.gemini_request import LEFT_OUT, gemini_body
from infrastructure.providers.streams import read_stream

pytestmark = pytest.mark.anyio

QUESTION = ({"role": "user", "content": "How high?"},)
ASKED = {"contents": [{"role": "user", "parts": [{"text": "How high?"}]}]}
SCHEMA = {"type": "object", "properties": {"metres": {"type": "number"}}}
TOOL = {"type": "function", "function": {"name": "gauge", "description": "The level", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "gauge", "arguments": '{"at":"mill"}'}}


def body(*messages: dict, model: str = "gemini-2.5-flash", **options: object) -> dict:
    return gemini_body(model, ChatRequest(model="m", messages=messages or QUESTION, options=options))


def said(value: dict) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def candidate(*parts: dict, finish: str | None = None, index: int = 0) -> dict:
    return {"content": {"parts": list(parts), "role": "model"}, "finishReason": finish, "index": index}


def stream_of(*events: dict):
    async def stream():
        for value in events:
            yield said(value)

    return read_stream(stream(), GeminiReader("gemini-2.5-flash", "key"), 1)


async def read(*events: dict) -> list[Chunk]:
    return [chunk async for chunk in stream_of(*events)]


def test_the_sdk_still_has_what_the_adapter_takes_from_below_its_surface():
    """A release of google-genai may move it; then this test says so, not production."""
    api = google.genai.Client(api_key="key", vertexai=False)._api_client
    request = api._build_request("post", "models/m:streamGenerateContent?alt=sse", {})

    assert callable(api._async_request)
    assert {"url", "headers", "data", "timeout"} <= vars(request).keys()
    assert request.timeout is None, "the SDK would cut a long stream"
    assert "aiohttp_client" in type(api._http_options).model_fields


async def test_a_conversation_with_tools_arrives_as_gemini_wants_it(simulator):
    """Through the real SDK: path, key and body."""
    provider = GeminiProvider(simulator.urls["gemini"], "key", 5.0)
    request = ChatRequest(model="m", messages=QUESTION, options={"tools": [TOOL], "tool_choice": "required"})
    try:
        async with provider.open(Route(provider="gemini", model="gemini-2.5-flash"), request) as chunks:
            answer = [chunk async for chunk in chunks]
    finally:
        await provider.close()

    (call,) = simulator.calls("gemini")
    assert call["path"] == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert call["body"]["contents"] == ASKED["contents"]
    (made,) = answer[0].delta["tool_calls"]
    assert (made["index"], made["type"], made["function"]["name"]) == (0, "function", "gauge")
    assert json.loads(made["function"]["arguments"]).keys() == {"metres"}
    assert [chunk.finish_reason for chunk in answer if chunk.finish_reason] == ["tool_calls"]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In metres."}, *QUESTION],
            {"systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "In metres."}]}, **ASKED},
        ),
        (
            [{"role": "system", "content": "Say something."}],
            {"contents": [{"role": "user", "parts": [{"text": "Say something."}]}]},
        ),
        (
            [*QUESTION, {"role": "assistant", "content": "Seven."}],
            {"contents": [*ASKED["contents"], {"role": "model", "parts": [{"text": "Seven."}]}]},
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
                    ],
                }
            ],
            {
                "contents": [
                    {
                        "role": "user",
                        "parts": [
                            {"text": "What is it?"},
                            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                            {"inlineData": {"mimeType": "audio/wav", "data": "BBBB"}},
                        ],
                    }
                ]
            },
        ),
        (
            [
                {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "c2"}]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"metres": 7}'},
                {"role": "tool", "tool_call_id": "c2", "content": "dry"},
            ],
            {
                "contents": [
                    {"role": "model", "parts": [{"functionCall": {"name": "gauge", "args": {"at": "mill"}}}] * 2},
                    {
                        "role": "user",
                        "parts": [
                            {"functionResponse": {"name": "gauge", "response": {"metres": 7}}},
                            {"functionResponse": {"name": "gauge", "response": {"result": "dry"}}},
                        ],
                    },
                ]
            },
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [CALL | {"extra_content": {"google": {"thought_signature": "sig"}}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "dry"},
                *QUESTION,
            ],
            {
                "contents": [
                    {
                        "role": "model",
                        "parts": [
                            {"functionCall": {"name": "gauge", "args": {"at": "mill"}}, "thoughtSignature": "sig"}
                        ],
                    },
                    {"role": "user", "parts": [{"functionResponse": {"name": "gauge", "response": {"result": "dry"}}}]},
                    *ASKED["contents"],
                ]
            },
        ),
    ],
)
def test_messages_are_put_into_geminis_words(messages, expected):
    assert body(*messages) == expected


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "seed": 7}, {"temperature": 0.5, "topP": 0.9, "seed": 7}),
        ({"max_tokens": 10}, {"maxOutputTokens": 10}),
        ({"max_completion_tokens": 10}, {"maxOutputTokens": 10}),
        ({"presence_penalty": 1, "frequency_penalty": 2}, {"presencePenalty": 1, "frequencyPenalty": 2}),
        ({"stop": "."}, {"stopSequences": ["."]}),
        ({"stop": [".", "!"]}, {"stopSequences": [".", "!"]}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "level", "schema": SCHEMA}}},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        ({"reasoning_effort": "high"}, {"thinkingConfig": {"thinkingBudget": 24576}}),
    ],
)
def test_options_are_put_into_geminis_words(options, config):
    assert body(**options) == {**ASKED, "generationConfig": config}


def test_newer_models_think_in_levels():
    assert body(model="gemini-3-flash", reasoning_effort="low")["generationConfig"] == {
        "thinkingConfig": {"thinkingLevel": "LOW"}
    }


def test_tools_are_put_into_geminis_words():
    declared = {"name": "gauge", "description": "The level", "parametersJsonSchema": SCHEMA}

    assert body(tools=[TOOL])["tools"] == [{"functionDeclarations": [declared]}]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "gauge"}}, {"mode": "ANY", "allowedFunctionNames": ["gauge"]}),
    ],
)
def test_the_choice_of_a_tool_is_put_into_geminis_words(choice, config):
    assert body(tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_what_cannot_change_the_answer_is_left_out(name):
    assert body(**{name: "anything"}) == ASKED


def test_what_asks_for_what_gemini_does_anyway_is_left_out():
    assert body(logprobs=False, parallel_tool_calls=True, logit_bias={}, n=1, temperature=None) == ASKED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unheard_of": 1}, "cannot take unheard_of"),
        ({"logprobs": True}, "cannot take logprobs"),
        ({"n": 2}, "cannot take n"),
        ({"parallel_tool_calls": False}, "cannot take parallel_tool_calls"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "cannot take tools of the type custom"),
        ({"tool_choice": {"type": "allowed_tools"}}, "cannot take this tool_choice"),
        ({"response_format": {"type": "grammar"}}, "cannot take response_format grammar"),
        ({"reasoning_effort": "xhigh"}, "cannot take reasoning_effort xhigh"),
    ],
)
def test_what_would_change_the_answer_is_left_to_another_route(options, reason):
    """Dropped in silence, it would give an answer to another question."""
    with pytest.raises(RouteUnfit) as unfit:
        body(**options)

    assert unfit.value.reason == reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "cannot take content parts of the type file"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
            "cannot take image_url parts other than data: URLs in base64",
        ),
        ({"role": "function", "name": "gauge", "content": "7"}, "cannot take messages of the role function"),
    ],
)
def test_a_message_that_gemini_has_no_words_for_is_left_to_another_route(message, reason):
    with pytest.raises(RouteUnfit) as unfit:
        body(message)

    assert unfit.value.reason == reason


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([{"role": "user", "content": 7}], {}),
        ([{"content": "x"}], {}),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "gauge", "arguments": "{"}}]}], {}),
        (QUESTION, {"tools": {}}),
        (QUESTION, {"response_format": "json"}),
        (QUESTION, {"reasoning_effort": []}),
    ],
)
def test_a_request_of_another_shape_is_rejected(messages, options):
    with pytest.raises(ProviderRejected):
        body(*messages, **options)


async def test_text_thoughts_and_calls_are_put_into_openais_words():
    usage = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 18,
        "cachedContentTokenCount": 4,
    }
    chunks = await read(
        {"candidates": [candidate({"text": "Hm.", "thought": True})], "usageMetadata": {"promptTokenCount": 10}},
        {"candidates": [candidate({"text": "Look: "}, {"text": ""})]},
        {"candidates": [candidate({"functionCall": {"name": "gauge", "id": "g1"}, "thoughtSignature": "sig"})]},
        {"candidates": [candidate({"functionCall": {"name": "gate", "args": {"é": 1}, "id": "g2"}}, finish="STOP")]}
        | {"usageMetadata": usage},
    )

    signature = {"extra_content": {"google": {"thought_signature": "sig"}}}
    first = {"index": 0, "id": "g1", "type": "function", "function": {"name": "gauge", "arguments": "{}"}}
    second = {"index": 1, "id": "g2", "type": "function", "function": {"name": "gate", "arguments": '{"é":1}'}}
    assert chunks == [
        Chunk(delta={"reasoning_content": "Hm."}),
        Chunk("Look: "),
        Chunk(delta={"tool_calls": [first | signature]}),
        Chunk(delta={"tool_calls": [second]}, finish_reason="tool_calls"),
        Chunk(
            usage=Usage(
                prompt_tokens=10,
                completion_tokens=8,
                total_tokens=18,
                details={
                    "prompt_tokens_details": {"cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 3},
                },
            )
        ),
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("SPII", "content_filter"),
    ],
)
async def test_every_finish_reason_has_its_word(reason, expected):
    assert await read({"candidates": [candidate(finish=reason)]}) == [Chunk(finish_reason=expected)]


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "NEWER_THAN_THIS"])
async def test_any_other_finish_reason_is_a_failure(reason):
    with pytest.raises(ProviderUnavailable, match=f"ended the answer with {reason}"):
        await read({"candidates": [candidate(finish=reason)]})


async def test_a_refused_prompt_is_rejected():
    with pytest.raises(ProviderRejected, match="refused the prompt: SAFETY"):
        await read({"promptFeedback": {"blockReason": "SAFETY"}})


FINISHED = {"candidates": [candidate(finish="STOP")], "usageMetadata": {"candidatesTokenCount": 1}}
RESUMED = {"candidates": [candidate({"text": "and more"})], "usageMetadata": {"candidatesTokenCount": 2}}


async def test_what_comes_behind_a_finish_reason_is_part_of_the_answer():
    """Nothing but the body's end marks the end of a stream."""
    chunks = await read(FINISHED, RESUMED, FINISHED | {"usageMetadata": {"candidatesTokenCount": 3}})

    assert [chunk.content for chunk in chunks if chunk.content] == ["and more"]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage][-1] == 3


async def test_a_finish_reason_beside_text_stays_beside_it():
    """It is no promise: some servers say STOP with every text."""
    event = {"candidates": [candidate({"text": "a "}, {"text": "b"}, finish="STOP")]}

    assert await read(event, event) == [Chunk("a "), Chunk("b", "stop"), Chunk("a "), Chunk("b", "stop")]


async def test_text_beside_a_failure_is_given_before_it():
    stream = stream_of({"candidates": [candidate({"text": "a"}, finish="OTHER")]})

    assert await anext(stream) == Chunk("a")
    with pytest.raises(ProviderUnavailable, match="ended the answer with OTHER"):
        await anext(stream)


async def test_text_behind_the_last_finish_reason_is_an_answer_that_was_cut():
    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(FINISHED, RESUMED)


@pytest.mark.parametrize("reason", ["FINISH_REASON_UNSPECIFIED", ""])
async def test_an_unspecified_finish_reason_is_none(reason):
    begun = {"candidates": [candidate({"text": "a"}, finish=reason)]}

    assert [chunk.finish_reason for chunk in await read(begun, FINISHED)] == [None, "stop", None]
    with pytest.raises(ProviderUnavailable, match="ended without a finish reason"):
        await read(begun)


@pytest.mark.parametrize("number", [-1, 10**30])
async def test_a_number_that_cannot_be_a_count_of_tokens_is_none(number):
    """It would be priced, and counted in the metrics."""
    counts = dict.fromkeys(("promptTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"), number)

    usage = (await read(FINISHED | {"usageMetadata": counts | {"candidatesTokenCount": 5}}))[-1].usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (0, 5, 5)
    assert [*usage.details.values()] == [{"cached_tokens": 0}, {"reasoning_tokens": 0}]


@pytest.mark.parametrize("event", [{"candidates": {}}, {"candidates": [{"content": {"parts": [{"text": 1}]}}]}])
async def test_an_event_of_another_shape_is_malformed(event):
    with pytest.raises(ProviderUnavailable, match="sent a malformed event"):
        await read(event)


@pytest.mark.parametrize(
    ("error", "leaf", "wait_s"),
    [
        ({"code": 503, "status": "UNAVAILABLE"}, ProviderUnavailable, None),
        ({"code": 429, "details": [{"retryDelay": "34.5s"}]}, ProviderDeferred, 34.5),
        ({"code": 400, "status": "FAILED_PRECONDITION"}, ProviderUnauthorized, None),
        ({"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}, ProviderUnauthorized, None),
        ({"code": 400, "status": "INVALID_ARGUMENT", "message": "No."}, ProviderRejected, None),
        ("broken", ProviderUnavailable, None),
    ],
)
async def test_an_error_inside_the_stream_is_told_by_its_code(error, leaf, wait_s):
    with pytest.raises(leaf) as failed:
        await read({"error": error})

    assert type(failed.value) is leaf
    assert failed.value.retry_after_s == wait_s
