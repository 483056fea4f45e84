"""How often a route is asked again: for one request, and over all requests."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Delays = Callable[[], Iterator[float]]
"""Gives the waits between the attempts of one request, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` on one route before its first token; waits grow from `base_s` to `max_s`, with full jitter.

    A provider's own wish is waited for in place only up to `wish_max_s`. Over all requests, extra calls are at most
    `budget_ratio` of a provider's others, beside the few that quiet services are always allowed.
    """

    attempts: int = 3
    base_s: float = 1.0
    max_s: float = 30.0
    wish_max_s: float = 3.0
    budget_ratio: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"at least one attempt, not {self.attempts}")


FLOOR_EXTRAS = 5
WINDOW_S = 60.0


@dataclass(slots=True, kw_only=True)
class _Second:
    """How many calls were made in the second from `began_s` on."""

    began_s: float
    called: int = 0
    extra: int = 0


class RetryBudget:
    """How many extra calls one provider may have: in any WINDOW_S, `ratio` of the others made in it and FLOOR_EXTRAS.

    So an outage costs the provider at most that share of extra calls, and who calls it seldom is not told that there is
    nothing left. Nothing is saved up: an hour of good calls does not pay for a storm.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._seconds: deque[_Second] = deque()
        self._called = self._extra = 0

    def called(self, now_s: float) -> None:
        """Count a call that is no extra one, at `now_s` (monotonic seconds)."""
        self._at(now_s).called += 1
        self._called += 1

    def take(self, now_s: float) -> bool:
        """Whether an extra call may be made at `now_s`; it is counted."""
        second = self._at(now_s)
        if self._extra + 1 > FLOOR_EXTRAS + self._ratio * self._called:
            return False
        second.extra += 1
        self._extra += 1
        return True

    def _at(self, now_s: float) -> _Second:
        """Where what happens now is counted; what happened before the window is not any more."""
        seconds = self._seconds
        while seconds and seconds[0].began_s <= now_s - WINDOW_S:
            past = seconds.popleft()
            self._called -= past.called
            self._extra -= past.extra
        if not seconds or seconds[-1].began_s <= now_s - 1.0:
            seconds.append(_Second(began_s=now_s))
        return seconds[-1]


class RetryBudgets:
    """The budget of each provider."""

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._budgets: defaultdict[str, RetryBudget] = defaultdict(lambda: RetryBudget(ratio))

    def called(self, provider: str) -> None:
        """A call that its request needs has been made."""
        self._budgets[provider].called(self._clock())

    def take(self, provider: str) -> bool:
        """Whether a request may make a call more than it needs; it is counted."""
        return self._budgets[provider].take(self._clock())
