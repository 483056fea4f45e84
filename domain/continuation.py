"""Going on with an answer whose leader or provider was lost: what the next one is asked."""

from collections.abc import Iterable

from domain.chat import ChatRequest, Chunk
from domain.generation import Record

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


def continued(request: ChatRequest, records: Iterable[Record]) -> ChatRequest:
    """`request` with the text so far as the beginning of the assistant's turn; itself when there is no text yet."""
    text = "".join(record.content for record in records if isinstance(record, Chunk))
    if not text:
        return request
    turn = {"role": "assistant", "content": text}
    return ChatRequest(
        model=request.model,
        messages=(*request.messages, turn),
        options=request.options,
        provider=request.provider,
    )
