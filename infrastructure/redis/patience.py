"""How long a server is waited for, in the time of a process that may have little of it.

On a busy machine an event loop's turns are long, and an answer that has come is seen some turns later. So what is
counted is not the time by the clock, but how often this process could have seen an answer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

LOOK_S = 0.01
"""The time between two looks; one that comes later counts no more."""


@asynccontextmanager
async def patience(timeout_s: float) -> AsyncIterator[None]:
    """What is within has ended: in that time, or in as many turns of the loop as fit in there when none is late.

    Raises:
        TimeoutError: it did not.
    """
    async with asyncio.timeout(None) as limit:
        looks = _Looks(limit, ceil(timeout_s / LOOK_S))
        try:
            yield
        finally:
            looks.timer.cancel()


class _Looks:
    """Ends `limit` after so many looks."""

    def __init__(self, limit: asyncio.Timeout, left: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._left = left
        self.timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._left -= 1
        if self._left > 0:
            self.timer = self._loop.call_later(LOOK_S, self._look)
        else:
            self._limit.reschedule(self._loop.time())
