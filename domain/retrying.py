"""How often a route is asked again: for one request, and over all requests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Delays = Callable[[], Iterator[float]]
"""Gives the waits between the attempts of one request, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` on one route before its first token; waits grow from `base_s` to `max_s`, with full jitter.

    A provider's own wish is waited for in place only up to `wish_max_s`. Over all requests, retries are at most
    `budget_ratio` of a provider's calls, beside those that quiet services are always allowed.
    """

    attempts: int = 3
    base_s: float = 1.0
    max_s: float = 30.0
    wish_max_s: float = 3.0
    budget_ratio: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"at least one attempt, not {self.attempts}")


FLOOR_RETRIES = 20.0
FLOOR_RETRIES_PER_S = 2.0
MAX_RETRIES = 1000.0


class RetryBudget:
    """A bucket of retries of one provider: every call puts in `ratio` of one, every retry takes one out.

    FLOOR_RETRIES are there at first, and come back at FLOOR_RETRIES_PER_S. So an outage costs the provider at most that
    share of extra calls, and who calls it seldom is not told that there is nothing left. More than MAX_RETRIES are not
    saved up: an hour of good calls does not pay for a storm.

    Source: twitter.github.io/finagle/guide/Clients.html, "Retry Budget", as known 2026-11.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._retries = FLOOR_RETRIES
        self._filled_at_s = 0.0

    def called(self) -> None:
        """Count a first call."""
        self._retries = min(MAX_RETRIES, self._retries + self._ratio)

    def take(self, now_s: float) -> bool:
        """Whether a retry may be made at `now_s` (monotonic seconds); it is counted."""
        if self._retries < FLOOR_RETRIES:
            filled = (now_s - self._filled_at_s) * FLOOR_RETRIES_PER_S
            self._retries = min(FLOOR_RETRIES, self._retries + filled)
        self._filled_at_s = now_s
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True
