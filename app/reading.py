"""Request bodies on their way in: of what kind, how large, how slow."""

import asyncio
from types import TracebackType
from typing import Any

from litestar.types import Receive, Scope

from app.errors import ClientGone, RequestTimeout
from app.headers import header
from domain.errors import FieldError, InvalidRequest, RequestTooLarge


class Bodies:
    """Reads bodies of up to `max_bytes`, each within `timeout_s` from the first look at it."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._under_way = _UnderWay(timeout_s)

    async def read_json(self, scope: Scope, receive: Receive) -> bytes:
        """The body, which says that it is JSON.

        Raises:
            InvalidRequest: the Content-Type is another.
            RequestTooLarge: the body has more bytes; it has not been read whole.
            RequestTimeout: the body has not come in time.
            ClientGone: the client has left before its body was here.
        """
        content_type = header(scope, b"content-type")
        if content_type is not None and content_type.partition(";")[0].strip().lower() != "application/json":
            raise InvalidRequest(FieldError("Content-Type", f"{content_type!r}: application/json is needed"))
        return await self.read(scope, receive)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The body.

        Raises:
            RequestTooLarge: the body has more bytes; it has not been read whole.
            RequestTimeout: the body has not come in time.
            ClientGone: the client has left before its body was here.
        """
        announced = header(scope, b"content-length") or ""
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise RequestTooLarge(self._max_bytes)
        with self._under_way.one():
            return await self._read(receive)

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise RequestTooLarge(self._max_bytes)
            if not message.get("more_body"):
                return bytes(body)


class _UnderWay:
    """What is being read, the longest first; one timer looks after all of it, as most is over at once."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.oldest_first: dict[_Reading, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def one(self) -> "_Reading":
        """A context that ends with RequestTimeout when it lasts too long."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limit_s, self._look)
        return _Reading(self)

    def _look(self) -> None:
        """Those that have had their time are ended; the next look is when the oldest of the others will have had it."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self.oldest_first:
            oldest = next(iter(self.oldest_first))
            due_s = oldest.began_s + self.limit_s
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._look)
                return
            oldest.end()


class _Reading:
    __slots__ = ("_is_late", "_task", "_under_way", "began_s")

    def __init__(self, under_way: _UnderWay) -> None:
        self._under_way = under_way
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        self._task = task
        self.began_s = asyncio.get_running_loop().time()
        self._under_way.oldest_first[self] = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way.oldest_first.pop(self, None)
        if self._is_late and isinstance(error, asyncio.CancelledError) and not self._task.uncancel():
            raise RequestTimeout(self._under_way.limit_s) from None

    def end(self) -> None:
        """It has lasted too long."""
        del self._under_way.oldest_first[self]
        self._is_late = True
        self._task.cancel()
