"""One connection on which Redis tells this process what has happened."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from redis.exceptions import RedisClusterException, RedisError

from domain.events import DefectFound, Publish

_RETRY_S = 0.1
_SILENCE_S = 0.5
_MAX_SILENCES = 3
_ALWAYS = "weir:events"
_FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)

Listener = Callable[[bytes], object]


class PubSub(Protocol):
    """What is needed of the library's subscriptions."""

    async def subscribe(self, *channels: str) -> None:
        """Hear of these channels."""
        ...

    async def unsubscribe(self, *channels: str) -> None:
        """Hear of them no more."""
        ...

    async def get_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0) -> Any:  # noqa: FBT001, FBT002, ASYNC109  # the library's
        """The next message."""
        ...

    async def ping(self) -> Any:
        """Make the server say something."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class Subscriptions:
    """Tells each listener the messages of its channel; and of a gap, those who want to know that some may be missed."""

    def __init__(self, connect: Callable[[], PubSub], publish: Publish) -> None:
        self._connect = connect
        self._publish = publish
        self._listeners: dict[str, Listener] = {}
        self._changes: asyncio.Queue[str] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None
        self.on_gap: list[Callable[[], None]] = []

    def add(self, channel: str, listener: Listener) -> None:
        """`listener` hears of `channel` from soon on; an empty message says that this has begun."""
        self._listeners[channel] = listener
        self._changes.put_nowait(channel)

    def remove(self, channel: str) -> None:
        """Nobody hears of `channel` any more."""
        if self._listeners.pop(channel, None) is not None:
            self._changes.put_nowait(channel)

    def start(self) -> None:
        """Messages are being listened for, until `close`."""
        self._listening = asyncio.get_running_loop().create_task(self._listen(), name="redis-subscriptions")

    async def close(self) -> None:
        """The connection is closed."""
        while self._listening is not None and not self._listening.done():
            self._listening.cancel()  # which the library takes for a timeout while it connects
            await asyncio.wait([self._listening], timeout=_RETRY_S)

    async def _listen(self) -> None:
        """Listen on one connection after the other."""
        while True:
            pubsub = self._connect()
            try:
                await pubsub.subscribe(_ALWAYS, *self._listeners)
                await _first_to_end(self._hear(pubsub), self._change(pubsub))
            except _FAILURES:
                pass
            finally:
                with suppress(*_FAILURES):
                    await pubsub.aclose()
            await asyncio.sleep(_RETRY_S)

    async def _hear(self, pubsub: PubSub) -> None:
        """Pass messages on until the connection is silent for longer than a living server would be."""
        silences = 0
        while silences < _MAX_SILENCES:
            message = await pubsub.get_message(timeout=_SILENCE_S)
            if message is None:
                silences += 1
                await pubsub.ping()
                continue
            silences = 0
            try:
                self._tell(message)
            except Exception as defect:  # noqa: BLE001  # one listener's defect must not make the others deaf
                self._publish(DefectFound(thread_id="-", error=defect))

    def _tell(self, message: Any) -> None:
        """Whom it concerns has heard; of a connection, which the library also mends by itself, all have."""
        channel, is_message = (message.get("channel") or b"").decode(), message["type"] == "message"
        if channel == _ALWAYS and message["type"] == "subscribe":
            for missed in self.on_gap:
                missed()
        listener = self._listeners.get(channel)
        if listener is not None and (is_message or message["type"] == "subscribe"):
            listener(message["data"] if is_message else b"")

    async def _change(self, pubsub: PubSub) -> None:
        """Tell Redis of channels that have come or gone."""
        while True:
            channel = await self._changes.get()
            await (pubsub.subscribe if channel in self._listeners else pubsub.unsubscribe)(channel)


async def _first_to_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends or fails, which ends the others."""
    tasks = [asyncio.get_running_loop().create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
