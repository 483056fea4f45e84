"""The simulated OpenAI, through the real SDK."""

import pytest
from openai import AsyncOpenAI

from infrastructure.simulator.answers import answer_tokens

pytestmark = pytest.mark.anyio
ASK = {"messages": [{"role": "user", "content": "What is a weir?"}]}
ANSWER = "".join(answer_tokens("What is a weir?", 25))


@pytest.fixture
async def openai(simulator):
    async with AsyncOpenAI(api_key="sk-test", base_url=simulator.urls["openai"], max_retries=0) as client:
        yield client


async def test_streams_role_then_words_then_the_reason_it_stopped(openai, simulator):
    stream = await openai.chat.completions.create(model="gpt-4o-mini", stream=True, **ASK)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]

    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 26 + ["stop"]
    assert simulator.counters("openai")["finished"] == 1
