"""Request bodies: what may stand in them, and the domain values they become."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from app.headers import ID_CHARACTERS, SESSION_ID, THREAD_ID
from domain.chat import ChatRequest
from domain.errors import FieldError, InvalidRequest

MAX_MESSAGES = 2048

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, msgspec.Meta(min_length=1)] | Annotated[list[str], msgspec.Meta(min_length=1, max_length=4)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
SessionId = Annotated[str, msgspec.Meta(pattern=rf"^{SESSION_ID.pattern}(?!\n)$")]
ThreadId = Annotated[str, msgspec.Meta(pattern=rf"^{THREAD_ID.pattern}(?!\n)$")]  # $ alone allows a last line break
_SCOPE = r"^(shared|(tenant|user):[!-~]{1,200})(?!\n)$"
ScopeName = Annotated[str, msgspec.Meta(pattern=_SCOPE)]
_PATTERNS = {_SCOPE: "shared, tenant:NAME or user:NAME is needed"}
"""What they stand for, in words; where nothing stands it is an id."""


class StreamMessage(msgspec.Struct, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class StreamBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/stream: a `query`, or the `messages` of a conversation, for a `model`.

    With a `session_id` they go on with the conversation that is kept under it.
    """

    model: Name
    query: str | None = None
    messages: Annotated[list[StreamMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    provider: Name | None = None
    thread_id: ThreadId | None = None
    session_id: SessionId | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    stop: Stop | None = None
    seed: Seed | None = None


class StreamOptions(msgspec.Struct, kw_only=True):
    """How OpenAI's streams are delivered."""

    include_usage: bool | None = None


class CompletionMessage(msgspec.Struct, kw_only=True):
    """One turn of a conversation in OpenAI's form; its other fields go to the provider unchanged."""

    role: Name
    content: str | list[dict[str, Any]] | None = None


class CompletionBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/chat/completions, as far as Weir reads it; all else goes to the provider unchanged."""

    model: Name
    messages: Annotated[list[CompletionMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: Stop | None = None
    seed: Seed | None = None


MAX_DEPTH = 100
"""Levels of a body at most: tool schemas have a dozen."""
MAX_VALUES = 20_000
"""Values of a body at most, one in another or side by side: whatever is done to each holds all streams up."""

_TOO_DEEP = FieldError("body", f"nested more than {MAX_DEPTH} levels deep")
_TOO_MANY = FieldError("body", f"more than {MAX_VALUES} values")
_MAX_EXTREMES = 5_000
_EXTREME = re.compile(rb"[eE][+-]?0*[1-3]\d\d(?!\d)")
"""Numbers such as 1e300, of which one may take the decoder 10 µs: as long as a few hundred others."""
_TOO_EXTREME = FieldError("body", f"more than {_MAX_EXTREMES} numbers with hundreds of digits")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_CONTROL_REASON = "control characters are no text, but for tabs, line breaks and form feeds (U+0009 to U+000D)"

_OPTIONS = ("temperature", "top_p", "max_tokens", "stop", "seed")
_NOT_FOR_PROVIDERS = frozenset({"model", "messages", "stream", "stream_options"})

_WHOLE = ("max_tokens", "max_completion_tokens", "seed", "n")

T = TypeVar("T")
_stream_body = msgspec.json.Decoder(StreamBody)
_json_object = msgspec.json.Decoder(dict[str, Any])


def parse_stream_body(body: bytes, max_query_chars: int) -> tuple[StreamBody, ChatRequest]:
    """What POST /v1/stream asks.

    Raises:
        InvalidRequest: naming the field and what would be right.
    """
    parsed = _stream_body_of(body)
    if (parsed.query is None) == (parsed.messages is None):
        raise InvalidRequest(FieldError("query", "either query or messages is needed, not both and not neither"))
    messages: list[dict[str, Any]] = (
        [{"role": "user", "content": parsed.query}]
        if parsed.messages is None
        else [{"role": message.role, "content": message.content} for message in parsed.messages]
    )
    _check_text("messages" if parsed.query is None else "query", messages, max_query_chars)
    options = {name: value for name in _OPTIONS if (value := getattr(parsed, name)) is not None}
    return parsed, ChatRequest(model=parsed.model, messages=tuple(messages), options=options, provider=parsed.provider)


def parse_completion_body(body: bytes, max_query_chars: int) -> tuple[CompletionBody, ChatRequest]:
    """What POST /v1/chat/completions asks; the fields that are not read here are among the request's options.

    Raises:
        InvalidRequest: naming the field and what would be right.
    """
    raw = _with_whole_numbers(decoded(_json_object, body))
    try:
        parsed = msgspec.convert(raw, CompletionBody)
    except msgspec.ValidationError as error:
        raise _invalid(error, CompletionBody) from None
    _check_text("messages", raw["messages"], max_query_chars)
    options = {name: value for name, value in raw.items() if name not in _NOT_FOR_PROVIDERS}
    return parsed, ChatRequest(model=parsed.model, messages=tuple(raw["messages"]), options=options)


def _stream_body_of(body: bytes) -> StreamBody:
    """The body; where 5.0 stands for 5 it is read a second time, as most bodies need not be."""
    try:
        return decoded(_stream_body, body)
    except InvalidRequest:
        raw = _with_whole_numbers(decoded(_json_object, body))
        try:
            return msgspec.convert(raw, StreamBody)
        except msgspec.ValidationError as error:
            raise _invalid(error, StreamBody) from None


def _with_whole_numbers(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` with 5 for 5.0 where an integer is needed: JSON, and so OpenAI's API, knows no difference."""
    for name in _WHOLE:
        if type(number := raw.get(name)) is float and number.is_integer():
            raw[name] = int(number)
    return raw


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """What `body` says.

    Raises:
        InvalidRequest: naming the field and what would be right.
    """
    comma_count = body.count(b",")
    if comma_count > _MAX_EXTREMES and len(_EXTREME.findall(body)) > _MAX_EXTREMES:
        raise InvalidRequest(_TOO_EXTREME)
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error, decoder.type) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(FieldError("body", f"not JSON: {error}")) from None
    except UnicodeError:
        raise InvalidRequest(FieldError("body", "not Unicode text: UTF-8 without lone surrogates is needed")) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    bracket_count = body.count(b"{") + body.count(b"[")
    if bracket_count + comma_count > MAX_VALUES and _has_more(value, MAX_VALUES):
        raise InvalidRequest(_TOO_MANY)
    if bracket_count > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise InvalidRequest(_TOO_DEEP)
    return value


def _has_more(value: Any, count: int) -> bool:
    """Whether more than `count` values are in lists and objects; no more than those are looked at."""
    found = [value]
    while found:
        each = found.pop()
        inside = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        count -= len(inside)
        if count < 0:
            return True
        found.extend(inside)
    return False


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` levels deep."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return not depth or any(_is_deeper(item, depth - 1) for item in value)


def _check_text(field: str, messages: list[dict[str, Any]], max_chars: int) -> None:
    """Some message says something, and all of them together not too much."""
    texts = [text for message in messages for text in _texts(message.get("content"))]
    length = sum(map(len, texts))
    if length > max_chars:
        raise InvalidRequest(FieldError(field, f"{length} characters; at most {max_chars} are allowed"))
    for found in filter(None, map(_CONTROL.search, texts)):
        raise InvalidRequest(
            FieldError(field, f"U+{ord(found[0]):04X} at character {found.start()}: {_CONTROL_REASON}")
        )
    if not any(map(str.strip, texts)) and all(isinstance(message.get("content"), str) for message in messages):
        raise InvalidRequest(FieldError(field, "empty; a question is needed"))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if isinstance(part.get("text"), str)]


_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_NAMED_FIELD = re.compile(r"(?:unknown|missing required) field `(.*?)`")


def _invalid(error: msgspec.ValidationError, kind: Any) -> InvalidRequest:
    """Msgspec's sentence about a body of that `kind` as a field and a reason."""
    text = str(error)
    place, named = _PLACE.search(text), _NAMED_FIELD.search(text)
    path = [place.group(1)] if place else []
    fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    field = ".".join(path + ([named.group(1)] if named else []))
    return InvalidRequest(FieldError(field or "body", _reason(text, () if place else fields)))


def _reason(text: str, fields: Sequence[str]) -> str:
    """What is wrong, and what would be right."""
    if " matching regex " in text:
        return next((words for pattern, words in _PATTERNS.items() if repr(pattern) in text), ID_CHARACTERS)
    reason = _PLACE.sub("", text)
    return f"{reason}; known are {', '.join(fields)}" if fields and " unknown field " in text else reason


def include_usage(body: CompletionBody) -> bool:
    """Whether the client wants the usage as a last chunk."""
    return bool(body.stream_options and body.stream_options.include_usage)
