"""Request bodies on their way in: of what kind, how large, how slow, and how many at once."""

import asyncio
from typing import Any

from litestar.types import Receive, Scope

from app.errors import BodiesTakeAllMemory, ClientGone, Draining, RequestTimeout, TooManyBodies
from app.headers import header
from domain.errors import FieldError, InvalidRequest, RequestRefused, RequestTooLarge

_ROOM_BYTES = 64 * 1024 * 1024
_ROOM_BODIES = 8
"""So many of the largest bodies find room in any case."""

_SHARE = 4
"""A user may have this part of the room."""

DRAIN_S = 1.0
"""A body that comes right behind its headers is here by then: who has asked just before the end is answered."""


class Bodies:
    """Reads bodies of up to `max_bytes`, each within `timeout_s` from the first look at it.

    Until what they ask is let in, all of them hold 64 MiB together (or eight of the largest, if that is more), those of
    one user a quarter of that. When there is no more room, whoever holds most gives up one that is still being read.
    """

    def __init__(self, max_bytes: int, timeout_s: float, room_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._room_bytes = room_bytes or max(_ROOM_BYTES, _ROOM_BODIES * max_bytes)
        self._share_bytes = self._room_bytes // _SHARE
        self._held_bytes = 0
        self._users: dict[str, _User] = {}
        self._oldest_first: dict[Body, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_draining = False

    @property
    def held_bytes(self) -> int:
        """What all of them hold."""
        return self._held_bytes

    def json(self, scope: Scope, receive: Receive, user: str) -> "Body":
        """As `whole`, of a body that says that it is JSON.

        Raises:
            InvalidRequest: the Content-Type is another.
        """
        content_type = header(scope, b"content-type")
        if content_type is not None and content_type.partition(";")[0].strip().lower() != "application/json":
            raise InvalidRequest(FieldError("Content-Type", f"{content_type!r}: application/json is needed"))
        return self.whole(scope, receive, user)

    def whole(self, scope: Scope, receive: Receive, user: str) -> "Body":
        """A context that is entered with the whole body of a request of `user`, and within which it takes room.

        Raises:
            RequestTooLarge: the body says that it has more bytes.
        """
        announced = header(scope, b"content-length") or ""
        if announced.isdecimal() and int(announced) > self.max_bytes:
            raise RequestTooLarge(self.max_bytes)
        return Body(self, receive, user)

    def drain(self) -> None:
        """The process is about to end: what has not come whole in `DRAIN_S` is not waited for."""
        asyncio.get_running_loop().call_later(DRAIN_S, self._end)

    def _end(self) -> None:
        self._is_draining = True
        while self._oldest_first:
            self._refuse(next(iter(self._oldest_first)), Draining())

    def begin(self, body: "Body") -> None:
        """The body is being read.

        Raises:
            Draining: no others are begun.
        """
        if self._is_draining:
            raise Draining
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._look)
        body.began_s = asyncio.get_running_loop().time()
        self._oldest_first[body] = None
        user = self._users.get(body.user)
        if user is None:
            user = self._users[body.user] = _User()
        user.bodies[body] = None

    def read(self, body: "Body") -> None:
        """The body has come whole, or will not."""
        self._oldest_first.pop(body, None)

    def hold(self, body: "Body", size_bytes: int) -> None:
        """The body holds so much more.

        Raises:
            TooManyBodies: its user's would hold more than one user's may.
            BodiesTakeAllMemory: all would hold more than they may, and no other user's hold more.
        """
        user = self._users[body.user]
        if user.held_bytes + size_bytes > self._share_bytes:
            raise TooManyBodies(self._share_bytes)
        while self._held_bytes + size_bytes > self._room_bytes:
            self._make_room(user)
        self._count(user, body, size_bytes)

    def let_go(self, body: "Body") -> None:
        """The body holds nothing more."""
        user = self._users.get(body.user)
        if user is None or body not in user.bodies:
            return
        self._count(user, body, -body.held_bytes)
        del user.bodies[body]
        if not user.bodies:
            del self._users[body.user]

    def _count(self, user: "_User", body: "Body", size_bytes: int) -> None:
        body.held_bytes += size_bytes
        user.held_bytes += size_bytes
        self._held_bytes += size_bytes

    def _make_room(self, user: "_User") -> None:
        """The user that holds most has given up the last of its bodies that are still being read."""
        most = max(self._users.values(), key=lambda each: each.held_bytes)
        given_up = next((each for each in reversed(most.bodies) if each in self._oldest_first), None)
        if most is user or given_up is None:
            raise BodiesTakeAllMemory
        self._refuse(given_up, BodiesTakeAllMemory())

    def _refuse(self, body: "Body", refusal: RequestRefused) -> None:
        self.read(body)
        self.let_go(body)
        body.refuse(refusal)

    def _look(self) -> None:
        """Those that have had their time are ended; the next look is when the oldest of the others will have had it."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self._oldest_first:
            oldest = next(iter(self._oldest_first))
            due_s = oldest.began_s + self._timeout_s
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._look)
                return
            self._refuse(oldest, RequestTimeout(self._timeout_s))


class _User:
    """The bodies of one user, in the order in which they were begun."""

    __slots__ = ("bodies", "held_bytes")

    def __init__(self) -> None:
        self.bodies: dict[Body, None] = {}
        self.held_bytes = 0


class Body:
    """One body, read when the context is entered. Entering raises:

    RequestTooLarge: it has more bytes; it has not been read whole.
    RequestTimeout: it has not come in time.
    TooManyBodies, BodiesTakeAllMemory: there is no room for it.
    Draining: the process is about to end.
    ClientGone: the client has left before it was here.
    """

    __slots__ = ("_bodies", "_receive", "_refusal", "_task", "began_s", "held_bytes", "user")

    began_s: float

    def __init__(self, bodies: Bodies, receive: Receive, user: str) -> None:
        self._bodies = bodies
        self._receive = receive
        self._refusal: RequestRefused | None = None
        self.user = user
        self.held_bytes = 0

    async def __aenter__(self) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        self._task = task
        self._bodies.begin(self)
        try:
            return await self._read()
        except BaseException as error:
            self._bodies.let_go(self)
            if self._refusal is not None and isinstance(error, asyncio.CancelledError) and not task.uncancel():
                raise self._refusal from None
            raise
        finally:
            self._bodies.read(self)

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._bodies.let_go(self)

    def refuse(self, refusal: RequestRefused) -> None:
        """It is read no further."""
        self._refusal = refusal
        self._task.cancel()

    async def _read(self) -> bytes:
        whole = bytearray()
        while True:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            if self.held_bytes + len(part) > self._bodies.max_bytes:
                raise RequestTooLarge(self._bodies.max_bytes)
            self._bodies.hold(self, len(part))
            if not message.get("more_body") and not whole:
                return part
            whole += part
            if not message.get("more_body"):
                return bytes(whole)
