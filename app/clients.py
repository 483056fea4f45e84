"""Clients that leave, and clients that stay without reading."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar.types import Message, Receive, Send

from app.errors import ClientGone

PATIENCE_S = 60.0
"""A client that takes nothing for so long, while there is something to take, counts as gone."""


class Client:
    """The other end of an exchange, whose task is cancelled when it leaves or stops reading."""

    __slots__ = ("_loop", "_task", "_timer", "_waits_since_s", "is_gone")

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since_s: float | None = None
        self.is_gone = False

    def leave(self) -> None:
        """The client is gone; what is done for it ends, once."""
        if not self.is_gone:
            self.is_gone = True
            self._task.cancel()

    def patient(self, send: Send) -> Send:
        """As `send`, to a client that leaves when it does not read; one timer watches over all of it."""

        async def send_patiently(message: Message) -> None:
            self._waits_since_s = self._loop.time()
            await send(message)
            self._waits_since_s = None

        self._timer = self._loop.call_later(PATIENCE_S, self._look)
        return send_patiently

    def close(self) -> None:
        """Nothing is watched any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        since_s, now_s = self._waits_since_s, self._loop.time()
        if since_s is not None and now_s - since_s >= PATIENCE_S:
            self.leave()
        else:
            self._timer = self._loop.call_later((since_s or now_s) + PATIENCE_S - now_s, self._look)


@asynccontextmanager
async def until_client_leaves(receive: Receive) -> AsyncGenerator[Client]:
    """Cancel what is inside, once, when the client disconnects or stops reading.

    Raises:
        ClientGone: the client is gone.
    """
    inside = asyncio.current_task()
    assert inside is not None  # noqa: S101  # a coroutine runs in a task
    client = Client(inside)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        client.leave()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield client
    except asyncio.CancelledError:
        if not client.is_gone or inside.uncancel():
            raise
        raise ClientGone from None
    finally:
        watcher.cancel()
        client.close()
