"""Clients that leave, and clients that stay without reading."""

import asyncio
from typing import Self

from litestar.types import Message, Receive, Send

from app.errors import ClientGone

PATIENCE_S = 60.0
"""A client that takes nothing for so long, while there is something to take, counts as gone."""


class Client:
    """The other end of an exchange. What is done inside this context is cancelled, once, when it is gone.

    It is gone when it disconnects or, being sent something patiently, stops reading. Leaving the context raises:
        ClientGone: the client is gone.
    """

    __slots__ = ("_inside", "_loop", "_receive", "_timer", "_waits_since_s", "_watcher", "is_gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since_s: float | None = None
        self.is_gone = False

    async def __aenter__(self) -> Self:
        inside = asyncio.current_task()
        assert inside is not None  # noqa: S101  # a coroutine runs in a task
        self._inside = inside
        self._watcher = self._loop.create_task(self._watch())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._watcher.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(error, asyncio.CancelledError) and self.is_gone and not self._inside.uncancel():
            raise ClientGone from None

    def patient(self, send: Send) -> Send:
        """As `send`, to a client that leaves when it does not read; one timer watches over all of it."""

        async def send_patiently(message: Message) -> None:
            self._waits_since_s = self._loop.time()
            await send(message)
            self._waits_since_s = None

        self._timer = self._loop.call_later(PATIENCE_S, self._look)
        return send_patiently

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self._inside.cancel()

    def _look(self) -> None:
        since_s, now_s = self._waits_since_s, self._loop.time()
        if since_s is not None and now_s - since_s >= PATIENCE_S:
            self._leave()
        else:
            self._timer = self._loop.call_later((since_s or now_s) + PATIENCE_S - now_s, self._look)
