"""OpenAI's chat.completion: an answer in one object."""

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from app.completion_chunks import answering_model, completion_id, usage_fields
from app.errors import encode_json
from domain.chat import Chunk
from domain.generation import Generation

_completions: WeakKeyDictionary[Generation, bytes] = WeakKeyDictionary()


def completion(generation: Generation) -> bytes:
    """A whole generation as one chat.completion object, put together once."""
    body = _completions.get(generation)
    if body is None:
        body = _completions[generation] = encode_json(_completion(generation))
    return body


def _completion(generation: Generation) -> dict[str, Any]:
    chunks = [record for record in generation.records if isinstance(record, Chunk)]
    sealed = generation.sealed
    return {
        "id": completion_id(generation),
        "object": "chat.completion",
        "created": int(generation.opened.created_at_s),
        "model": answering_model(generation.records),
        "choices": [
            _choice(index, [chunk for chunk in chunks if chunk.index == index])
            for index in sorted({chunk.index for chunk in chunks})
        ],
        "usage": usage_fields(sealed.usage) if sealed and sealed.usage else None,
    }


def _choice(index: int, chunks: list[Chunk]) -> dict[str, Any]:
    content = "".join(chunk.content for chunk in chunks)
    more = merged(chunk.delta for chunk in chunks if chunk.delta)
    has_other = any(key in more for key in ("tool_calls", "function_call", "refusal", "audio"))
    message = {"role": "assistant", "content": None if has_other and not content else content, "refusal": None, **more}
    if "tool_calls" in more:
        message["tool_calls"] = [_without_index(call) for call in more["tool_calls"]]
    choice = {"index": index, "message": message, "logprobs": None}
    finish_reason = next((chunk.finish_reason for chunk in reversed(chunks) if chunk.finish_reason), None)
    return choice | merged(chunk.choice for chunk in chunks if chunk.choice) | {"finish_reason": finish_reason}


def merged(deltas: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a client has put together when it has read all `deltas`.

    Text grows, lists grow (their items by `index` where they have one), objects merge; of anything else, and of the
    names in `_SAID_ONCE`, the latest stands.
    """
    whole: dict[str, Any] = {}
    for delta in deltas:
        for key, value in delta.items():
            whole[key] = _grown(key, whole.get(key), value)
    return whole


_SAID_ONCE = frozenset({"id", "type", "name", "index", "role", "object"})


def _grown(key: str, before: Any, more: Any) -> Any:
    match before, more:
        case None, list():
            return _grown(key, [], more)
        case (_, None):
            return before
        case (str(), str()) if key not in _SAID_ONCE:
            return before + more
        case (dict(), dict()):
            return merged((before, more))
        case (list(), list()):
            return _joined(before, more)
        case _:
            return more


def _joined(before: list[Any], more: list[Any]) -> list[Any]:
    """`before` and `more`, with items of one `index` made into one."""
    items = list(before)
    for item in more:
        position = _position(items, item)
        if position is None:
            items.append(item)
        else:
            items[position] = merged((items[position], item))
    return items


def _position(items: list[Any], item: Any) -> int | None:
    if not (isinstance(item, dict) and "index" in item):
        return None
    return next((at for at, other in enumerate(items) if other.get("index") == item["index"]), None)


def _without_index(call: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != "index"}
