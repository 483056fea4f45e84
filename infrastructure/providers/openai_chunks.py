"""Reads the events of an OpenAI stream: only what Weir needs is looked at, the rest stays as it is."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from domain.chat import Chunk, Json, Usage
from domain.errors import ProviderUnavailable
from infrastructure.providers.openai_errors import event_error
from infrastructure.providers.token_counts import token_count

FAILED_REASONS: Mapping[str, str] = {"insufficient_system_resource": "ran out of resources"}
"""Finish reasons that mean the provider has failed. Source: DeepSeek's API reference, as known 2026-11."""


END_MARK = b"[DONE]"


class Event(msgspec.Struct, gc=False):
    """One event: pieces of choices, the usage, or an error."""

    choices: list[dict[str, Any]] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Event)


class OpenAIReader:
    """Reads the events of one answer by `model`."""

    __slots__ = ("_api_key", "_model", "has_ended")

    def __init__(self, model: str, api_key: str) -> None:
        self._model = model
        self._api_key = api_key
        self.has_ended = False

    def read(self, data: bytes) -> Iterable[Chunk]:
        """The chunks of an event, in order, without those that say nothing."""
        if data == END_MARK:
            self.has_ended = True
            return ()
        event = _decoder.decode(data)
        if event.error is not None:
            raise event_error(event.error, self._model, self._api_key)
        return _chunks(event)


def _chunks(event: Event) -> list[Chunk]:
    chunks = [chunk for choice in event.choices or () if (chunk := _chunk(choice)) is not None]
    if event.usage is not None:
        chunks.append(Chunk(usage=_usage(event.usage)))
    return chunks


def _chunk(choice: dict[str, Json]) -> Chunk | None:
    delta = choice.pop("delta", None) or {}
    index = choice.pop("index", 0)
    finish_reason = choice.pop("finish_reason", None) or None  # some servers say "" where OpenAI says null
    if not (isinstance(delta, dict) and isinstance(index, int) and isinstance(finish_reason, str | None)):
        raise TypeError
    content = delta.pop("content", None) or ""
    delta.pop("role", None)
    choice.pop("message", None)  # some servers say with every chunk what all of them have come to
    if not isinstance(content, str):
        raise TypeError
    if finish_reason is not None and finish_reason in FAILED_REASONS:
        raise ProviderUnavailable(FAILED_REASONS[finish_reason])
    rest, beside = _said(delta), _said(choice)
    if content or finish_reason or rest or beside:
        return Chunk(content, finish_reason, index, rest, beside)
    return None


def _said(fields: dict[str, Json]) -> dict[str, Json] | None:
    """The fields that say something; None: there is none.

    Many servers open with empty ones: DeepSeek's reasoners with `"reasoning_content": ""`, others with no tool calls.
    """
    return {name: value for name, value in fields.items() if not _is_empty(value)} or None


def _is_empty(value: Json) -> bool:
    """Whether there is nothing in it, however deep."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return all(map(_is_empty, value)) if isinstance(value, list) else value is None or value == ""


def _usage(counts: dict[str, Json]) -> Usage:
    prompt, completion = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
    total = _count(counts, "total_tokens") or prompt + completion
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, details=counts)


def _count(counts: dict[str, Json], name: str) -> int:
    return token_count(counts.pop(name, None))
