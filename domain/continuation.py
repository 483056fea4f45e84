"""Going on with an answer whose leader or provider was lost: what the next one is asked."""

from collections.abc import Iterable
from dataclasses import replace

from domain.chat import ChatRequest, Chunk, Message
from domain.generation import Record
from domain.selection import Prefill

_SHAPED = frozenset({"tools", "functions", "response_format"})


def can_continue(request: ChatRequest, records: Iterable[Record]) -> bool:
    """Whether the rest can be asked for by the text so far: one plain text, with nothing beside it under way.

    Of what has not begun all can be asked for.
    """
    chunks = [record for record in records if isinstance(record, Chunk)]
    if not chunks:
        return True
    if request.choice_count > 1 or not _SHAPED.isdisjoint(request.options):
        return False
    return not any(chunk.delta or chunk.choice for chunk in chunks)


def continued(request: ChatRequest, text: str, prefill: Prefill) -> ChatRequest:
    """The request for what comes after `text`, the way that `prefill` says."""
    prefix = {"prefix": True} if prefill is Prefill.DEEPSEEK else {}
    turn: tuple[Message, ...] = ({"role": "assistant", "content": text, **prefix},)
    if prefill is Prefill.NONE:
        turn += ({"role": "user", "content": "Go on exactly where you stopped."},)
    return replace(request, messages=(*request.messages, *turn))
