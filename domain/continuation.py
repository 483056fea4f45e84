"""Going on with an answer whose leader or provider was lost: what the next one is asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from domain.chat import REMARKS, ChatRequest, Chunk, Json, Message
from domain.generation import Record
from domain.prefilled import says_enough
from domain.repeats import anchor
from domain.selection import Prefill, Route
from domain.tokens import estimated_tokens

_THOUGHTS = "reasoning_content"
_LENGTHS = ("max_tokens", "max_completion_tokens")

_INSTRUCTION = (
    "Your last message was cut off by a lost connection before you had finished it. Go on with it from exactly where "
    "it stops, in the same language, style and format, as if it had never been interrupted. Begin by repeating its "
    'last words, "{end}", letter for letter, and then go straight on with what comes next. Repeat nothing else that '
    "is already there, do not start over, and add no greeting, remark, quotation mark or code fence of your own."
)
"""A model that repeats the end says where it goes on, and with which blank: see domain/splice.py."""


def can_continue(request: ChatRequest, records: Iterable[Record]) -> bool:
    """Whether the rest can be asked for by the text so far: one plain text, with nothing beside it under way.

    Thoughts that a text has followed are over; tools may be called behind it. Of what has not begun all can be asked
    for.
    """
    chunks = [record for record in records if isinstance(record, Chunk)]
    if not chunks:
        return True
    if request.choice_count > 1 or _is_structured(request):
        return False
    return _is_text_under_way(chunks) and not any(_has_more_than_text(chunk) for chunk in chunks)


def _is_structured(request: ChatRequest) -> bool:
    wanted = request.options.get("response_format")
    return wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text")


def _is_text_under_way(chunks: Sequence[Chunk]) -> bool:
    last = next((chunk for chunk in reversed(chunks) if chunk.content or chunk.delta), None)
    return last is not None and bool(last.content) and not last.delta


def _has_more_than_text(chunk: Chunk) -> bool:
    beside = set(chunk.delta or ()) - {_THOUGHTS} | set(chunk.choice or ()) - REMARKS
    return bool(beside or chunk.index)


def prefill_for(text: str, route: Route) -> Prefill:
    """How `route` is given `text`: a short one in words, whatever it takes, as the seam could not be seen."""
    return route.prefill if says_enough(text) else Prefill.NONE


def continued(request: ChatRequest, text: str, prefill: Prefill, used_tokens: int) -> ChatRequest:
    """What asks a route with that `prefill` for what comes behind `text`; `request` itself when there is none yet.

    A limit of tokens is what `used_tokens` have left of it, and what it takes at most to repeat the end.
    """
    if not text.strip():
        return request
    again = anchor(text) if prefill is Prefill.NONE else ""
    options = _shortened(request.options, used_tokens - estimated_tokens(again))
    return replace(request, messages=_messages(request.messages, text, prefill), options=options)


def _messages(messages: tuple[Message, ...], text: str, prefill: Prefill) -> tuple[Message, ...]:
    if prefill is Prefill.NONE:
        instruction = {"role": "user", "content": _INSTRUCTION.format(end=anchor(text))}
        return (*messages, {"role": "assistant", "content": text}, instruction)
    mark = {"prefix": True} if prefill is Prefill.DEEPSEEK else {}
    last = messages[-1]
    if last["role"] == "assistant" and isinstance(last.get("content"), str):  # the client's own beginning
        return (*messages[:-1], {**last, "content": last["content"] + text, **mark})
    return (*messages, {"role": "assistant", "content": text, **mark})


def _shortened(options: Mapping[str, Json], by_tokens: int) -> Mapping[str, Json]:
    limits = {name: options[name] for name in _LENGTHS if isinstance(options.get(name), int)}
    if not limits:
        return options
    return {**options, **{name: max(1, limit - by_tokens) for name, limit in limits.items()}}
