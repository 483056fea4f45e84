"""What lets pages of other origins ask from a browser.

Source: fetch.spec.whatwg.org, "CORS protocol" (2026-11). The framework's own would not see event streams, which are
sent when it has returned.
"""

import re
from collections.abc import Collection

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.headers import READABLE, RawHeaders, header, raw

EVERY_ORIGIN = "*"
_METHODS = "GET, POST, DELETE"
_READ = "authorization, cache-control, content-type, last-event-id, traceparent, x-api-key, x-thread-id"
"""What we read of a request."""
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]{1,64}(, ?[A-Za-z0-9_-]{1,64}){0,63}")
_KEPT_S = 600
_LEAST_GOOD, _LEAST_BAD = 200, 300


class CrossOrigin:
    """An ASGI application around `app`, for pages of `origins`. No cookies: a key goes into a header."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange; the browser is told whether the page may read it."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        added, preflight = self._headers(scope), _preflight(scope)

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_good = _LEAST_GOOD <= message["status"] < _LEAST_BAD
                message["headers"] = [*message["headers"], *added, *(preflight if is_good else ())]
            await send(message)

        await self._app(scope, receive, send_with_origin)

    def _headers(self, scope: Scope) -> RawHeaders:
        """Whether this origin may read the response; caches are told that another may not."""
        origin = header(scope, b"origin")
        if EVERY_ORIGIN in self._origins:
            return _allowed(EVERY_ORIGIN) if origin else []
        varies: RawHeaders = [(b"vary", b"Origin")]
        return varies + _allowed(origin) if origin in self._origins and origin else varies


def _allowed(origin: str) -> RawHeaders:
    return raw({"access-control-allow-origin": origin, "access-control-expose-headers": ", ".join(READABLE)})


def _preflight(scope: Scope) -> RawHeaders:
    """What a page may send, should it ask: the headers that it wants, as they give it nothing that others have not."""
    if scope.get("method") != "OPTIONS" or header(scope, b"access-control-request-method") is None:
        return []
    wanted = header(scope, b"access-control-request-headers") or ""
    return raw(
        {
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else _READ,
            "access-control-max-age": str(_KEPT_S),
        }
    )
