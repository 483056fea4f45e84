"""OpenAI's form of an answer: chat.completion.chunk events, or one chat.completion object.

Source: platform.openai.com/docs/api-reference/chat, "The chat completion chunk object", as known 2026-11.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from app.errors import encode_json, openai_error
from domain.answer import Answer
from domain.chat import Chunk, Usage
from domain.errors import WeirError
from domain.generation import Generation, ProviderChange, Record, Sealed


def completion_id(generation: Generation) -> str:
    """OpenAI's id of the answer: the same for all who share it."""
    return f"chatcmpl-{generation.opened.generation_id}"


def answering_model(records: Iterable[Record]) -> str:
    """The model that gave the first chunk: the one that is reported throughout."""
    model = ""
    for record in records:
        if isinstance(record, Chunk):
            break
        if isinstance(record, ProviderChange):
            model = record.model
    return model


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The provider's counts as OpenAI names them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **usage.details,
    }


class SharedChunks:
    """A generation's records as OpenAI's chunks, encoded once for all who read this form.

    With `has_usage` every chunk has a `usage`, null but in the last one (`stream_options.include_usage`).
    """

    __slots__ = ("__weakref__", "_frames", "_generation", "_has_usage", "_head", "_indexes", "_tail")

    def __init__(self, generation: Generation, *, has_usage: bool) -> None:
        self._generation = generation
        self._has_usage = has_usage
        self._frames: list[bytes] = []
        self._indexes: set[int] = set()
        self._head = self._tail = b""

    def between(self, first: int, end: int) -> list[bytes]:
        """The events numbered `first` to `end` - 1; records that this form does not show are empty."""
        for number in range(len(self._frames), end):
            self._frames.append(self._encode(number, self._generation.records[number]))
        return self._frames[first:end]

    def _encode(self, number: int, record: Record) -> bytes:
        match record:
            case Chunk():
                return self._chunk(number, record)
            case Sealed(failure=None):
                return self._usage(record) + b"id: %d\ndata: [DONE]\n\n" % number
            case Sealed(failure=failure) if failure is not None:
                return _error(failure, number)
            case _:
                return b""

    def _chunk(self, number: int, chunk: Chunk) -> bytes:
        self._set_frame()
        if chunk.index in self._indexes and not (chunk.delta or chunk.choice or chunk.index or chunk.finish_reason):
            return b'id: %d\ndata: %b{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":null}%b' % (
                number,
                self._head,
                encode_json(chunk.content),
                self._tail,
            )
        choice = {"index": chunk.index, "delta": self._delta(chunk), "logprobs": None, **(chunk.choice or {})}
        choice["finish_reason"] = chunk.finish_reason
        return b"id: %d\ndata: %b%b%b" % (number, self._head, encode_json(choice), self._tail)

    def _delta(self, chunk: Chunk) -> dict[str, Any]:
        """The chunk's delta, with the role when it is the first of its choice."""
        is_first = chunk.index not in self._indexes
        self._indexes.add(chunk.index)
        role: dict[str, Any] = {"role": "assistant"} if is_first else {}
        has_content = chunk.content or (is_first and not chunk.delta)
        return role | ({"content": chunk.content} if has_content else {}) | dict(chunk.delta or {})

    def _usage(self, sealed: Sealed) -> bytes:
        if not (self._has_usage and sealed.usage):
            return b""
        self._set_frame()
        tail = b'],"usage":%b}\n\n' % encode_json(usage_fields(sealed.usage))
        return b"data: %b%b" % (self._head, tail)

    def _set_frame(self) -> None:
        """Lay out what stands before and after each choice, once it is known who answers."""
        if not self._head:
            self._head = b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
                encode_json(completion_id(self._generation)),
                self._generation.opened.created_at_s,
                encode_json(answering_model(self._generation.records)),
            )
            self._tail = b'],"usage":null}\n\n' if self._has_usage else b"]}\n\n"


def _error(failure: WeirError, number: int) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (number, encode_json(openai_error(failure)))


_shared: WeakValueDictionary[tuple[str, bool], SharedChunks] = WeakValueDictionary()
_replays: WeakKeyDictionary[Generation, dict[bool, bytes]] = WeakKeyDictionary()


class CompletionChunks:
    """A client's view in OpenAI's form."""

    __slots__ = ("_shared",)

    def __init__(self, answer: Answer, *, has_usage: bool) -> None:
        key = (answer.stream_id, has_usage)
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = SharedChunks(answer.generation, has_usage=has_usage)
        self._shared = shared

    def encode(self, records: Sequence[Record], first_number: int) -> bytes:
        """The events for `records`, of which the first is number `first_number`; may be empty."""
        return b"".join(self._shared.between(first_number, first_number + len(records)))

    def encode_failure(self, failure: WeirError, number: int) -> bytes:
        """The error object that ends the stream at that number."""
        return _error(failure, number)


def replay(answer: Answer, *, has_usage: bool) -> bytes:
    """The whole body for a stored answer, encoded once."""
    generation = answer.generation
    bodies = _replays.setdefault(generation, {})
    if has_usage not in bodies:
        shared = SharedChunks(generation, has_usage=has_usage)
        bodies[has_usage] = b"".join(shared.between(0, len(generation.records)))
    return bodies[has_usage]
