"""Asking a second route when the first is slower than it usually is."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from domain.breaker import circuit_name
from domain.calls import Call
from domain.selection import Route

REMEMBERED = 100
"""Of so many of a route's latest first tokens the time is remembered."""

ENOUGH = 20
"""With fewer it is not known what is usual."""

USUAL_SHARE = 0.95
"""What is slower than this share of them is unusual."""

MAX_SAVED = 10.0
"""Hedges that quiet times save up at most."""


class Pace:
    """How long routes have lately taken to their first token."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def took(self, route: Route, seconds: float) -> None:
        """Remember a first token."""
        self._seconds[circuit_name(route.provider, route.model)].append(seconds)

    def lost(self, route: Route, seconds: float) -> None:
        """Remember a first token that would have taken longer still, if that is unusual: ending it is no speed."""
        usual_s = self.usual_s(circuit_name(route.provider, route.model))
        if usual_s is not None and seconds >= usual_s:
            self.took(route, seconds)

    def failed(self, route: Route) -> None:
        """Who has no first token says nothing of the time to one."""

    def usual_s(self, circuit: str) -> float | None:
        """What all but the slowest have taken at most; None: it is not known yet."""
        seconds = sorted(self._seconds[circuit])
        return seconds[int(len(seconds) * USUAL_SHARE)] if len(seconds) >= ENOUGH else None


class Hedging:
    """Lets at most `ratio` of all requests be asked twice."""

    def __init__(self, ratio: float, pace: Pace) -> None:
        self._ratio = ratio
        self._pace = pace
        self._saved = 0.0

    async def race(
        self,
        first: Call,
        second: Call,
        make: Callable[[Call], Coroutine[Any, Any, None]],
        may_call_more: Callable[[], bool] = lambda: True,
    ) -> None:
        """The answer of the call that has begun it: `second` is made when `first` is late; the slower one is cancelled.

        It is not made unless `may_call_more` says so, which is asked once.

        Raises:
            ProviderError, CircuitOpen: what the one that had begun failed with, or `first` if none had.
        """
        self._saved = min(MAX_SAVED, self._saved + self._ratio)
        usual_s = self._pace.usual_s(first.circuit)
        if usual_s is None or self._saved < 1.0:
            await make(first)
        else:
            await _Race(make).run(first, second, usual_s, lambda: self._spend(may_call_more))

    def _spend(self, may_call_more: Callable[[], bool]) -> bool:
        """Whether a second call may be made; it is counted."""
        if self._saved < 1.0 or not may_call_more():
            return False
        self._saved -= 1.0
        return True


class _Race:
    """Two calls in tasks of their own, until one of them has its first chunk."""

    def __init__(self, make: Callable[[Call], Coroutine[Any, Any, None]]) -> None:
        self._make = make
        self._tasks: dict[asyncio.Future[Any], Call] = {}
        self._winner: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self, first: Call, second: Call, usual_s: float, may_hedge: Callable[[], bool]) -> None:
        try:
            running = self._start(first)
            await asyncio.wait({running, self._winner}, timeout=usual_s, return_when=asyncio.FIRST_COMPLETED)
            if not (self._winner.done() or running.done()) and may_hedge():
                self._start(second)
            await self._someone_won_or_all_lost()
            await (self._winner.result() if self._winner.done() else running)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, call: Call) -> asyncio.Future[Any]:
        call.on_first = self._won(call.on_first)
        task = asyncio.get_running_loop().create_task(self._make(call))
        self._tasks[task] = call
        return task

    def _won(self, on_first: Callable[[], Awaitable[None]] | None) -> Callable[[], Awaitable[None]]:
        async def won() -> None:
            winner = asyncio.current_task()
            assert winner is not None  # noqa: S101  # a coroutine runs in a task
            self._winner.set_result(winner)
            for task, call in self._tasks.items():
                if task is not winner:
                    call.has_lost = True
                    task.cancel()
            if on_first is not None:
                await on_first()

        return won

    async def _someone_won_or_all_lost(self) -> None:
        running = set(self._tasks)
        while running and not self._winner.done():
            ended, _ = await asyncio.wait({*running, self._winner}, return_when=asyncio.FIRST_COMPLETED)
            running -= ended
