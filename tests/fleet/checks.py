"""What must hold after anything that can happen to a fleet."""

import asyncio

from tests.app import metrics
from tests.app.asking import STREAM, connected, text
from tests.fleet.readers import question

STREAMS = 300


def check_whole(readers, tokens):
    """Every reader has every event once, in order, and the whole text.

    Raises:
        AssertionError: one has not.
    """
    for reader in readers:
        reader.check(tokens)


def count_calls(simulator):
    """How often the provider was asked."""
    return simulator.counters("openai")["calls"]


async def until_whole(*instances):
    """Return when each instance says that Redis is there."""
    for instance in instances:
        async with connected(instance.url) as client, asyncio.timeout(10):
            await metrics.until(client, "sse_degraded", lambda value: value == 0, component="redis")


async def check_shared(simulator, instances):
    """What one answers, another can answer, as ever."""
    query, calls = question(), count_calls(simulator)
    await until_whole(*instances)
    answers = []
    for instance in instances:
        async with connected(instance.url) as client:
            answers.append(text((await client.ask(STREAM, query)).events))
    assert len(set(answers)) == 1
    assert count_calls(simulator) == calls + 1
