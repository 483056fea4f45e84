"""What deflating an answer for Redis saves, and what it costs whoever stores and whoever reads it."""

import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from domain.chat import Chunk, Usage
from domain.generation import Opened, ProviderChange, Record, Sealed, State
from infrastructure.redis.response_cache import COMPRESSION_LEVEL, inflated
from infrastructure.redis.wire import encode_recording
from infrastructure.simulator.answers import answer_tokens
from perf.figures import Figure

_SIZES = (2, 5, 10, 50, 200)
_CALLS = 50


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Bytes, and CPU microseconds, of answers of several lengths; the simulator's text repeats beyond 150 chunks."""
    rounds = 20 if is_quick else 200
    for chunks in _SIZES:
        plain = encode_recording(1e9, _answer(chunks))
        packed = zlib.compress(plain, COMPRESSION_LEVEL)
        name = f"{chunks} chunks, {len(plain)} bytes"
        yield Figure(scenario="compression", name=f"{name}: share that is left", value=len(packed) / len(plain))
        deflate_us = _cpu_us(partial(zlib.compress, plain, COMPRESSION_LEVEL), rounds)
        inflate_us = _cpu_us(partial(inflated, packed), rounds)
        yield Figure(scenario="compression", name=f"{name}: to deflate", value=deflate_us, unit="µs")
        yield Figure(scenario="compression", name=f"{name}: to inflate", value=inflate_us, unit="µs")


def _answer(chunks: int) -> list[Record]:
    """A whole answer's log."""
    usage = Usage(prompt_tokens=8, completion_tokens=chunks, total_tokens=chunks + 8)
    return [
        Opened(
            generation_id="01KAS0T3Q6B5Y3YB5B5Q3S3Z4F",
            fingerprint="d5f3c2b19a7e4f60" * 4,
            created_at_s=1_763_900_000.25,
            thread_id="01KAS0T3Q6B5Y3YB5B5Q3S3Z4E",
            user="127.0.0.1",
            scope="",
            model="gpt-4o-mini",
        ),
        ProviderChange(status="selected", provider="openai", model="gpt-4o-mini"),
        *map(Chunk, answer_tokens("What is a weir?", chunks)),
        Chunk(finish_reason="stop"),
        Sealed(state=State.DONE, provider="openai", model="gpt-4o-mini", finish_reason="stop", usage=usage),
    ]


def _cpu_us(call: Callable[[], object], rounds: int) -> float:
    """What a call takes, in the quietest of some rounds."""
    return min(_round_us(call) for _ in range(rounds))


def _round_us(call: Callable[[], object]) -> float:
    began_s = time.process_time()
    for _ in range(_CALLS):
        call()
    return (time.process_time() - began_s) / _CALLS * 1e6
