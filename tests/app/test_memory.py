"""What an answer takes in memory is what it is counted as: the cache's limit must be one."""

import gc
import tracemalloc

import pytest

from app import completion_chunks, named_events
from app.completion import completion
from domain.admission import Slots
from domain.answer import Answer, CacheStatus
from domain.chat import Caller, Chunk
from domain.generation import Generation, Opened, Sealed, State
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio
ANSWERS = 10


def answered(chunks):
    """A whole generation of these chunks."""
    opened = Opened(generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope="", model="m")
    generation = Generation(opened)
    epoch = generation.claim()
    for chunk in chunks:
        generation.append(epoch, chunk)
    generation.append(epoch, Sealed(state=State.DONE))
    return generation


async def served_in_every_form(generation):
    """Every encoding that is kept with a hot answer has been made."""
    slot = await Slots(limit=1, limit_per_user=0, clock=FakeClock()).take("u")
    answer = Answer(
        generation=generation,
        cache=CacheStatus.L1,
        caller=Caller(user="u"),
        thread_id="t",
        slot=slot,
        quotas=(),
        publish=lambda _: None,
        clock=FakeClock(),
        began_s=0.0,
    )
    named_events.replay(answer)
    for has_usage in (False, True):
        completion_chunks.replay(answer, has_usage=has_usage)
    completion(generation)
    answer.close()


def text(content):
    return lambda number: Chunk(f"{content}{number}")


@pytest.mark.parametrize(
    "chunk",
    [
        text(""),
        text("word"),
        text("a line of code\n" * 20),
        text("水" * 100),
        lambda number: Chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": f"{number}" * 50}}]}),
    ],
    ids=["nothing", "words", "lines", "not ascii", "tool calls"],
)
async def test_an_answer_takes_no_more_memory_than_it_is_counted_as(chunk):
    """In all the forms that clients ask for it; nor is it counted as much more than it takes."""
    await served_in_every_form(answered([chunk(0)]))
    gc.collect()
    tracemalloc.start()
    try:
        generations = [answered([chunk(number) for number in range(200)]) for _ in range(ANSWERS)]
        for generation in generations:
            await served_in_every_form(generation)
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    counted_bytes = sum(generation.size_bytes for generation in generations)
    assert 0.6 * counted_bytes < taken_bytes <= 1.05 * counted_bytes
