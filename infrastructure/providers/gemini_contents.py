"""Puts a conversation in OpenAI's words into Gemini's. Source: ai.google.dev/api/caching#Content, as known 2026-11."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from domain.chat import Json
from domain.errors import RouteUnfit

ROLES: Mapping[str, str] = {"user": "user", "assistant": "model", "tool": "user"}
_INSTRUCTING = frozenset({"system", "developer"})


class ImageUrl(msgspec.Struct):
    """An image, by address or as a data: URL."""

    url: str


class InputAudio(msgspec.Struct):
    """A sound, in base64."""

    data: str
    format: str


class Part(msgspec.Struct):
    """A piece of a message's content."""

    type: str
    text: str = ""
    refusal: str = ""
    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None


class Function(msgspec.Struct):
    """A function called, its arguments in JSON."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """A tool called by the assistant."""

    function: Function
    id: str = ""
    extra_content: dict[str, dict[str, Any]] | None = None


class Message(msgspec.Struct):
    """A turn of the conversation."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str = ""


def contents(messages: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """`contents` and, if anything instructs the model, `systemInstruction` of a request.

    Raises:
        RouteUnfit: a message has what Gemini has no words for.
        msgspec.MsgspecError: a message is not of OpenAI's shape.
    """
    turns = msgspec.convert(messages, list[Message])
    instruction = [part for turn in turns if turn.role in _INSTRUCTING for part in _said(turn)]
    said = list(_contents(turn for turn in turns if turn.role not in _INSTRUCTING))
    if not instruction:
        return {"contents": said}
    if not said:  # Gemini does not answer an instruction alone
        return {"contents": [{"role": "user", "parts": instruction}]}
    return {"systemInstruction": {"parts": instruction}, "contents": said}


def _contents(turns: Iterator[Message]) -> Iterator[dict[str, Json]]:
    """The turns; the results of several calls are one, as Gemini wants them."""
    names: dict[str, str] = {}
    results: list[Json] = []
    for turn in turns:
        if turn.role == "tool":
            results.append(_result(turn, names))
            continue
        if results:
            yield {"role": ROLES["tool"], "parts": results}
            results = []
        names |= {call.id: call.function.name for call in turn.tool_calls or ()}
        yield {"role": _role(turn), "parts": _said(turn) + [_call(call) for call in turn.tool_calls or ()]}
    if results:
        yield {"role": ROLES["tool"], "parts": results}


def _role(turn: Message) -> str:
    if turn.role not in ROLES:
        raise RouteUnfit(f"cannot take messages of the role {turn.role}")
    return ROLES[turn.role]


def _said(turn: Message) -> list[dict[str, Json]]:
    if isinstance(turn.content, str):
        return [{"text": turn.content}] if turn.content or not turn.tool_calls else []
    return [_part(part) for part in turn.content or ()]


def _part(part: Part) -> dict[str, Json]:
    if part.type in {"text", "refusal"}:
        return {"text": part.text or part.refusal}
    if part.image_url is not None:
        return {"inlineData": _inline(part.image_url.url)}
    if part.input_audio is not None:
        return {"inlineData": {"mimeType": f"audio/{part.input_audio.format}", "data": part.input_audio.data}}
    raise RouteUnfit(f"cannot take content parts of the type {part.type}")


def _inline(url: str) -> dict[str, str]:
    head, _, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise RouteUnfit("cannot take image_url parts other than data: URLs in base64")
    return {"mimeType": head.removeprefix("data:").partition(";")[0], "data": data}


def _call(call: ToolCall) -> dict[str, Json]:
    arguments = msgspec.json.decode(call.function.arguments or "{}")
    said: dict[str, Json] = {"functionCall": {"name": call.function.name, "args": arguments}}
    signature = (call.extra_content or {}).get("google", {}).get("thought_signature")
    return {**said, "thoughtSignature": signature} if signature else said


def _result(turn: Message, names: Mapping[str, str]) -> dict[str, Json]:
    text = "".join(part.get("text", "") for part in _said(turn))
    name = names.get(turn.tool_call_id, turn.tool_call_id)
    return {"functionResponse": {"name": name, "response": _object(text)}}


def _object(text: str) -> dict[str, Json]:
    """What a tool said, as the JSON object that Gemini wants."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"result": text}
