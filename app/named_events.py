"""The events of /v1/stream: status, chunk, complete, error."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from app.completion_chunks import usage_fields
from app.errors import encode_json, problem
from domain.answer import Answer, CacheStatus
from domain.chat import Chunk
from domain.errors import WeirError
from domain.generation import Generation, ProviderChange, Record, Sealed

FOLLOWING_NUMBER = 1
"""The number of the record that says who is asked first; those who do not cause the call are told otherwise there."""


def event(name: bytes, number: int, data: object) -> bytes:
    """One event; JSON as we encode it never has a raw newline."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name, number, encode_json(data))


_CHUNK = b'event: chunk\nid: %d\ndata: {"content":%b,"chunk_index":%d,"finish_reason":%b%b\n\n'
_TEXT = b'event: chunk\nid: %d\ndata: {"content":%b,"chunk_index":%d,"finish_reason":null}\n\n'
"""Most chunks are nothing but text."""


class SharedEvents:
    """The events that are the same for every reader of a generation, encoded once: chunks and changes of provider."""

    __slots__ = ("__weakref__", "_chunk_count", "_frames", "_generation")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._frames: list[bytes] = []
        self._chunk_count = 0

    def between(self, first: int, end: int) -> list[bytes]:
        """The events numbered `first` to `end` - 1."""
        begun = len(self._frames)
        for number, record in enumerate(self._generation.records[begun:end], begun):
            self._frames.append(self._encode(number, record))
        return self._frames[first:end]

    def _encode(self, number: int, record: Record) -> bytes:
        if type(record) is Chunk:
            self._chunk_count += 1
            return _chunk(number, self._chunk_count, record)
        return event(b"status", number, _change(record)) if type(record) is ProviderChange else b""


_shared: WeakValueDictionary[str, SharedEvents] = WeakValueDictionary()
_replays: WeakKeyDictionary[Generation, tuple[bytes, bytes]] = WeakKeyDictionary()


class NamedEvents:
    """A client's view: the shared events, and its own first, second (unless it caused the call) and last one."""

    __slots__ = ("_answer", "_shared")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        stream_id = answer.stream_id
        shared = _shared.get(stream_id)
        if shared is None:
            shared = _shared[stream_id] = SharedEvents(answer.generation)
        self._shared = shared

    def encode(self, records: Sequence[Record], first_number: int) -> bytes:
        """The events for `records`, of which the first is number `first_number`."""
        end = first_number + len(records)
        frames = self._shared.between(first_number, end)
        if first_number == 0:
            frames[0] = self._opening()
        if self._tells_otherwise and first_number <= FOLLOWING_NUMBER < end:
            frames[FOLLOWING_NUMBER - first_number] = b""
        if isinstance(last := records[-1], Sealed):
            frames[-1] = ending(self._answer, last, end - 1)
        return b"".join(frames)

    def encode_failure(self, failure: WeirError, number: int) -> bytes:
        """The `error` event that ends the stream at that number."""
        return event(b"error", number, problem(failure, self._answer.thread_id))

    @property
    def _tells_otherwise(self) -> bool:
        return self._answer.cache is CacheStatus.COALESCED

    def _opening(self) -> bytes:
        following = event(b"status", FOLLOWING_NUMBER, {"status": "following"}) if self._tells_otherwise else b""
        return validated(self._answer) + following


def validated(answer: Answer) -> bytes:
    """The first event of every stream; ids need no escapes in JSON."""
    return b'event: status\nid: 0\ndata: {"status":"validated","thread_id":"%b","stream_id":"%b"}\n\n' % (
        answer.thread_id.encode(),
        answer.stream_id.encode(),
    )


def replay(answer: Answer) -> tuple[bytes, ...]:
    """The whole body for a stored answer, in parts: all but its first two events and the last was encoded once."""
    generation = answer.generation
    end = len(generation.records) - 1
    stored = _replays.get(generation)
    if stored is None:
        sealed = generation.sealed
        assert sealed is not None  # noqa: S101  # only whole answers are stored
        shared = SharedEvents(generation).between(0, end)[FOLLOWING_NUMBER + 1 :]
        stored = _replays[generation] = b"".join(shared), _summary(answer, sealed)
    hit = b'event: status\nid: %d\ndata: {"status":"cache_hit","tier":"%b"}\n\n' % (
        FOLLOWING_NUMBER,
        answer.cache.encode(),
    )
    shared_events, summary = stored
    duration_s = answer.duration_s
    return validated(answer) + hit, shared_events, _complete(answer, end, summary, duration_s, duration_s)


def ending(answer: Answer, sealed: Sealed, number: int) -> bytes:
    """The last event: `complete`, or the `error` that says why there is none."""
    if sealed.failure is not None:
        return event(b"error", number, problem(sealed.failure, answer.thread_id))
    return _complete(answer, number, _summary(answer, sealed), sealed.ttft_s, sealed.duration_s)


def _summary(answer: Answer, sealed: Sealed) -> bytes:
    """The members of `complete` that are the same for all who are served the answer in the same way."""
    members = {
        "stream_id": answer.stream_id,
        "provider": sealed.provider,
        "model": sealed.model,
        "chunk_count": sealed.chunk_count,
        "finish_reason": sealed.finish_reason,
        "usage": sealed.usage and usage_fields(sealed.usage),
        "cost_usd": 0.0 if answer.cache.spares_a_call else sealed.cost_usd,
        "saved_usd": answer.saved_usd(sealed),
    }
    return encode_json(members)[1:-1]


def _complete(answer: Answer, number: int, summary: bytes, ttft_s: float | None, duration_s: float) -> bytes:
    form = b'event: complete\nid: %d\ndata: {"thread_id":"%b","cache":"%b",%b,"ttft_ms":%b,"duration_ms":%.1f}\n\n'
    ttft_ms = b"null" if ttft_s is None else b"%.1f" % (ttft_s * 1000)
    thread_id, cache = answer.thread_id.encode(), answer.cache.encode()
    return form % (number, thread_id, cache, summary, ttft_ms, duration_s * 1000)


def _chunk(number: int, chunk_index: int, chunk: Chunk) -> bytes:
    text, reason = encode_json(chunk.content), chunk.finish_reason
    if reason is None and not (chunk.delta or chunk.choice or chunk.index):
        return _TEXT % (number, text, chunk_index)
    finish_reason = b"null" if reason is None else encode_json(reason)
    return _CHUNK % (number, text, chunk_index, finish_reason, _more(chunk))


def _more(chunk: Chunk) -> bytes:
    """The rest of its object, with what it has beside its text."""
    more = {**(chunk.delta or {}), **(chunk.choice or {}), **({"index": chunk.index} if chunk.index else {})}
    return b"," + encode_json(more)[1:] if more else b"}"


def _change(change: ProviderChange) -> dict[str, Any]:
    if change.previous is None:
        return {"status": change.status, "provider": change.provider, "model": change.model}
    return {
        "status": change.status,
        "from": change.previous,
        "to": change.provider,
        "model": change.model,
        "reason": change.reason,
    }
