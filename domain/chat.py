"""The vocabulary of one completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domain.limiting import Rate
from domain.values import positional_value, value

Json: TypeAlias = Any
"""Whatever JSON can say; it passes through unread."""

Message: TypeAlias = Mapping[str, Json]
"""One message of a conversation, as OpenAI's Chat Completions has it."""

WHOLE_REASONS = frozenset({"stop", "length", "tool_calls", "function_call"})
"""The finish reasons of an answer that ended by itself, and may be kept; not those of a filter."""

REMARKS = frozenset({"content_filter_results", "content_filter_offsets"})
"""What a choice may have that is nothing of the answer: how a filter has found the text beside it.

Source: learn.microsoft.com, Azure OpenAI, "Content filter annotations", as known 2026-11.
"""


ADDRESS = "address:"
"""So begin the names of callers without a key; no user of a key has a name with a colon (domain/keys.py)."""


@value
class Caller:
    """Who asks: `user` for limits and ownership, `tenant` for sharing, `tier` for rates.

    A key may have a `rate` of its own, and bounds that its tier has not; None: it has none. `models` are those it may
    ask for, None: all. An operator has no limits, and may stop what others asked for.
    """

    user: str
    tenant: str = ""
    tier: str = "anonymous"
    is_operator: bool = False
    rate: Rate | None = None
    tokens_per_minute: int | None = None
    budget_usd_per_day: float | None = None
    models: frozenset[str] | None = None

    @property
    def is_address(self) -> bool:
        """Whether it has no key, and is known by its address alone."""
        return self.user.startswith(ADDRESS)


OPERATOR = Caller(user=":operator", tier="operator", is_operator=True)
"""Neither an address nor the user of a key has such a name (domain/keys.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was said at once in the conversation of `session_id`, when it had had `place` turns.

    `birth_id` tells the conversation from those that had its id before, and is empty before it has begun; `turn_id` is
    the same however often the turn is kept.
    """

    session_id: str
    birth_id: str
    turn_id: str
    place: int
    messages: tuple[Message, ...]

    @property
    def char_count(self) -> int:
        """The length of all its texts."""
        return sum(len(message["content"]) for message in self.messages)


@value
class ChatRequest:
    """What is to be completed, in the words of OpenAI's Chat Completions.

    `options` are the body's other fields (temperature, tools, response_format, …), unchanged; those about how the
    answer is delivered (stream, stream_options) are not among them. `provider` is the one to try first.
    `fingerprints` has the one that was worked out last, by whom it is for (domain/fingerprint.py).
    """

    model: str
    messages: tuple[Message, ...]
    options: Mapping[str, Json] = field(default_factory=dict)
    provider: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def choice_count(self) -> int:
        """How many answers are wanted at once."""
        return int(self.options.get("n") or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens read and written, as the provider counted them; `details` are its other counts, unchanged.

    An estimate of ours has `estimated` among its details.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    details: Mapping[str, Json] = field(default_factory=dict)


@positional_value
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
        return bool(self.content or self.finish_reason or self.is_more_than_text)

    @property
    def is_end(self) -> bool:
        """Whether it says that its choice has finished, and nothing else."""
        return bool(self.finish_reason) and not (self.content or self.is_more_than_text)

    @property
    def is_more_than_text(self) -> bool:
        """Whether it has tool calls, thoughts, logprobs, …: something of the answer that is not its text."""
        return bool(self.delta) or not REMARKS.issuperset(self.choice or ())
