"""One environment variable as a field of a frozen value: its name, default and range stand where the value does."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from limits import parse_many

from config.accepted import Accepted
from domain.limiting import Rate

T = TypeVar("T")

PREFIX = "WEIR_"
_LONGEST_RATE_S = 366 * 24 * 3600
_LARGEST_RATE = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Generic[T]):
    """One environment variable; `default` is text, as an operator would write it."""

    name: str
    default: str
    accepted: Accepted[T]
    meaning: str


def variable(name: str, default: str, accepted: Accepted[T], meaning: str) -> T:
    """Return a field that is read from `name` and stands at `default` when that is unset."""
    stated = Variable(name=PREFIX + name, default=default, accepted=accepted, meaning=meaning)
    return field(default=accepted.read(default), metadata={Variable: stated})


def _rate(text: str) -> Rate | None:
    if text == "unlimited":
        return None
    rules = parse_many(text)
    amount, per_s = rules[0].amount, rules[0].get_expiry()
    if len(rules) != 1 or not 1 <= amount <= _LARGEST_RATE or not 1 <= per_s <= _LONGEST_RATE_S:
        raise ValueError("not one rate that can be kept")
    return Rate(amount=amount, per_s=float(per_s))


RATE = Accepted(sentence="a rate such as 10/minute or 100 per 2 hours, or unlimited", read=_rate)
FILE = Accepted(sentence="the path of a TOML file", read=lambda text: Path(text) if text else None)
