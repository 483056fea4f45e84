"""The simulated OpenAI, through the real SDK."""

import json

import openai
import pytest

from infrastructure.simulator.answers import answer_tokens

pytestmark = pytest.mark.anyio
QUESTION = "What is a weir?"
ASK = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]}
ANSWER = answer_tokens(QUESTION, 25)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@pytest.fixture
async def client(simulator):
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=simulator.urls["openai"], max_retries=0) as client:
        yield client


@pytest.fixture
def completions(client):
    return client.chat.completions


async def streamed(completions, **request):
    return [
        chunk async for chunk in await completions.create(stream=True, **{"model": "gpt-4o-mini", **ASK, **request})
    ]


async def test_streams_role_then_words_then_why_it_stopped(completions, simulator):
    chunks = await streamed(completions)
    deltas = [chunk.choices[0].delta for chunk in chunks]

    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [delta.content for delta in deltas[1:-1]] == list(ANSWER)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 26 + ["stop"]
    assert {chunk.model for chunk in chunks} == {"gpt-4o-mini"}
    assert len({(chunk.id, chunk.created, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert simulator.counters("openai") == {
        "calls": 1, "live": 0, "finished": 1, "closed_by_client": 0, "faults": 0, "tokens": 25,
    }  # fmt: skip


async def test_usage_comes_in_a_last_chunk_without_choices(completions):
    *chunks, last = await streamed(completions, stream_options={"include_usage": True})

    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (6, 25, 31)
    assert last.usage.prompt_tokens_details.cached_tokens == 0
    assert last.usage.completion_tokens_details.reasoning_tokens == 0


async def test_tokens_are_padded_unless_the_client_does_not_want_it(completions):
    padded = await streamed(completions)
    bare = await streamed(completions, stream_options={"include_obfuscation": False})

    assert all(chunk.obfuscation for chunk in padded[1:-1])
    assert not any("obfuscation" in chunk.to_dict() for chunk in bare)


async def test_answers_whole_when_not_streamed(completions, simulator):
    completion = await completions.create(model="gpt-4o-mini", **ASK)

    assert completion.choices[0].message.content == "".join(ANSWER)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 31
    assert completion.service_tier == "default"
    assert simulator.counters("openai")["tokens"] == 25


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_ends_the_answer_with_length(completions, limit):
    chunks = await streamed(completions, **{limit: 3})
    completion = await completions.create(model="gpt-4o-mini", **ASK, **{limit: 3})

    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == list(ANSWER[:3])
    assert chunks[-1].choices[0].finish_reason == completion.choices[0].finish_reason == "length"


async def test_every_choice_gets_its_own_answer(completions, simulator):
    chunks = await streamed(completions, n=2)
    texts = [
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices[0].index == index)
        for index in (0, 1)
    ]
    completion = await completions.create(model="gpt-4o-mini", n=2, **ASK)

    assert texts[0] == "".join(ANSWER) != texts[1]
    assert [choice.message.content for choice in completion.choices] == texts
    assert completion.usage.completion_tokens == 50
    assert simulator.counters("openai")["tokens"] == 100


async def test_calls_a_tool_when_the_question_says_so(completions):
    question = [{"role": "user", "content": "Use the tool."}]
    chunks = await streamed(completions, messages=question, tools=[WEATHER])
    calls = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks[:-1]]
    arguments = json.loads("".join(call.function.arguments for call in calls))

    assert calls[0].id.startswith("call_")
    assert calls[0].function.name == "weather"
    assert all(call.id is None and call.function.name is None for call in calls[1:])
    assert len(calls) > 3
    assert set(arguments) == {"city", "days"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("request_fields", "calls"),
    [
        ({"model": "gpt-4o@tool_call=1"}, True),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, True),
        ({"model": "gpt-4o@tool_call=1", "tool_choice": "none"}, False),
        ({}, False),
        (
            {"model": "gpt-4o@tool_call=1", "messages": [*ASK["messages"], {"role": "tool", "content": "12"}]},
            False,
        ),
    ],
)
async def test_calls_a_tool_only_when_it_may_and_should(completions, request_fields, calls):
    completion = await completions.create(**{"model": "gpt-4o", **ASK, "tools": [WEATHER], **request_fields})
    message = completion.choices[0].message

    assert bool(message.tool_calls) is calls
    assert (message.content is None) is calls
    assert completion.choices[0].finish_reason == ("tool_calls" if calls else "stop")


async def test_json_is_answered_when_it_is_wanted(completions):
    schema = {"name": "s", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    formats = {"answer": {"type": "json_object"}, "city": {"type": "json_schema", "json_schema": schema}}

    for key, wanted in formats.items():
        chunks = await streamed(completions, response_format=wanted)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert json.loads(text) == {key: "".join(ANSWER)}


async def test_a_filtered_answer_stops_with_content_filter(completions):
    at_once = await streamed(completions, model="gpt-4o@blocked=1")
    later = await streamed(completions, model="gpt-4o@blocked=1,at=4")

    assert [len(chunks) for chunks in (at_once, later)] == [2, 6]
    assert at_once[-1].choices[0].finish_reason == later[-1].choices[0].finish_reason == "content_filter"


async def test_says_the_text_it_is_told(completions, simulator):
    simulator.behave("openai", text="Twelve words, no more.")
    chunks = await streamed(completions)

    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["Twelve", " words,", " no", " more."]


async def test_parts_of_a_message_are_read(completions):
    parts = [{"type": "text", "text": QUESTION}]
    completion = await completions.create(model="gpt-4o", messages=[{"role": "user", "content": parts}])

    assert completion.choices[0].message.content == "".join(ANSWER)


async def test_models_are_listed(client):
    models = await client.models.list()

    assert "gpt-4o-mini" in [model.id for model in models.data]


async def test_requests_are_kept_with_the_key_redacted(completions, simulator):
    await streamed(completions, seed=7)
    call = simulator.calls("openai")[0]

    assert call["path"] == "/v1/chat/completions"
    assert call["body"]["seed"] == 7
    assert call["headers"]["authorization"] == "[REDACTED]"
    assert call["headers"]["user-agent"].startswith("AsyncOpenAI/")
    assert call["headers"]["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("400", openai.BadRequestError, "invalid_value"),
        ("401", openai.AuthenticationError, "invalid_api_key"),
        ("403", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("404", openai.NotFoundError, "model_not_found"),
        ("408", openai.APIStatusError, "request_timeout"),
        ("409", openai.ConflictError, "conflict"),
        ("413", openai.APIStatusError, "request_too_large"),
        ("422", openai.UnprocessableEntityError, "unprocessable_entity"),
        ("429", openai.RateLimitError, "rate_limit_exceeded"),
        ("500", openai.InternalServerError, None),
        ("502", openai.InternalServerError, None),
        ("503", openai.InternalServerError, "service_unavailable"),
        ("529", openai.InternalServerError, "overloaded"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("content_filter", openai.BadRequestError, "content_policy_violation"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_every_refusal_is_the_sdks_own_error(*, completions, simulator, fault, error, code, stream):
    with pytest.raises(error) as raised:
        await completions.create(model=f"gpt-4o@fault={fault},retry_after=1.5", stream=stream, **ASK)

    assert raised.value.code == code
    assert raised.value.response.headers["retry-after"] == "2"
    assert raised.value.response.headers["retry-after-ms"] == "1500"
    assert raised.value.request_id.startswith("req_")
    assert raised.value.response.status_code == int(fault) if fault.isdigit() else True
    assert simulator.counters("openai")["faults"] == 1


async def test_the_error_event_is_the_sdks_error_midstream(completions):
    stream = await completions.create(model="gpt-4o@fault=error_event,at=2", stream=True, **ASK)

    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in stream:
            pass


async def test_the_sdk_retries_as_it_would_with_openai(simulator):
    simulator.behave("openai", fault="503", retry_after=0.001, times=2)
    async with openai.AsyncOpenAI(api_key="k", base_url=simulator.urls["openai"], max_retries=2) as client:
        completion = await client.chat.completions.create(model="gpt-4o", **ASK)

    assert completion.choices[0].message.content == "".join(ANSWER)
    assert [call["headers"]["x-stainless-retry-count"] for call in simulator.calls("openai")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("request_fields", "error", "message"),
    [
        ({"model": ""}, openai.BadRequestError, "you must provide a model parameter"),
        ({"messages": None}, openai.BadRequestError, "Missing required parameter: 'messages'."),
        ({"messages": []}, openai.BadRequestError, "empty array"),
        ({"messages": "hello"}, openai.BadRequestError, "Expected `array`, got `str`"),
        ({"n": 0}, openai.BadRequestError, ">= 1"),
        ({"model": "no-such-model"}, openai.NotFoundError, "does not exist or you do not have access"),
        ({"model": "gpt-4o@speed=9"}, openai.BadRequestError, "unknown field 'speed'"),
    ],
)
async def test_a_request_that_cannot_be_right_is_refused(completions, request_fields, error, message):
    with pytest.raises(error, match=message):
        await completions.create(**{"model": "gpt-4o", **ASK, **request_fields})


async def test_a_key_that_is_not_valid_is_refused(simulator):
    async with openai.AsyncOpenAI(api_key="bad-12345678", base_url=simulator.urls["openai"], max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match=r"Incorrect API key provided: bad-.*5678"):
            await client.models.list()
        with pytest.raises(openai.AuthenticationError, match=r"Incorrect API key provided: bad-.*5678"):
            await client.chat.completions.create(model="gpt-4o", **ASK)


async def test_there_is_nothing_anywhere_else(client):
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/embeddings\)"):
        await client.embeddings.create(model="m", input="x")


BEGUN = {"role": "assistant", "content": "".join(ANSWER[:10])}


async def test_an_answer_that_has_begun_is_continued(completions, simulator):
    *chunks, last = await streamed(
        completions, messages=[*ASK["messages"], BEGUN], stream_options={"include_usage": True}
    )

    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == list(ANSWER[10:])
    assert last.usage.completion_tokens == simulator.counters("openai")["tokens"] == 15


@pytest.mark.parametrize(
    ("begun", "said"),
    [("".join(ANSWER), ""), ("".join(ANSWER)[:7], "".join(ANSWER)[7:]), ("Something else.", "".join(ANSWER))],
)
async def test_a_beginning_is_gone_on_with_if_it_is_one(completions, begun, said):
    messages = [*ASK["messages"], {"role": "assistant", "content": begun}]
    completion = await completions.create(model="gpt-4o-mini", messages=messages)

    assert completion.choices[0].message.content == said
    assert completion.choices[0].finish_reason == "stop"


async def test_an_assistants_turn_in_the_midst_is_no_beginning(completions):
    messages = [ASK["messages"][1], BEGUN, ASK["messages"][1]]
    completion = await completions.create(model="gpt-4o-mini", messages=messages)

    assert completion.choices[0].message.content == "".join(ANSWER)
