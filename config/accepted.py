"""Kinds of values: how one is read, and the words that tell an operator what would be accepted."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

from domain.addresses import Network, network
from domain.operator_key import OperatorKey

T = TypeVar("T")

_SHOWN_CHARS = 80
_CREDENTIALS_AND_QUERY = re.compile(r"^.*@|[?#].*$", re.DOTALL)


def as_given(value: object) -> str:
    """Return `value` as it was given, cut where it gets long; a list or table is only named."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def hidden(_: object) -> str:
    """Return nothing, whatever the value: it is a secret, or may be one by mistake."""
    return ""


class Unacceptable(ValueError):
    """A value that cannot be right, with a sentence of its own that tells what would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Generic[T]):
    """The values that can be right; `read` raises ValueError for any other."""

    sentence: str
    read: Callable[[Any], T]
    show: Callable[[object], str] = as_given

    def problem(self, place: str, value: object, error: ValueError | None = None) -> str:
        """Return the sentence that names the place, the value unless it is secret, and what would be accepted."""
        shown = self.show(value)
        sentence = str(error) if isinstance(error, Unacceptable) else self.sentence
        return f"{place}={shown}: {sentence}" if shown else f"{place}: {sentence}"


def within(convert: Callable[[Any], float], minimum: float, maximum: float) -> Callable[[Any], float]:
    """Return a reader of numbers from `minimum` to `maximum`; NaN and the infinities are outside any range."""

    def read(value: object) -> float:
        number = convert(value)
        if not minimum <= number <= maximum:
            raise ValueError(f"not from {minimum} to {maximum}")
        return number

    return read


def number(minimum: float, maximum: float, of: str = "") -> Accepted[float]:
    return Accepted(sentence=f"a number{of} from {minimum} to {maximum}", read=within(float, minimum, maximum))


def seconds(minimum: float, maximum: float) -> Accepted[float]:
    return number(minimum, maximum, " of seconds")


def milliseconds(minimum: float, maximum: float) -> Accepted[float]:
    """Read as seconds."""
    read = within(float, minimum, maximum)
    return Accepted(
        sentence=f"a number of milliseconds from {minimum} to {maximum}", read=lambda value: read(value) / 1000
    )


def whole(unit: str, minimum: int, maximum: int) -> Accepted[int]:
    read = within(int, minimum, maximum)
    return Accepted(
        sentence=f"a whole number of {unit} from {minimum} to {maximum}", read=lambda value: int(read(value))
    )


def one_of(*choices: str) -> Accepted[str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError("not one of the choices")
        return value

    return Accepted(sentence=f"one of {', '.join(choices)}", read=read)


def _url(value: object) -> str:
    """Return an http(s) address without its closing slash.

    Raises:
        ValueError: another scheme, no host, a wrong port, or anything that would not survive being extended by a path.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("not printable ASCII without blanks")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("not an http address of a host")
    if any(mark in value for mark in "@?#"):
        raise ValueError("more than scheme, host, port and path")
    return value.rstrip("/")


def _url_as_given(value: object) -> str:
    if not isinstance(value, str):
        return as_given(value)
    return as_given(_CREDENTIALS_AND_QUERY.sub("***", value))


def _header_value(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("not printable ASCII without blanks")
    return value


URL = Accepted(sentence="an http:// or https:// address without user, query or fragment", read=_url, show=_url_as_given)


def _operator_key(text: str) -> OperatorKey | None:
    return OperatorKey.of(_header_value(text)) if text else None


API_KEY = Accepted(sentence="a key of printable ASCII characters without blanks", read=_header_value, show=hidden)

OPERATOR_KEY = Accepted(sentence=API_KEY.sentence, read=_operator_key, show=hidden)


_REDIS_SCHEMES = {"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
_HOST = re.compile(r"(\[[\da-fA-F:.]+\]|[^:\s\[\]]+)(:\d{1,5})?")


def _is_host(host: str) -> bool:
    """Whether it is a name or address, alone or with a port; ValueError for a port that none can be."""
    return _HOST.fullmatch(host) is not None and urlsplit(f"//{host}").port != 0


_TLS_OPTIONS: dict[str, Callable[[str], bool]] = {
    "ssl_ca_certs": lambda path: Path(path).is_file(),
    "ssl_certfile": lambda path: Path(path).is_file(),
    "ssl_keyfile": lambda path: Path(path).is_file(),
    "ssl_cert_reqs": lambda choice: choice in {"required", "none"},
    "ssl_check_hostname": lambda choice: choice in {"true", "false"},
}
_SENTINEL_OPTIONS: dict[str, Callable[[str], bool]] = {"sentinel_username": bool, "sentinel_password": bool}
_OPTIONS_SHOWN = {
    "ssl_cert_reqs": "ssl_cert_reqs=required|none",
    "ssl_check_hostname": "ssl_check_hostname=true|false",
    "sentinel_username": "sentinel_username=USER",
    "sentinel_password": "sentinel_password=PASSWORD",
}
"""How they are written; the others name files."""


def _check_redis_query(scheme: str, query: str) -> None:
    """Every option is one that is understood there, once and with a value that it can have.

    Raises:
        Unacceptable: it is not; nothing of the query is said, which may have a password.
    """
    options = (_TLS_OPTIONS if scheme.startswith("rediss") else {}) | (
        _SENTINEL_OPTIONS if scheme.endswith("+sentinel") else {}
    )
    given = parse_qsl(query, keep_blank_values=True)
    is_understood = all(name in options for name, _ in given) and len(dict(given)) == len(given)
    if query and not (given and is_understood):
        raise Unacceptable(_options_sentence(scheme, options))
    for name, value in given:
        if not options[name](value):
            shown = _OPTIONS_SHOWN.get(name)
            raise Unacceptable(f"{shown} is right" if shown else f"{name}: there is no such file")


def _options_sentence(scheme: str, options: Mapping[str, object]) -> str:
    shown = ", ".join(_OPTIONS_SHOWN.get(name, f"{name}=FILE") for name in options)
    understood = f"behind ? only these are understood: {shown}" if shown else "nothing is understood behind ?"
    secure = f"; with TLS the scheme is {scheme.replace('redis', 'rediss')}://"
    return understood + ("" if scheme.startswith("rediss") else secure)


def _redis_url(text: str) -> str:
    """Return the address as it was given; empty for none.

    Raises:
        ValueError: another scheme, no host, a wrong port or database, a sentinel address without its service, or an
            option that is not understood.
    """
    if not text:
        return ""
    parts = urlsplit(text)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    path = parts.path.strip("/").split("/")
    if parts.scheme not in _REDIS_SCHEMES or not all(map(_is_host, hosts)) or parts.fragment:
        raise ValueError("not the address of a Redis")
    if len(hosts) > 1 and parts.scheme in {"redis", "rediss"}:
        raise Unacceptable(f"one server is needed; several are {parts.scheme}+sentinel:// or {parts.scheme}+cluster://")
    if parts.scheme.endswith("+sentinel") and not path[0]:
        raise ValueError("no service")
    if (db := path[-1]) and not parts.scheme.endswith("+sentinel") and not db.isdigit():
        raise ValueError("no number of a database")
    _check_redis_query(parts.scheme, parts.query)
    return text


REDIS_URL = Accepted(
    sentence="redis://, rediss:// or redis+cluster://HOST[:PORT], or redis+sentinel://HOST[:PORT],…/SERVICE; "
    "with TLS rediss+cluster:// and rediss+sentinel://",
    read=_redis_url,
    show=_url_as_given,
)


def _several(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return a reader of what stands between commas; nothing is none of it."""
    return lambda text: tuple(read(part.strip()) for part in text.split(",")) if text else ()


NETWORKS: Accepted[tuple[Network, ...]] = Accepted(
    sentence="addresses and networks such as 10.0.0.0/8,2001:db8::/32, without host bits", read=_several(network)
)

EVERY_ORIGIN = "*"
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")


def _origin(text: str) -> str:
    """Return the origin in the form in which browsers send it.

    Source: RFC 6454, section 6.1, and fetch.spec.whatwg.org, "Origin header" (2026-11).
    """
    origin = text.lower()
    if origin != EVERY_ORIGIN and not _ORIGIN.fullmatch(origin):
        raise ValueError("not an origin")
    return origin


ORIGINS = Accepted(
    sentence="origins such as https://app.example.com,http://localhost:3000, without a path, or *",
    read=_several(_origin),
)
