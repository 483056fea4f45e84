"""How one simulated answer behaves: its pace, its length and what goes wrong with it.

A behaviour is chosen by the model name, `gpt-4o-mini@tokens=50,gap_ms=2,fault=cut,at=10`, or by the control
server, in JSON. Both use the same field names. A duration ends in `_s` or `_ms`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from infrastructure.simulator.beginnings import Continuing

MAX_TOKENS = 1_000_000
MAX_SECONDS = 86_400.0


class Fault(StrEnum):
    """What a provider can do wrong once it has been asked."""

    RESET = "reset"
    SILENCE_HEADERS = "silence_headers"
    SILENCE_FIRST_TOKEN = "silence_first_token"  # noqa: S105 - a kind of silence, not a secret
    STALL = "stall"
    CUT = "cut"
    RESET_MIDSTREAM = "reset_midstream"
    MALFORMED = "malformed"
    ERROR_EVENT = "error_event"
    NO_FINISH = "no_finish"
    DONE_UNFINISHED = "done_unfinished"
    HELD_OPEN = "held_open"
    ENDLESS_ERROR = "endless_error"
    EMPTY = "empty"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    QUOTA = "quota"
    ABOVE_LIMIT = "above_limit"
    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    NOT_ALLOWED = "405"
    TIMEOUT = "408"
    CONFLICT = "409"
    TOO_LARGE = "413"
    UNPROCESSABLE = "422"
    RATE_LIMITED = "429"
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    OVERLOADED = "529"


class Clock(StrEnum):
    """How an error says when to come back.

    SECONDS: in seconds, as the provider does. DATE: as a date, in a header. LAST_DATE: as the last date there is, in a
    zone where it is an hour later yet.
    """

    SECONDS = "seconds"
    DATE = "date"
    LAST_DATE = "last_date"


class WrongBehaviour(ValueError):
    """A behaviour was asked for that does not exist; the text names the part that is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One way to answer.

    Attributes:
        headers_s: wait before the headers of an answer, or before an error's status line: nothing is heard of it.
        ttft_s: from there to the first token, or to an error's status line.
        gap_s: between two tokens; 0 sends them as fast as the client reads.
        tokens: length of the answer.
        text: the answer itself, instead of `tokens` from the fixed sentences.
        queued_s: wait before `ttft_s`; DeepSeek says it is alive every `keepalive_s` of it.
        tool_call: call the first tool offered, whatever the question says.
        blocked: the safety filter ends the answer, after `at` tokens if given, else before the first.
        continues: how it goes on with an answer that has begun.
        at: tokens sent before the fault; None means 5.
        retry_after_s: how long an error tells the client to wait.
        retry_after_as: in which form it does.
        choices: how many it gives at most, however many are asked for.
        remarks: beside each text stands how a filter has found it, as at Azure.
    """

    headers_s: float = 0.0
    ttft_s: float = 0.005
    gap_s: float = 0.001
    tokens: int = 25
    text: str | None = None
    queued_s: float = 0.0
    keepalive_s: float = 1.0
    tool_call: bool = False
    blocked: bool = False
    continues: Continuing = Continuing.EXACT
    fault: Fault | None = None
    at: int | None = None
    retry_after_s: float | None = None
    retry_after_as: Clock = Clock.SECONDS
    choices: int | None = None
    remarks: bool = False

    @property
    def position(self) -> int:
        """How many tokens are sent before the fault."""
        return 5 if self.at is None else self.at


def named_behaviour(model: str) -> Behaviour | None:
    """Return the behaviour written behind the first @ of a model name, None where there is none.

    Raises:
        WrongBehaviour: a part is not `field=value`, or its field or value is not known.
    """
    _, at, grammar = model.partition("@")
    return behaviour_of(dict(map(_field, grammar.split(",")))) if at else None


def behaviour_of(fields: Mapping[str, object]) -> Behaviour:
    """Return the behaviour these fields describe; what they leave out keeps its default.

    Raises:
        WrongBehaviour: a field or its value is not known.
    """
    return Behaviour(**dict(_read(name, value) for name, value in fields.items()))  # type: ignore[arg-type]


def _field(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise WrongBehaviour(f"'{part}' is not field=value")
    return name, value


def _read(name: str, value: object) -> tuple[str, object]:
    attribute, reader, expected = _FIELDS.get(name, (None, str, ""))
    if attribute is None:
        raise WrongBehaviour(f"unknown field '{name}': one of {', '.join(_FIELDS)}")
    try:
        return attribute, reader(value)
    except (TypeError, ValueError):
        raise WrongBehaviour(f"'{name}={value}': {expected} is expected") from None


def _seconds(value: object) -> float:
    return _number(value, 1.0)


def _milliseconds(value: object) -> float:
    return _number(value, 1000.0)


def _number(value: object, per_s: float) -> float:
    seconds = math.nan if isinstance(value, bool) else float(value) / per_s  # type: ignore[arg-type]
    if not 0.0 <= seconds <= MAX_SECONDS:
        raise ValueError
    return seconds


def _count(value: object) -> int:
    number = -1 if isinstance(value, bool | float) else int(value)  # type: ignore[call-overload]
    if not 0 <= number <= MAX_TOKENS:
        raise ValueError
    return int(number)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _truth(value: object) -> bool:
    word = str(value).lower()
    if word not in {"1", "true", "0", "false"}:
        raise ValueError
    return word in {"1", "true"}


def _fault(value: object) -> Fault:
    return Fault(str(value))


def _continuing(value: object) -> Continuing:
    return Continuing(str(value))


def _clock(value: object) -> Clock:
    return Clock(str(value))


_Reader = Callable[[object], object]


def _durations(names: Iterable[str]) -> Mapping[str, tuple[str, _Reader, str]]:
    seconds = {f"{name}_s": (f"{name}_s", _seconds, "a number of seconds, 0 to a day,") for name in names}
    return seconds | {
        f"{name}_ms": (f"{name}_s", _milliseconds, "a number of milliseconds, 0 to a day,") for name in names
    }


_FIELDS: Mapping[str, tuple[str, _Reader, str]] = {
    "tokens": ("tokens", _count, f"a whole number, 0 to {MAX_TOKENS},"),
    "text": ("text", _text, "a string"),
    "tool_call": ("tool_call", _truth, "true or false"),
    "blocked": ("blocked", _truth, "true or false"),
    "remarks": ("remarks", _truth, "true or false"),
    "continues": ("continues", _continuing, f"one of {', '.join(Continuing)}"),
    "fault": ("fault", _fault, f"one of {', '.join(Fault)}"),
    "at": ("at", _count, f"a whole number, 0 to {MAX_TOKENS},"),
    "retry_after": ("retry_after_s", _seconds, "a number of seconds, 0 to a day,"),
    "retry_after_as": ("retry_after_as", _clock, f"one of {', '.join(Clock)}"),
    "choices": ("choices", _count, f"a whole number, 0 to {MAX_TOKENS},"),
    **_durations(("headers", "ttft", "gap", "queued", "keepalive", "retry_after")),
}
