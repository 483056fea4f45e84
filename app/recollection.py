"""Bodies that come again: what is asked most is asked in the same bytes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

from domain.caching import CacheDirectives
from domain.chat import Caller

T = TypeVar("T")

_KEPT = 256
_SHORT_BYTES = 4096


class Recollection(Generic[T]):
    """Reads bodies as `parse` does; of short ones it knows what the last 256 have said, and does not read them again.

    It knows them for each user apart: how long it takes tells nobody what another has asked. It keeps none of a client
    that wants nothing stored (RFC 9111, section 5.2.1.5).
    """

    def __init__(self, parse: Callable[[bytes, int], T]) -> None:
        self._parse = parse
        self._recalled = lru_cache(_KEPT)(lambda body, max_query_chars, _: parse(body, max_query_chars))

    def read(self, body: bytes, max_query_chars: int, caller: Caller, directives: CacheDirectives) -> T:
        """What `body` says.

        Raises:
            InvalidRequest: as `parse` does.
        """
        if len(body) <= _SHORT_BYTES and not directives.no_store:
            return self._recalled(body, max_query_chars, caller.user)
        return self._parse(body, max_query_chars)
