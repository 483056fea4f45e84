"""Environment variables as fields of a frozen value: name, default and range stand where the value does."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from limits import parse_many

from config.accepted import Accepted
from domain.limiting import Rate

T = TypeVar("T")

PREFIX = "WEIR_"
_LONGEST_RATE_S = 366 * 24 * 3600
_LARGEST_RATE = 1_000_000_000
_IN_NO_TIME = re.compile(r"(/|per)\s*0+\s*[a-z]", re.IGNORECASE)
"""What `limits` reads as one second, minute, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Generic[T]):
    """One environment variable; `default` is text, as an operator would write it."""

    name: str
    default: str
    accepted: Accepted[T]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[T]):
    """Where a field comes from: its variables, and how their values (by variable name) make it."""

    variables: Mapping[str, Variable[Any]]
    build: Callable[[Mapping[str, Any]], T]

    def field(self) -> T:
        """Return a dataclass field that stands at what the defaults make, and remembers this source."""
        defaults = {stated.name: stated.accepted.read(stated.default) for stated in self.variables.values()}
        return field(default=self.build(defaults), metadata={Source: self})


def variable(name: str, default: str, accepted: Accepted[T], meaning: str) -> Variable[T]:
    return Variable(name=PREFIX + name, default=default, accepted=accepted, meaning=meaning)


def one(stated: Variable[T]) -> T:
    """Return a field that is what one variable says."""
    return Source(variables={"": stated}, build=lambda values: cast("T", values[stated.name])).field()


def several(kind: Callable[..., T], **variables: Variable[Any]) -> T:
    """Return a field that is a `kind` whose parts are what `variables` say."""
    return Source(
        variables=variables,
        build=lambda values: kind(**{part: values[stated.name] for part, stated in variables.items()}),
    ).field()


def _rate(text: str) -> Rate | None:
    if text == "unlimited":
        return None
    rules = parse_many(text)
    amount, per_s = rules[0].amount, rules[0].get_expiry()
    if (
        _IN_NO_TIME.search(text)
        or len(rules) != 1
        or not 1 <= amount <= _LARGEST_RATE
        or not 1 <= per_s <= _LONGEST_RATE_S
    ):
        raise ValueError("not one rate that can be kept")
    return Rate(amount=amount, per_s=float(per_s))


RATE = Accepted(sentence="a rate such as 10/minute or 100 per 2 hours, or unlimited", read=_rate)
FILE = Accepted(sentence="the path of a TOML file", read=lambda text: Path(text) if text else None)
KEY_FILE = Accepted(
    sentence="the path of a file that weir keys create has made", read=lambda text: Path(text) if text else None
)
