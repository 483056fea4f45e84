"""The vocabulary of one completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domain.values import value

Json: TypeAlias = Any
"""Whatever JSON can say; it passes through unread."""

WHOLE_REASONS = frozenset({"stop", "length", "tool_calls", "function_call"})
"""The finish reasons of an answer that ended by itself, and may be kept; not those of a filter."""


@value
class Caller:
    """Who asks: `user` for limits and ownership, `tenant` for sharing, `tier` for rates."""

    user: str
    tenant: str = ""
    tier: str = "anonymous"


@value
class ChatRequest:
    """What is to be completed, in the words of OpenAI's Chat Completions.

    `options` are the body's other fields (temperature, tools, response_format, …), unchanged; those about how the
    answer is delivered (stream, stream_options) are not among them. `provider` is the one to try first.
    """

    model: str
    messages: tuple[Mapping[str, Json], ...]
    options: Mapping[str, Json] = field(default_factory=dict)
    provider: str | None = None

    @property
    def choice_count(self) -> int:
        """How many answers are wanted at once."""
        return int(self.options.get("n") or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens read and written, as the provider counted them; `details` are its other counts, unchanged."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of choice `index` of the answer.

    `delta` is what its delta has beyond role and content (tool_calls, reasoning_content, …), `choice` what its choice
    has beyond delta and finish_reason (logprobs), both unchanged. `usage` may come with any chunk, or on its own.
    """

    content: str = ""
    finish_reason: str | None = None
    index: int = 0
    delta: Mapping[str, Json] | None = None
    choice: Mapping[str, Json] | None = None
    usage: Usage | None = None

    @property
    def is_answer(self) -> bool:
        """Whether a reader of the answer would miss this chunk."""
        return bool(self.content or self.finish_reason or self.delta or self.choice)
