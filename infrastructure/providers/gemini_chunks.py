"""Reads the events of a Gemini stream, and says them in OpenAI's words."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from domain.chat import Chunk, Json, Usage
from domain.errors import ProviderRejected, ProviderUnavailable
from infrastructure.providers.gemini_errors import event_error
from infrastructure.providers.token_counts import token_count

FINISH_REASONS: Mapping[str, str] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "BLOCKLIST": "content_filter",
    "SPII": "content_filter",
    "LANGUAGE": "content_filter",
}
"""All others (MALFORMED_FUNCTION_CALL, OTHER, …) mean that Gemini has failed."""

UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"
"""What stands where there is no finish reason."""


class FunctionCall(msgspec.Struct):
    """A whole call; Gemini does not send it in pieces."""

    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class Part(msgspec.Struct, rename="camel"):
    """A piece of the answer."""

    text: str | None = None
    thought: bool = False
    function_call: FunctionCall | None = None
    thought_signature: str | None = None


class Content(msgspec.Struct):
    """What a candidate says in this event."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """A choice."""

    content: Content | None = None
    finish_reason: str | None = None
    index: int = 0


class PromptFeedback(msgspec.Struct, rename="camel"):
    """Whether the prompt was refused."""

    block_reason: str | None = None


class UsageMetadata(msgspec.Struct, rename="camel"):
    """Tokens so far."""

    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    cached_content_token_count: int = 0
    tool_use_prompt_token_count: int = 0


class Event(msgspec.Struct, rename="camel"):
    """One event: a response, or an error."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Event)


class GeminiReader:
    """Reads the events of one answer by `model`. Nothing marks its end: even behind a finish reason more may come."""

    __slots__ = ("_api_key", "_call_counts", "_has_finished", "_model", "_usage")

    has_ended = False

    def __init__(self, model: str, api_key: str) -> None:
        self._model = model
        self._api_key = api_key
        self._has_finished = False
        self._call_counts: dict[int, int] = {}
        self._usage: UsageMetadata | None = None

    def read(self, data: bytes) -> Iterator[Chunk]:
        """The chunks of an event, the usage behind the finish reason."""
        return self._chunks(_decoder.decode(data))

    def _chunks(self, event: Event) -> Iterator[Chunk]:
        self._refuse(event)
        for candidate in event.candidates or ():
            yield from self._candidate(candidate)
        self._usage = event.usage_metadata or self._usage
        if self._usage is not None and self._has_finished:
            yield Chunk(usage=_usage(self._usage))
            self._usage = None

    def _refuse(self, event: Event) -> None:
        if event.error is not None:
            raise event_error(event.error, self._model, self._api_key)
        if event.prompt_feedback is not None and event.prompt_feedback.block_reason is not None:
            raise ProviderRejected(f"refused the prompt: {event.prompt_feedback.block_reason}")

    def _candidate(self, candidate: Candidate) -> Iterator[Chunk]:
        """What it says; a finish reason that stands beside something stands beside the last of it."""
        said, reason = list(self._said(candidate)), candidate.finish_reason
        if not reason or reason == UNSPECIFIED:
            yield from said
        elif reason in FINISH_REASONS:
            self._has_finished = True
            *before, last = said or (Chunk(index=candidate.index),)
            yield from before
            yield replace(last, finish_reason=self._finish_reason(reason, candidate.index))
        else:
            yield from said
            raise ProviderUnavailable(f"ended the answer with {reason}")

    def _said(self, candidate: Candidate) -> Iterator[Chunk]:
        index = candidate.index
        for part in (candidate.content and candidate.content.parts) or ():
            if part.function_call is not None:
                yield Chunk(index=index, delta={"tool_calls": [self._call(part, part.function_call, index)]})
            elif part.text and part.thought:
                yield Chunk(index=index, delta={"reasoning_content": part.text})
            elif part.text:
                yield Chunk(part.text, index=index)

    def _call(self, part: Part, call: FunctionCall, index: int) -> dict[str, Json]:
        position = self._call_counts.get(index, 0)
        self._call_counts[index] = position + 1
        arguments = msgspec.json.encode(call.args or {}).decode()
        said = {
            "index": position,
            "id": call.id or f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }
        if part.thought_signature is None:
            return said
        # Where Google's own OpenAI endpoint puts it; newer models want it back with the history.
        return {**said, "extra_content": {"google": {"thought_signature": part.thought_signature}}}

    def _finish_reason(self, reason: str, index: int) -> str:
        said = FINISH_REASONS[reason]
        return "tool_calls" if said == "stop" and index in self._call_counts else said


def _usage(counts: UsageMetadata) -> Usage:
    thoughts = token_count(counts.thoughts_token_count)
    prompt = token_count(counts.prompt_token_count) + token_count(counts.tool_use_prompt_token_count)
    completion = token_count(counts.candidates_token_count) + thoughts
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        details={
            "prompt_tokens_details": {"cached_tokens": token_count(counts.cached_content_token_count)},
            "completion_tokens_details": {"reasoning_tokens": thoughts},
        },
    )
