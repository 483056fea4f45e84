"""Whether a stored answer will do: the request directives of HTTP caching, and what has been purged."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from domain.errors import FieldError, InvalidRequest
from domain.ports import Recording

_DIRECTIVE = re.compile(r'([\w-]+)(?:\s*=\s*(?:"([^"]*)"|([^,]*)))?')
_FLAGS = {"no-cache": "no_cache", "no-store": "no_store", "only-if-cached": "only_if_cached"}
_SECONDS = {"max-age": "max_age_s", "min-fresh": "min_fresh_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDirectives:
    """What a request asks of a cache.

    Source: RFC 9111, section 5.2.1. `max-stale` needs no field: nothing stale is served. `no-transform` and unknown
    directives change nothing.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    min_fresh_s: int = 0

    def accepts(self, age_s: float, ttl_s: float) -> bool:
        """Whether an answer of that age, fresh for `ttl_s` seconds in all, may be served."""
        if self.no_cache or (self.max_age_s is not None and age_s > self.max_age_s):
            return False
        return ttl_s - age_s >= self.min_fresh_s


NO_DIRECTIVES = CacheDirectives()


def parse_cache_control(header: str | None) -> CacheDirectives:
    """The directives of a Cache-Control request header.

    Raises:
        InvalidRequest: max-age or min-fresh without a whole number of seconds.
    """
    if not header:
        return NO_DIRECTIVES
    found: dict[str, int | bool] = {}
    for name, quoted, bare in _DIRECTIVE.findall(header.lower()):
        if name in _FLAGS:
            found[_FLAGS[name]] = True
        elif name in _SECONDS:
            found[_SECONDS[name]] = _whole_seconds(name, quoted or bare.strip())
    return CacheDirectives(**found)  # type: ignore[arg-type]  # the two tables say which field takes which type


def _whole_seconds(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InvalidRequest(FieldError("Cache-Control", f"{name}={value!r}: a whole number of seconds is needed"))
    return min(int(value[:10]), 2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """All answers that were whole by `at_s` (Unix seconds) are gone; those of one model or scope alone, if it says so.

    A scope is the name of a circle that shares answers, as domain/fingerprint.py has it.
    """

    at_s: float
    model: str | None = None
    scope: str | None = None


_NEVER_S = float("-inf")


class Purges:
    """What has been purged within the time that answers are kept, `ttl_s` seconds.

    `on_purge` are called after every purge that was not known: what it conceals need not be kept.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._at_s: dict[tuple[str | None, str | None], float] = {}
        self.on_purge: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._at_s)

    def add(self, purge: Purge) -> bool:
        """What the purge concerns is gone, and what no longer matters is forgotten; False: that was known."""
        which = purge.model, purge.scope
        if purge.at_s <= self._at_s.get(which, _NEVER_S):
            return False
        self._at_s[which] = purge.at_s
        oldest_s = purge.at_s - self._ttl_s
        self._at_s = {each: at_s for each, at_s in self._at_s.items() if at_s > oldest_s}
        for purged in self.on_purge:
            purged()
        return True

    def conceal(self, recording: Recording) -> bool:
        """Whether that answer is gone."""
        if not self._at_s:
            return False
        model, scope = recording.generation.opened.model, recording.generation.opened.scope
        concerning = ((None, None), (model, None), (None, scope), (model, scope))
        return recording.sealed_at_s <= max(self._at_s.get(each, _NEVER_S) for each in concerning)
