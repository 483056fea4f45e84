"""The simulated DeepSeek, through the SDK that DeepSeek's own documents use."""

import openai
import pytest

from infrastructure.simulator.answers import answer_tokens
from tests.infrastructure.raw import asked, data_lines, everything

pytestmark = pytest.mark.anyio
QUESTION = "What is a weir?"
ASK = {"messages": [{"role": "user", "content": QUESTION}]}
ANSWER = answer_tokens(QUESTION, 25)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {}}}}}


@pytest.fixture(params=["", "/v1"])
async def client(simulator, request):
    url = simulator.urls["deepseek"] + request.param
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=url, max_retries=0) as client:
        yield client


async def streamed(client, **request):
    stream = await client.chat.completions.create(stream=True, **{"model": "deepseek-chat", **ASK, **request})
    return [chunk async for chunk in stream]


async def test_usage_stands_in_the_chunk_that_says_why_it_stopped(client):
    chunks = await streamed(client)
    asked_for = await streamed(client, stream_options={"include_usage": True})

    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", *ANSWER, ""]
    for last in (chunks[-1], asked_for[-1]):
        assert last.choices[0].finish_reason == "stop"
        assert last.usage.total_tokens == 29
        assert (last.usage.prompt_cache_hit_tokens, last.usage.prompt_cache_miss_tokens) == (0, 4)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks[:-1])
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in asked_for[:-1])


async def test_a_reasoner_thinks_before_it_answers(client):
    chunks = await streamed(client, model="deepseek-reasoner")
    deltas = [chunk.choices[0].delta for chunk in chunks]
    first, *middle, _last = deltas
    thoughts = [delta.reasoning_content for delta in middle[:12]]

    assert (first.role, first.content, first.reasoning_content) == ("assistant", None, "")
    assert all(thoughts)
    assert [delta.content for delta in middle] == [None] * 12 + list(ANSWER)
    assert all(delta.reasoning_content is None for delta in middle[12:])
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 12
    assert chunks[-1].usage.completion_tokens == 37


async def test_a_reasoners_whole_answer_has_its_thoughts_apart(client):
    completion = await client.chat.completions.create(model="deepseek-reasoner", **ASK)

    assert completion.choices[0].message.content == "".join(ANSWER)
    assert completion.choices[0].message.reasoning_content


async def test_thoughts_count_towards_the_limit(client):
    chunks = await streamed(client, model="deepseek-reasoner", max_tokens=14)

    assert [chunk.choices[0].delta.content for chunk in chunks[13:-1]] == list(ANSWER[:2])
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_the_sdk_reads_over_signs_of_life(client):
    model = "deepseek-chat@queued_ms=30,keepalive_ms=10"
    chunks = await streamed(client, model=model)
    completion = await client.chat.completions.create(model=model, **ASK)

    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "".join(ANSWER)
    assert completion.choices[0].message.content == "".join(ANSWER)


async def test_a_queued_stream_gets_comments_and_a_queued_request_empty_lines(simulator):
    model = "deepseek-chat@queued_ms=200,keepalive_ms=20,tokens=2"
    async with asked(simulator, "deepseek", model) as stream, asked(simulator, "deepseek", model, stream=False) as body:
        received, _ = await everything(stream)
        whole, _ = await everything(body)

    before, _, _ = received.partition(b"data: ")
    assert before.count(b": keep-alive\n\n") >= 3
    assert data_lines(received)[-1] == "[DONE]"
    assert whole.count(b"\r\n1\r\n\n\r\n") >= 3


async def test_calls_tools(client):
    chunks = await streamed(client, model="deepseek-chat@tool_call=1", tools=[TOOL])

    assert chunks[0].choices[0].delta.tool_calls[0].function.name == "weather"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("deepseek-chat@fault=quota", 402, "Insufficient Balance"),
        ("deepseek-chat@fault=429", 429, "Rate Limit Reached"),
        ("deepseek-chat@fault=503", 503, "Service is too busy"),
        ("deepseek-chat@fault=502", 502, "Error code: 502"),
        ("deepseek-chat@fault=content_filter", 400, "Content Exists Risk"),
        ("deepseek-chat@fault=context_length", 400, "maximum context length"),
        ("no-such-model", 400, "Model Not Exist"),
    ],
)
async def test_refuses_in_its_own_words(client, model, status, message):
    with pytest.raises(openai.APIStatusError, match=message) as raised:
        await streamed(client, model=model)

    assert raised.value.status_code == status
    assert raised.value.response.headers["x-ds-trace-id"]


async def test_a_key_that_is_not_valid_is_refused(simulator):
    async with openai.AsyncOpenAI(api_key="bad-1234", base_url=simulator.urls["deepseek"], max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match=r"Your api key: \*\*\*\*1234 is invalid"):
            await client.models.list()


BEGUN = {"role": "assistant", "content": "".join(ANSWER[:10])}


@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-reasoner"])
async def test_an_answer_that_has_begun_is_continued_without_thinking_again(simulator, model):
    url = simulator.urls["deepseek"] + "/beta"
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=url, max_retries=0) as client:
        chunks = await streamed(client, model=model, messages=[*ASK["messages"], {**BEGUN, "prefix": True}])

    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == list(ANSWER[10:])
    assert chunks[-1].usage.completion_tokens == 15


@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-reasoner"])
async def test_a_beginning_is_refused_where_it_is_no_beta(client, model):
    with pytest.raises(openai.BadRequestError, match="prefix is only available when using beta api"):
        await streamed(client, model=model, messages=[*ASK["messages"], {**BEGUN, "prefix": True}])


async def test_a_beginning_that_is_not_marked_is_none(client):
    chunks = await streamed(client, messages=[*ASK["messages"], BEGUN])
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == list(ANSWER)

    with pytest.raises(openai.BadRequestError, match="assistant message with prefix mode on"):
        await streamed(client, model="deepseek-reasoner", messages=[*ASK["messages"], BEGUN])
