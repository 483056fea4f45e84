"""How many streams are carried at once, in all and for each caller, and who waits for a place.

CP.1  asked for
CP.2  the process's limit       a place is free or can be waited for, else AtCapacity
CP.3  the caller's own limit    TooManyConnections
CP.4  taken, once it was waited for
CP.5  released
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from domain.errors import AtCapacity, TooManyConnections
from domain.fair_queue import FairQueue

Present = Callable[[], AbstractAsyncContextManager[object]]
"""A context within which somebody waits; it ends the waiting when nobody would have the place any more."""

Note = Callable[[str], None]
"""Told the number of each stage as it ends."""

REFUSED_IN: dict[type[Exception], str] = {AtCapacity: "CP.2", TooManyConnections: "CP.3"}


def unnoted(_: str) -> None:
    """Nobody wants to know."""


class Slots:
    """`limit` places, of which one caller may have `limit_per_user` (0: all of them).

    While all are taken, `queue_size` requests may wait for one, of which half may be one user's, each for
    `queue_timeout_s` at most. Places that become free go to the users in turn. A request that waits counts as its
    user's.
    """

    def __init__(
        self,
        *,
        limit: int,
        limit_per_user: int,
        queue_size: int = 0,
        queue_timeout_s: float = 0.0,
        clock: Callable[[], float],
    ) -> None:
        self._limit = limit
        self._limit_per_user = limit_per_user
        self._queue: FairQueue[Slot] = FairQueue()
        self._queue_size = queue_size
        self._queue_share = (queue_size + 1) // 2
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._durations = _Durations()
        self._counts: dict[str, int] = {}
        self.taken_count = 0

    @property
    def waiting_count(self) -> int:
        """How many requests wait for a place."""
        return self._queue.length

    async def take(
        self, user: str, *, has_limit: bool = True, present: Present = nullcontext, note: Note = unnoted
    ) -> "Slot":
        """A place for one stream of `user`; release it when the stream has ended, however.

        While a place is free this does not suspend; else it waits within `present`. Without `has_limit` the user may
        have all of them. `note` hears of the stages, at last of the release.

        Raises:
            AtCapacity: all places are taken, and the queue is full, or this has waited for too long.
            TooManyConnections: this user has all that one user may have.
        """
        note("CP.1")
        self.check(user, has_limit=has_limit, note=note)
        is_full = self.taken_count >= self._limit
        if is_full:
            slot = await self._wait(user, present)
        else:
            self.taken_count += 1
            self._count(user)
            slot = Slot(self, user, self._clock())
        slot.note = note
        note("CP.4")
        return slot

    def check(self, user: str, *, has_limit: bool = True, note: Note = unnoted) -> None:
        """A place for one more stream of `user` is free, or can be waited for, in this moment.

        Raises: as `take`, which raises the same if it is asked now.
        """
        if self.taken_count >= self._limit and not self._can_wait(user):
            raise AtCapacity(self._soon_s(self._limit))
        note("CP.2")
        if has_limit and 0 < self._limit_per_user <= self._counts.get(user, 0):
            raise TooManyConnections(self._limit_per_user, self._soon_s(self._limit_per_user))
        note("CP.3")

    def give_back(self, user: str, taken_at_s: float) -> None:
        """The place that `user` has had since then is free, or the next one's who waits."""
        now_s = self._clock()
        self._durations.add(now_s - taken_at_s)
        self._discount(user)
        following = self._queue.pop()
        if following is None:
            self.taken_count -= 1
        else:
            next_user, place = following
            place.set_result(Slot(self, next_user, now_s))

    def _can_wait(self, user: str) -> bool:
        queue = self._queue
        return queue.length < self._queue_size and queue.length_of(user) < self._queue_share

    async def _wait(self, user: str, present: Present) -> "Slot":
        """A place that has become free; who stops waiting leaves nothing behind."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Slot] = loop.create_future()
        timer = loop.call_later(self._queue_timeout_s, self._time_out, place)
        self._count(user)
        self._queue.join(user, place)
        try:
            async with present():
                return await place
        except BaseException:
            self._queue.leave(user, place)
            if place.done() and not place.cancelled() and not place.exception():
                place.result().release()
            else:
                self._discount(user)
            raise
        finally:
            timer.cancel()

    def _time_out(self, place: "asyncio.Future[Slot]") -> None:
        if not place.done():
            place.set_exception(AtCapacity(self._soon_s(self._limit), waited_s=self._queue_timeout_s))

    def _soon_s(self, places: int) -> float:
        """An estimate of when one of so many places is free, behind all that wait: from 1 s to a minute."""
        ahead = self._queue.length if places == self._limit else 0
        return min(max(self._durations.rest_s * (ahead + 1) / places, 1.0), 60.0)

    def _count(self, user: str) -> None:
        self._counts[user] = self._counts.get(user, 0) + 1

    def _discount(self, user: str) -> None:
        if (count := self._counts.pop(user) - 1) > 0:
            self._counts[user] = count


class Slot:
    """One place, released at most once."""

    __slots__ = ("_is_taken", "_slots", "_taken_at_s", "_user", "note")

    def __init__(self, slots: Slots, user: str, taken_at_s: float) -> None:
        self._slots = slots
        self._user = user
        self._taken_at_s = taken_at_s
        self._is_taken = True
        self.note: Note = unnoted

    def release(self) -> bool:
        """The place is free; False when it was already."""
        was_taken, self._is_taken = self._is_taken, False
        if was_taken:
            self._slots.give_back(self._user, self._taken_at_s)
            self.note("CP.5")
        return was_taken


_REMEMBERED = 0.999
"""The weight of what was known against one more stream that has ended."""


class _Durations:
    """How long streams last, by those that have ended.

    One that is met under way has E[d²] / 2E[d] to go: short ones, such as stored answers, are hardly ever met.
    Source: Feller, An Introduction to Probability Theory and Its Applications II, section XI.4 (waiting-time paradox).
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._squares = 0.0

    def add(self, duration_s: float) -> None:
        self._sum = self._sum * _REMEMBERED + duration_s
        self._squares = self._squares * _REMEMBERED + duration_s * duration_s

    @property
    def rest_s(self) -> float:
        return self._squares / (2 * self._sum) if self._sum else 0.0
