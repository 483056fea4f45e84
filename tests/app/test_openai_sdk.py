"""The real OpenAI SDK, pointed at the service: nothing else has to change in an application."""

import httpx2
import openai
import pytest

from tests.app.asking import MODEL, question
from tests.serving import serving

pytestmark = pytest.mark.anyio
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_gauge",
            "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
        },
    }
]
PROVIDERS = ("openai", "deepseek", "gemini")


def messages(query=None):
    return [{"role": "user", "content": query or question()}]


def sdk_for(service):
    return openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="nobody-checks-it-yet", max_retries=0)


@pytest.fixture
async def sdk(service, simulator):
    async with sdk_for(service) as each:
        yield each


async def streamed(stream):
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("model", [MODEL, "deepseek-chat", "gemini-2.5-flash"])
async def test_a_stream_and_a_whole_answer_say_the_same(sdk, model):
    """Of every provider."""
    asked = messages()
    chunks = await streamed(await sdk.chat.completions.create(model=model, messages=asked, stream=True))
    whole = await sdk.chat.completions.create(model=model, messages=asked)

    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content != ""
    assert chunks[0].choices[0].delta.role == whole.choices[0].message.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {whole.id}
    assert {chunk.model for chunk in chunks} == {whole.model} == {model}
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_the_blocking_sdk_works_too(service, simulator):
    """It is what most scripts use."""
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="x", max_retries=0) as sdk:
        asked = messages()
        chunks = list(sdk.chat.completions.create(model=MODEL, messages=asked, stream=True))
        whole = sdk.chat.completions.create(model=MODEL, messages=asked)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


@pytest.mark.parametrize("model", [MODEL, "deepseek-chat", "gemini-2.5-flash"])
async def test_usage_is_the_last_chunk_when_it_is_asked_for(sdk, model):
    """And has no choices."""
    stream = await sdk.chat.completions.create(
        model=model, messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = await streamed(stream)

    assert (last.choices, last.usage.completion_tokens) == ([], 25)
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", [MODEL, "deepseek-chat", "gemini-2.5-flash"])
async def test_tool_calls_come_whole_and_in_pieces(sdk, model):
    """The pieces put together are the whole."""
    asked = messages(f"Use the tool: {question()}")
    whole = await sdk.chat.completions.create(model=model, messages=asked, tools=TOOLS)
    stream = await sdk.chat.completions.create(model=model, messages=asked, tools=TOOLS, stream=True)
    chunks = await streamed(stream)

    call = whole.choices[0].message.tool_calls[0]
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.content is None
    assert deltas[0].function.name == call.function.name == "read_gauge"
    assert deltas[0].id == call.id
    assert "".join(delta.function.arguments or "" for delta in deltas) == call.function.arguments
    assert call.function.arguments.startswith('{"river":')


async def test_several_choices_come_whole_and_in_pieces(sdk):
    """Each under its index."""
    asked = [{"role": "user", "content": "What do the keepers say of the weir?"}]
    whole = await sdk.chat.completions.create(model=MODEL, messages=asked, n=2)
    chunks = await streamed(await sdk.chat.completions.create(model=MODEL, messages=asked, n=2, stream=True))

    said = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [choice.message.content for choice in whole.choices]
    assert said[0] != said[1]


async def test_thoughts_are_passed_on(sdk):
    """DeepSeek's own field, unchanged."""
    asked = messages()
    whole = await sdk.chat.completions.create(model="deepseek-reasoner", messages=asked)
    chunks = await streamed(await sdk.chat.completions.create(model="deepseek-reasoner", messages=asked, stream=True))

    thoughts = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
    assert thoughts == whole.choices[0].message.reasoning_content != ""


async def test_what_weir_does_not_read_reaches_the_provider(sdk, simulator):
    """As it was sent."""
    extra = {"logprobs": True, "top_logprobs": 2, "user": "u-1", "metadata": {"a": "b"}, "reasoning_effort": "low"}
    await sdk.chat.completions.create(model=MODEL, messages=messages(), **extra)

    assert extra.items() <= simulator.calls("openai")[-1]["body"].items()


async def test_the_models_can_be_listed(sdk):
    """As the SDK pages them."""
    assert {MODEL, "deepseek-chat", "gemini-2.5-pro"} <= {model.id async for model in sdk.models.list()}


async def test_a_wrong_request_is_a_bad_request_error(sdk):
    """With the parameter's name."""
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=messages(), temperature=3)

    assert (caught.value.status_code, caught.value.param, caught.value.code) == (400, "temperature", "invalid_request")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_the_provider_refuses_is_a_bad_request_error(sdk, simulator, stream):
    """With the provider's reason, where no route takes more."""
    for provider in ("openai", "gemini"):
        simulator.behave(provider, fault="context_length")
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=messages(), stream=stream)

    assert caught.value.code == "provider_rejected"
    assert "exceeds the maximum number of tokens" in caught.value.message


async def test_an_unknown_model_is_a_not_found_error(sdk):
    """As at OpenAI."""
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.chat.completions.create(model="gpt-17", messages=messages())

    assert caught.value.code == "unknown_model"


async def test_what_is_not_here_says_what_is(sdk, service):
    """A base URL without /v1, and other parts of OpenAI's API, are what is tried first."""
    async with openai.AsyncOpenAI(base_url=service.url, api_key="anonymous", max_retries=0) as elsewhere:
        for ask in (elsewhere.models.list(), sdk.embeddings.create(model=MODEL, input="What is a weir?")):
            with pytest.raises(openai.NotFoundError, match="an SDK's base URL ends in /v1"):
                await ask


@pytest.mark.parametrize("stream", [False, True])
async def test_all_providers_down_is_an_internal_server_error(sdk, simulator, stream):
    """Which an SDK with retries would try again."""
    for provider in PROVIDERS:
        simulator.behave(provider, fault="503")
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=messages(), stream=stream)

    assert (caught.value.status_code, caught.value.code) == (503, "all_providers_down")


async def test_over_the_limit_is_a_rate_limit_error(simulator):
    """With the header that an SDK waits by."""
    with serving(simulator, WEIR_RATE_ANONYMOUS="1/hour") as limited:
        async with sdk_for(limited) as sdk:
            await sdk.chat.completions.create(model=MODEL, messages=messages())
            with pytest.raises(openai.RateLimitError) as caught:
                await sdk.chat.completions.create(model=MODEL, messages=messages())

    assert caught.value.code == "rate_limited"
    assert int(caught.value.response.headers["retry-after"]) > 0


async def test_a_stream_that_is_cut_short_raises(sdk, simulator):
    """After the chunks that came, when nobody can go on: half an answer cannot be taken for a whole one."""
    simulator.behave("openai", fault="cut", at=3)
    for provider in ("deepseek", "gemini"):
        simulator.behave(provider, fault="500")
    stream = await sdk.chat.completions.create(model=MODEL, messages=messages(), stream=True)
    for _ in range(3):
        assert (await anext(stream)).choices[0].delta.content
    with pytest.raises(openai.APIError, match="after 3 chunks"):
        await anext(stream)


async def test_the_rate_limit_can_be_read_from_the_raw_response(simulator):
    """Where OpenAI's users look for it."""
    with serving(simulator, WEIR_RATE_ANONYMOUS="5/minute") as limited:
        async with sdk_for(limited) as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=messages())

    assert isinstance(raw.headers, httpx2.Headers)
    assert (raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]) == ("5", "4")
