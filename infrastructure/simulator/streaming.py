"""Frames onto a connection, at their pace, and the ways a connection can end."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic
from typing import NoReturn

from aiohttp import web

from infrastructure.simulator.script import Ending, Staged

# A burst leaves in writes of so many steps; between them others get their turn and the client may catch up.
_BURST_STEPS = 64
# A reset discards what is still on its way: what was said before gets this long to arrive.
_RESET_DELAY_S = 0.005
_NO_LINGER = struct.pack("ii", 1, 0)


class ConnectionBroken(Exception):
    """The server broke the connection, as the behaviour asked."""


async def silence() -> NoReturn:
    """Never return: only the client's leaving ends this, by cancellation."""
    while True:
        await asyncio.get_running_loop().create_future()


async def murmur(response: web.StreamResponse, comment: bytes, duration_s: float, every_s: float) -> None:
    """Send `comment` at once and then every `every_s`, until `duration_s` have passed."""
    end = monotonic() + duration_s
    while (left_s := end - monotonic()) > 0:
        await response.write(comment)
        await asyncio.sleep(min(left_s, max(every_s, 0.001)))


def reset(request: web.BaseRequest) -> NoReturn:
    """Break the connection with a TCP reset.

    Raises:
        ConnectionBroken: always.
    """
    transport = _transport(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
    raise ConnectionBroken


async def play(
    staged: Staged, request: web.BaseRequest, *, ttft_s: float, gap_s: float, on_steps: Callable[[int], None]
) -> None:
    """Send the body on `request`'s connection, behind headers already sent, and end it; `on_steps` is told how many
    steps leave.

    Raises:
        ConnectionBroken: the ending was one of the broken ones.
    """
    due = monotonic() + ttft_s
    if ttft_s:
        await asyncio.sleep(ttft_s)
    transport = _transport(request)
    transport.write(staged.opening)
    if gap_s:
        await _Pacer(request, due, gap_s, on_steps).send(staged.steps)
    else:
        await _burst(staged.steps, request, on_steps)
    transport.write(staged.rest)
    await _end(staged.ending, request)


class _Pacer:
    """Sends each step when it is due, to the millisecond; a late one does not delay those after it.

    Timers call it directly: waking a task for each token costs half as much again.
    """

    def __init__(self, request: web.BaseRequest, due: float, gap_s: float, on_steps: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = request.protocol
        self._transport = _transport(request)
        self._due = due
        self._gap_s = gap_s
        self._on_steps = on_steps

    async def send(self, steps: Iterator[bytes]) -> None:
        """Return one gap after the last step has left.

        Raises:
            ConnectionResetError: the client left and the cancellation has not arrived yet.
        """
        self._steps = steps
        self._sent: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_soon(self._tick)
        try:
            await self._sent
        finally:
            self._timer.cancel()

    def _tick(self) -> None:
        if self._sent.done():
            return
        if self._transport.is_closing():
            self._sent.set_exception(ConnectionResetError())
            return
        if not self._protocol.writing_paused:  # else the client is slow: look again a gap later
            step = next(self._steps, None)
            if step is None:
                self._sent.set_result(None)
                return
            self._on_steps(1)
            self._transport.write(step)
        self._due += self._gap_s
        self._timer = self._loop.call_later(max(self._due - monotonic(), 0.0), self._tick)


async def _burst(steps: Iterator[bytes], request: web.BaseRequest, on_steps: Callable[[int], None]) -> None:
    """Send all steps as fast as the client reads them."""
    write = _transport(request).write
    while batch := tuple(islice(steps, _BURST_STEPS)):
        on_steps(len(batch))
        write(b"".join(batch))
        if len(batch) == _BURST_STEPS:
            await _drained(request)


async def _drained(request: web.BaseRequest) -> None:
    await asyncio.sleep(0)
    await request.writer.drain()


async def _end(ending: Ending, request: web.BaseRequest) -> None:
    if ending is Ending.SILENCE:
        await silence()
    if ending is Ending.RESET:
        await asyncio.sleep(_RESET_DELAY_S)
        reset(request)
    if ending is Ending.CUT:
        _transport(request).close()
        raise ConnectionBroken


def _transport(request: web.BaseRequest) -> asyncio.WriteTransport:
    """Return the connection to write on; a client already gone cancels at the next await, so there is one.

    Raises:
        ConnectionResetError: the client left and the cancellation has not arrived yet.
    """
    if request.transport is None:
        raise ConnectionResetError
    return request.transport
