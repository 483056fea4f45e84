"""TOML tables read strictly: every key is known, of its type and in its range, or it is a problem with a place."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from config.accepted import Accepted, as_given

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T]):
    """What may stand under a key; without a `default` it must be there, unless it `may_be_left_out` (None)."""

    accepted: Accepted[T]
    default: T | None = None
    may_be_left_out: bool = False


def below(place: str, key: str) -> str:
    """Return the place of `key` in the table at `place`, as TOML would write it."""
    written = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{place}{written}" if place.endswith(": ") else f"{place}.{written}"


def read_table(place: str, content: object, keys: Mapping[str, Key[Any]], problems: list[str]) -> dict[str, Any]:
    """Return the values that are right, defaults included; what is wrong is added to `problems`."""
    if not isinstance(content, dict):
        problems.append(f"{place}={as_given(content)}: a table")
        return {}
    known = ", ".join(sorted(keys))
    problems += [f"{below(place, name)}: not a known key; one of {known}" for name in content if name not in keys]
    values = {}
    for name, key in keys.items():
        try:
            values[name] = _read_key(below(place, name), content.get(name), key)
        except ValueError as refused:
            problems.append(str(refused))
    return values


def _read_key(place: str, value: object, key: Key[T]) -> T | None:
    if value is None and (key.default is not None or key.may_be_left_out):
        return key.default
    if value is None:
        raise ValueError(f"{place}: missing; {key.accepted.sentence}")
    try:
        return key.accepted.read(value)
    except ValueError as refused:
        raise ValueError(key.accepted.problem(place, value)) from refused


def _of(kind: Any, sentence: str) -> Accepted[Any]:
    return Accepted(sentence=sentence, read=lambda value: msgspec.convert(value, kind))


_FILLED = Meta(min_length=1)

TEXT = _of(Annotated[str, _FILLED], "text that is not empty")
TABLES = _of(Annotated[dict[str, Any], _FILLED], "at least one table")
LIST = _of(Annotated[list[Any], _FILLED], "a list of at least one table")
USD = _of(Annotated[float, Meta(ge=0, le=1_000_000)], "a number of US dollars from 0 to 1000000")
CONTEXT_TOKENS = _of(Annotated[int, Meta(ge=1, le=1_000_000_000)], "a whole number of tokens from 1 to 1000000000")
CONCURRENCY = _of(Annotated[int, Meta(ge=1, le=1_000_000)], "a whole number of calls from 1 to 1000000")
CHOICES = _of(Annotated[int, Meta(ge=1, le=128)], "a whole number of answers from 1 to 128")
WEIGHT = _of(Annotated[int, Meta(ge=1, le=1_000_000)], "a whole number from 1 to 1000000")
