"""Commands to one server, a batch in a round trip, on connections that are the library's own.

The library makes connections (with TLS, names, passwords and sentinels) and reads answers. Its pipelines, which do more
for each command than the server does, are not used: a batch is packed in one go and has one timer, not one an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoTime

from infrastructure.redis.patience import BATCH_BYTES, Patience

_KEPT = 2
"""So many connections stay out of the pool between batches; more are given back, for who waits for one there."""

_BROKEN = (NoConnection, NoTime, OSError, asyncio.TimeoutError)

Command = tuple[Any, ...]
Shape = Callable[[Any], Any]


class Wire(Protocol):
    """What is needed of the library's connections."""

    is_connected: bool

    async def can_read(self) -> bool:
        """Whether something has come that nobody asked for, such as the connection's end."""
        ...

    async def connect(self) -> None:
        """Open it."""
        ...

    async def disconnect(self) -> None:
        """Close it."""
        ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:  # noqa: FBT001, FBT002  # the library's
        """Send bytes."""
        ...

    async def read_response(self) -> Any:
        """The next answer; an error is raised."""
        ...


class Pool(Protocol):
    """What is needed of the library's pools."""

    async def get_connection(self) -> Any:
        """A connection that nobody else uses."""
        ...

    async def release(self, connection: Any) -> None:
        """It can be used by others."""
        ...

    async def aclose(self) -> None:
        """Close all."""
        ...


class Batches:
    """Runs batches on connections of `pool`, whose sockets have no timeout of their own.

    To get a connection may take `timeout_s` (patience.py), and so may a batch on it, or each BATCH_BYTES of one that is
    larger; both are tried twice. `shapes` are the library's: what becomes of a command's answer.
    """

    def __init__(self, pool: Pool, *, shapes: Mapping[str, Shape], timeout_s: float) -> None:
        self._pool = pool
        self._shapes = shapes
        self._timeout_s = timeout_s
        self._kept: list[Wire] = []

    def pipeline(self, transaction: bool = True) -> "_Batch":  # noqa: ARG002, FBT001, FBT002  # the library's
        """An empty batch."""
        return _Batch(self)

    async def aclose(self) -> None:
        """All connections are closed; new ones are made when there are commands again."""
        kept, self._kept = self._kept, []
        for wire in kept:
            await self._pool.release(wire)
        await self._pool.aclose()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Each command's answer, or the error that the server answered with.

        Raises:
            RedisError, OSError, TimeoutError: there is no connection, or the answers did not come in time, twice.
        """
        packed = b"".join(map(hiredis.pack_command, commands))
        try:
            return await self._run(packed, commands)
        except _BROKEN:
            return await self._run(packed, commands)

    async def _run(self, packed: bytes, commands: Sequence[Command]) -> list[Any]:
        wire = await self._take()
        try:
            async with Patience(self._timeout_s * (1 + len(packed) // BATCH_BYTES)):
                await wire.send_packed_command(packed, check_health=False)
                return [await self._answer(wire, command[0]) for command in commands]
        finally:
            await self._give_back(wire)

    async def _answer(self, wire: Wire, name: str) -> Any:
        try:
            answer = await wire.read_response()
        except ResponseError as error:
            return error
        shape = self._shapes.get(name)
        return answer if shape is None else shape(answer)

    async def _take(self) -> Wire:
        """A connection that is open, as far as can be seen."""
        while self._kept:
            kept = self._kept.pop()
            if kept.is_connected and not await kept.can_read():
                return kept
            await self._pool.release(kept)
        async with Patience(self._timeout_s):
            wire: Wire = await self._pool.get_connection()
            try:
                await _renew(wire)
            except BaseException:
                await self._pool.release(wire)
                raise
            return wire

    async def _give_back(self, wire: Wire) -> None:
        if wire.is_connected and len(self._kept) < _KEPT:
            self._kept.append(wire)
        else:
            await self._pool.release(wire)


async def _renew(wire: Wire) -> None:
    """It is open: the pool does not always look."""
    if await wire.can_read():
        await wire.disconnect()
        await wire.connect()


class _Batch:
    """Commands that are sent together."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._commands: list[Command] = []

    def execute_command(self, *args: Any) -> None:
        """Add a command."""
        self._commands.append(args)

    def execute(self, raise_on_error: bool = True) -> Awaitable[list[Any]]:  # noqa: ARG002, FBT001, FBT002  # the library's
        """Send them."""
        return self._batches.run(self._commands)
