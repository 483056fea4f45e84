"""How many tokens a text has, for want of the provider's own count.

A token is taken for 3.5 bytes of UTF-8. English prose has 4 to 4.8 bytes a token in the vocabularies of today, code
about 3.5, most other scripts 3 to 5: the estimate is rather too high than too low. An image or a sound counts as
1,000 tokens, which is about what one of a million pixels costs.
"""

import json
from collections.abc import Iterable
from math import ceil

from domain.chat import ChatRequest, Json, Message

_BYTES_PER_TOKEN = 3.5
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_MEDIUM = 1_000


def estimated_tokens(text: str) -> int:
    """The tokens of `text`; none only of none."""
    return ceil(len(text.encode(errors="replace")) / _BYTES_PER_TOKEN)


def estimated_prompt_tokens(request: ChatRequest) -> int:
    """The tokens that a provider reads: all messages with their roles, and the tools they may lead to."""
    tools = request.options.get("tools") or request.options.get("functions")
    beside = estimated_tokens(json.dumps(tools, default=str)) if tools else 0
    return beside + sum(map(_message_tokens, request.messages))


def _message_tokens(message: Message) -> int:
    calls = message.get("tool_calls")
    beside = estimated_tokens(json.dumps(calls, default=str)) if calls else 0
    return _TOKENS_PER_MESSAGE + beside + _content_tokens(message.get("content"))


def _content_tokens(content: Json) -> int:
    if isinstance(content, str):
        return estimated_tokens(content)
    return sum(map(_part_tokens, content)) if isinstance(content, Iterable) else 0


def _part_tokens(part: Json) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return estimated_tokens(text) if isinstance(text, str) else _TOKENS_PER_MEDIUM
