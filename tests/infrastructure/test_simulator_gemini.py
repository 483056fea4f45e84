"""The simulated Gemini, through the real SDK."""

import json

import pytest
from google import genai
from google.genai import errors, types

from infrastructure.simulator.answers import answer_tokens
from tests.infrastructure.raw import asked, data_lines, everything

# The SDK subclasses aiohttp's ClientSession, of which aiohttp disapproves.
_SUBCLASS = "ignore:Inheritance class AiohttpClientSession from ClientSession:DeprecationWarning"
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_SUBCLASS)]
QUESTION = "What is a weir?"
ANSWER = answer_tokens(QUESTION, 25)
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
        )
    ]
)


def client_of(simulator, key="k"):
    once = types.HttpRetryOptions(attempts=1)
    options = types.HttpOptions(base_url=simulator.urls["gemini"], api_version="v1beta", retry_options=once)
    return genai.Client(api_key=key, http_options=options).aio


@pytest.fixture
async def models(simulator):
    async with client_of(simulator) as client:
        yield client.models


async def streamed(models, model="gemini-2.5-flash", **config):
    stream = await models.generate_content_stream(model=model, contents=QUESTION, config=config or None)
    return [response async for response in stream]


async def test_streams_words_with_growing_usage_and_stops_with_stop(models, simulator):
    *responses, last = await streamed(models)

    assert [response.text for response in responses] == list(ANSWER)
    assert [response.usage_metadata.candidates_token_count for response in responses] == list(range(1, 26))
    assert {response.candidates[0].content.role for response in responses} == {"model"}
    assert not any(response.candidates[0].finish_reason for response in responses)
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    assert last.usage_metadata.total_token_count == 29
    assert last.model_version == "gemini-2.5-flash"
    assert len({response.response_id for response in (*responses, last)}) == 1
    assert simulator.counters("gemini")["finished"] == 1


async def test_lines_end_as_googles_do_and_nothing_marks_the_end(simulator):
    async with asked(simulator, "gemini", "gemini-2.5-flash@tokens=2") as reader:
        received, _ = await everything(reader)

    assert received.count(b"}\r\n\r\n\r\n") == 3
    assert "[DONE]" not in data_lines(received)
    assert b"content-type: text/event-stream\r\n" in received


async def test_a_behaviour_survives_the_path(models):
    responses = await streamed(models, "gemini-2.5-flash@tokens=4,gap_ms=1,ttft_ms=2")

    assert "".join(response.text for response in responses) == "".join(ANSWER[:4])
    assert responses[0].model_version == "gemini-2.5-flash@tokens=4,gap_ms=1,ttft_ms=2"


async def test_answers_whole_when_not_streamed(models):
    response = await models.generate_content(model="gemini-2.5-flash", contents=QUESTION)

    assert response.text == "".join(ANSWER)
    assert response.candidates[0].finish_reason is types.FinishReason.STOP
    assert response.usage_metadata.total_token_count == 29


async def test_a_limit_ends_the_answer_with_max_tokens(models):
    responses = await streamed(models, max_output_tokens=3)

    assert "".join(response.text for response in responses) == "".join(ANSWER[:3])
    assert responses[-1].candidates[0].finish_reason is types.FinishReason.MAX_TOKENS


async def test_a_blocked_prompt_has_no_candidates(models):
    (response,) = await streamed(models, "gemini-2.5-flash@blocked=1")
    whole = await models.generate_content(model="gemini-2.5-flash@fault=content_filter", contents=QUESTION)

    for blocked in (response, whole):
        assert blocked.candidates is None
        assert blocked.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT


async def test_a_blocked_answer_stops_with_safety(models):
    *responses, last = await streamed(models, "gemini-2.5-flash@blocked=1,at=4")

    assert [response.text for response in responses] == list(ANSWER[:4])
    assert last.candidates[0].finish_reason is types.FinishReason.SAFETY
    assert last.candidates[0].safety_ratings[0].blocked


async def test_an_empty_answer_has_a_candidate_without_parts(models, simulator):
    (response,) = await streamed(models, "gemini-2.5-flash@fault=empty")

    assert response.candidates[0].content.parts is None
    assert response.candidates[0].finish_reason is types.FinishReason.STOP
    assert simulator.counters("gemini")["faults"] == 1


async def test_calls_a_function(models):
    (response,) = await streamed(models, "gemini-2.5-flash@tool_call=1", tools=[WEATHER])
    whole = await models.generate_content(
        model="gemini-2.5-flash@tool_call=1", contents=QUESTION, config={"tools": [WEATHER]}
    )

    for called in (response, whole):
        assert called.function_calls[0].name == "weather"
        assert called.function_calls[0].args == {"city": "".join(answer_tokens(QUESTION, 3))}


@pytest.mark.parametrize(("mode", "calls"), [("ANY", True), ("NONE", False), ("AUTO", False)])
async def test_the_calling_mode_decides(models, mode, calls):
    config = {"tools": [WEATHER], "tool_config": {"function_calling_config": {"mode": mode}}}
    response = await models.generate_content(model="gemini-2.5-flash", contents=QUESTION, config=config)

    assert bool(response.function_calls) is calls


async def test_json_is_answered_when_it_is_wanted(models):
    schema = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}
    config = {"response_mime_type": "application/json", "response_schema": schema}
    response = await models.generate_content(model="gemini-2.5-flash", contents=QUESTION, config=config)

    assert json.loads(response.text) == {"city": "".join(ANSWER)}


@pytest.mark.parametrize(
    ("fault", "error", "code", "status"),
    [
        ("400", errors.ClientError, 400, "INVALID_ARGUMENT"),
        ("401", errors.ClientError, 401, "UNAUTHENTICATED"),
        ("403", errors.ClientError, 403, "PERMISSION_DENIED"),
        ("404", errors.ClientError, 404, "NOT_FOUND"),
        ("429", errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        ("500", errors.ServerError, 500, "INTERNAL"),
        ("503", errors.ServerError, 503, "UNAVAILABLE"),
        ("529", errors.ServerError, 529, "UNAVAILABLE"),
        ("quota", errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        ("context_length", errors.ClientError, 400, "INVALID_ARGUMENT"),
    ],
)
async def test_every_refusal_is_the_sdks_own_error(models, fault, error, code, status):
    with pytest.raises(error) as raised:
        await streamed(models, f"gemini-2.5-flash@fault={fault},retry_after=2.5")

    assert (raised.value.code, raised.value.status) == (code, status)
    details = raised.value.details["error"]["details"]
    assert details[-1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}


async def test_the_proxys_502_is_html(models):
    with pytest.raises(errors.ServerError) as raised:
        await models.generate_content(model="gemini-2.5-flash@fault=502", contents=QUESTION)

    assert raised.value.code == 502


async def test_the_error_event_is_the_sdks_error_midstream(models):
    with pytest.raises(errors.ServerError) as raised:
        await streamed(models, "gemini-2.5-flash@fault=error_event,at=2")

    assert raised.value.code == 503


async def test_an_unknown_model_is_not_found(models):
    with pytest.raises(errors.ClientError, match="models/no-such-model is not found for API version v1beta"):
        await streamed(models, "no-such-model")


async def test_a_model_name_that_cannot_be_read_is_refused(models):
    with pytest.raises(errors.ClientError, match="unknown field 'speed'"):
        await streamed(models, "gemini@speed=9")


async def test_a_key_that_is_not_valid_is_refused_with_googles_400(simulator):
    async with client_of(simulator, "bad-key") as client:
        with pytest.raises(errors.ClientError, match="API key not valid") as raised:
            await streamed(client.models)

    assert raised.value.code == 400


async def test_models_are_listed(models):
    assert "models/gemini-2.5-flash" in [model.name async for model in await models.list()]


async def test_requests_are_kept_with_the_key_redacted(models, simulator):
    await streamed(models)
    call = simulator.calls("gemini")[0]

    assert call["path"] == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert call["body"]["contents"][0]["parts"][0]["text"] == QUESTION
    assert call["headers"]["x-goog-api-key"] == "[REDACTED]"


async def test_an_answer_that_has_begun_is_continued(models):
    turns = [(types.UserContent, QUESTION), (types.ModelContent, "".join(ANSWER[:10]))]
    response = await models.generate_content(
        model="gemini-2.5-flash", contents=[kind(parts=text) for kind, text in turns]
    )

    assert response.text == "".join(ANSWER[10:])
    assert response.usage_metadata.candidates_token_count == 15
