"""Going on with an answer whose leader or provider was lost: what the next one is asked."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from domain.chat import ChatRequest, Chunk, Json, Message
from domain.generation import Record
from domain.selection import Prefill
from domain.splice import anchor
from domain.tokens import estimated_tokens

_SHAPED = frozenset({"tools", "functions", "response_format"})
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

    Of what has not begun all can be asked for.
    """
    chunks = [record for record in records if isinstance(record, Chunk)]
    if not chunks:
        return True
    if request.choice_count > 1 or not _SHAPED.isdisjoint(request.options):
        return False
    return not any(chunk.is_more_than_text or chunk.index for chunk in chunks)


def continued(request: ChatRequest, text: str, prefill: Prefill) -> ChatRequest:
    """What asks a route with that `prefill` for what comes behind `text`; `request` itself when there is none yet.

    A limit of tokens is what is left of it, by estimate.
    """
    if not text:
        return request
    again = anchor(text) if prefill is Prefill.NONE else ""
    options = _shortened(request.options, estimated_tokens(text) - estimated_tokens(again))
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
