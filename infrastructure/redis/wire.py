"""How records look in Redis: msgpack arrays, each begun by its kind.

Fields are only ever added at the end, with a default, so that what an older version wrote can still be read.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from domain.chat import ChatRequest, Chunk, Turn, Usage
from domain.errors import (
    AllProvidersDown,
    AnswerFailed,
    Attempt,
    Cancelled,
    Internal,
    RequestRejected,
    StreamInterrupted,
    UpstreamTimeout,
)
from domain.generation import Opened, ProviderChange, Record, Sealed, State


class _Turn(msgspec.Struct, array_like=True, frozen=True):
    session_id: str
    birth_id: str
    turn_id: str
    place: int
    messages: list[dict[str, Any]]


class _Opened(msgspec.Struct, array_like=True, tag=0, frozen=True):
    generation_id: str
    fingerprint: str
    created_at_s: float
    thread_id: str
    user: str
    scope: str
    model: str
    is_shared: bool
    is_kept: bool = True
    turn: _Turn | None = None


class _Change(msgspec.Struct, array_like=True, tag=1, frozen=True):
    status: str
    provider: str
    model: str
    previous: str | None
    reason: str | None
    fork: int = 0


class _Chunk(msgspec.Struct, array_like=True, tag=2, frozen=True):
    content: str
    finish_reason: str | None = None
    index: int = 0
    delta: dict[str, Any] | None = None
    choice: dict[str, Any] | None = None


class _Failure(msgspec.Struct, array_like=True, frozen=True):
    code: str
    detail: str
    attempts: list[tuple[str, str, str]]
    status: int | None


class _Usage(msgspec.Struct, array_like=True, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    details: dict[str, Any]


class _Sealed(msgspec.Struct, array_like=True, tag=3, frozen=True):
    state: str
    provider: str | None
    model: str | None
    finish_reason: str | None
    usage: _Usage | None
    cost_usd: float | None
    chunk_count: int
    ttft_s: float | None
    duration_s: float
    failure: _Failure | None
    fork: int = 0


class _Texts(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """Chunks that have nothing but their texts, one after another: in an answer, that is most of them."""

    texts: list[str]


class _Request(msgspec.Struct, array_like=True, frozen=True):
    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    provider: str | None


_ANSWER_FAILURES: Mapping[str, type[AnswerFailed]] = {
    kind.code: kind
    for kind in (AllProvidersDown, UpstreamTimeout, RequestRejected, StreamInterrupted, Cancelled, Internal)
}

_pack = msgspec.msgpack.Encoder().encode


def _encode(value: Any) -> bytes:
    """`value`, an array, in msgpack; or in JSON when it has an integer that only JSON can have."""
    try:
        return _pack(value)
    except OverflowError:
        return msgspec.json.encode(value)


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    """What reads those: no array begins with that byte in msgpack."""
    packed, written = msgspec.msgpack.Decoder(kind).decode, msgspec.json.Decoder(kind).decode
    return lambda data: written(data) if data[:1] == b"[" else packed(data)


_record = _decoder(_Opened | _Change | _Chunk | _Sealed)
_recording = _decoder(tuple[float, list[_Opened | _Change | _Chunk | _Sealed | _Texts]])
_request = _decoder(_Request)


def encode_record(record: Record) -> bytes:
    """`record` as bytes that `decode_record` reads."""
    return _encode(_to_wire(record))


def decode_record(data: bytes) -> Record:
    """The record that was encoded.

    Raises:
        msgspec.MsgspecError, ValueError: `data` is something else.
    """
    return _from_wire(_record(data))


def encode_recording(sealed_at_s: float, records: Sequence[Record]) -> bytes:
    """A whole answer as bytes that `decode_recording` reads, without the turn, which is its asker's alone."""
    wires: list[msgspec.Struct] = []
    for is_text, run in groupby(records, _is_text):
        if is_text:
            wires.append(_Texts([chunk.content for chunk in run if type(chunk) is Chunk]))
        else:
            wires.extend([_to_wire(record) for record in run])
    wires[0] = msgspec.structs.replace(wires[0], turn=None)
    return _encode((sealed_at_s, wires))


def decode_recording(data: bytes) -> tuple[float, list[Record]]:
    """When the answer that was encoded was sealed, and its records.

    Raises:
        msgspec.MsgspecError, ValueError: `data` is something else.
    """
    sealed_at_s, wires = _recording(data)
    records: list[Record] = []
    for wire in wires:
        if type(wire) is _Texts:
            records.extend(map(Chunk, wire.texts))
        else:
            records.append(_from_wire(wire))
    return sealed_at_s, records


def _is_text(record: Record) -> bool:
    return type(record) is Chunk and record == Chunk(record.content)


def encode_request(request: ChatRequest) -> bytes:
    """`request` as bytes that `decode_request` reads."""
    return _encode(_Request(request.model, list(map(dict, request.messages)), dict(request.options), request.provider))


def decode_request(data: bytes) -> ChatRequest:
    """The request that was encoded.

    Raises:
        msgspec.MsgspecError: `data` is something else.
    """
    wire = _request(data)
    return ChatRequest(model=wire.model, messages=tuple(wire.messages), options=wire.options, provider=wire.provider)


def _to_wire(record: Record) -> msgspec.Struct:
    if type(record) is Chunk:
        return _Chunk(record.content, record.finish_reason, record.index, _plain(record.delta), _plain(record.choice))
    match record:
        case ProviderChange():
            return _Change(record.status, record.provider, record.model, record.previous, record.reason, record.fork)
        case Opened():
            return _opened(record)
        case Sealed():
            return _sealed(record)
    raise TypeError(type(record))


def _from_wire(wire: Any) -> Record:
    if type(wire) is _Chunk:
        return Chunk(wire.content, wire.finish_reason, wire.index, wire.delta, wire.choice)
    return _RECORDS[type(wire)](wire)


def _plain(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if fields is None else dict(fields)


def _opened(record: Opened) -> _Opened:
    fields = {name: getattr(record, name) for name in _Opened.__struct_fields__}
    turn = record.turn
    if turn is not None:
        messages = list(map(dict, turn.messages))
        fields["turn"] = _Turn(turn.session_id, turn.birth_id, turn.turn_id, turn.place, messages)
    return _Opened(**fields)


def _turn(wire: _Turn) -> Turn:
    return Turn(**msgspec.structs.asdict(wire) | {"messages": tuple(wire.messages)})


def _sealed(record: Sealed) -> _Sealed:
    usage, failure = record.usage, record.failure
    return _Sealed(
        record.state.value,
        record.provider,
        record.model,
        record.finish_reason,
        _Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, dict(usage.details))
        if usage
        else None,
        record.cost_usd,
        record.chunk_count,
        record.ttft_s,
        record.duration_s,
        _Failure(
            failure.code,
            str(failure),
            [(attempt.provider, attempt.model, attempt.reason) for attempt in failure.attempts],
            failure.status if isinstance(failure, RequestRejected) else None,
        )
        if failure
        else None,
        record.fork,
    )


def _unsealed(wire: _Sealed) -> Sealed:
    usage = Usage(**msgspec.structs.asdict(wire.usage)) if wire.usage else None
    return Sealed(
        state=State(wire.state),
        provider=wire.provider,
        model=wire.model,
        finish_reason=wire.finish_reason,
        usage=usage,
        cost_usd=wire.cost_usd,
        chunk_count=wire.chunk_count,
        ttft_s=wire.ttft_s,
        duration_s=wire.duration_s,
        failure=_failure(wire.failure) if wire.failure else None,
        fork=wire.fork,
    )


_RECORDS: Mapping[type, Callable[[Any], Record]] = {
    _Opened: lambda wire: Opened(**msgspec.structs.asdict(wire) | {"turn": wire.turn and _turn(wire.turn)}),
    _Change: lambda wire: ProviderChange(**msgspec.structs.asdict(wire)),
    _Sealed: _unsealed,
}


def _failure(wire: _Failure) -> AnswerFailed:
    """The failure as it was; its words are not made anew."""
    kind = _ANSWER_FAILURES.get(wire.code, Internal)
    failure = kind.__new__(kind, wire.detail)
    AnswerFailed.__init__(failure, wire.detail, tuple(Attempt(*attempt) for attempt in wire.attempts))
    if isinstance(failure, RequestRejected):
        failure.status = wire.status or 400
    return failure
