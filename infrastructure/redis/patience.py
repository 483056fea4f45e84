"""How long a server is waited for, in the time of a process that may have little of it.

On a busy machine an event loop's turns are long, and an answer that has come is seen some turns later. So what is
counted is not the time by the clock, but how often this process could have seen an answer.
"""

import asyncio
from math import ceil
from types import TracebackType

LOOK_S = 0.01
"""The time between two looks; one that comes later counts no more."""

BATCH_BYTES = 65_536
"""So much can be sent within a timeout over the slowest link that will do; more is given more time."""


class Patience:
    """What is within has ended: in that time, or in as many turns of the loop as fit in there when none is late.

    Raises:
        TimeoutError: it did not.
    """

    __slots__ = ("_left", "_limit", "_loop", "_timer")

    def __init__(self, timeout_s: float) -> None:
        self._left = ceil(timeout_s / LOOK_S)
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    async def __aenter__(self) -> None:
        """From now on it is waited for."""
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """It has ended."""
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, frames)

    def _look(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._timer = self._loop.call_later(LOOK_S, self._look)
        else:
            self._limit.reschedule(self._loop.time())
