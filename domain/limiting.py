"""How often a caller may cause work: token buckets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`amount` requests in `per_s` seconds, all of which may come at once."""

    amount: int
    per_s: float

    def __post_init__(self) -> None:
        if self.amount < 1 or self.per_s <= 0:
            raise ValueError(f"a rate allows at least one request in a positive time, not {self}")

    @property
    def refill_per_s(self) -> float:
        """Tokens that come back in a second."""
        return self.amount / self.per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a caller has left, and when it has more.

    `reset_s` is the time until the bucket is full again. `unit` is what is counted: requests, or tokens of models.
    """

    policy: str
    rate: Rate
    remaining: int
    reset_s: float
    unit: str = "requests"

    @property
    def more_s(self) -> float:
        """The seconds until one more than `remaining` is there; of a full bucket, after the first of it is taken."""
        return max(0.0, self.reset_s - (self.rate.amount - self.remaining - 1) / self.rate.refill_per_s)


_ROUNDING = 1e-6
"""What passes for a token: who waits exactly as long as it was told to must not be refused for a rounding error."""


@dataclass(slots=True)
class TokenBucket:
    """Tokens that come back at a steady rate, up to the rate's amount.

    `tokens` is what was there at `at_s` (monotonic seconds).
    """

    rate: Rate
    tokens: float
    at_s: float

    def spend(self, now_s: float, tokens: int = 1) -> float:
        """Take so many tokens and return 0.0, or take none and return the seconds until there are as many."""
        self._refill(now_s)
        if self.tokens >= tokens - _ROUNDING:
            self.tokens -= tokens
            return 0.0
        return (tokens - self.tokens) / self.rate.refill_per_s

    def is_full(self, now_s: float) -> bool:
        """Whether nothing would be lost with it."""
        return self.left(now_s) >= self.rate.amount

    def left(self, now_s: float) -> float:
        """Tokens that are there at `now_s`; below 0, what has to come back before there are any."""
        return min(self.rate.amount, self.tokens + max(0.0, now_s - self.at_s) * self.rate.refill_per_s)

    def refund(self, tokens: int = 1) -> None:
        """Put so many tokens back; below 0, take more than were taken, even more than there are."""
        self.tokens = min(self.rate.amount, self.tokens + tokens)

    def quota(self, policy: str, now_s: float, unit: str = "requests") -> Quota:
        """What is left at `now_s`, under the name `policy`."""
        self._refill(now_s)
        reset_s = (self.rate.amount - self.tokens) / self.rate.refill_per_s
        remaining = max(0, int(self.tokens + _ROUNDING))
        return Quota(policy=policy, rate=self.rate, remaining=remaining, reset_s=reset_s, unit=unit)

    def _refill(self, now_s: float) -> None:
        self.tokens, self.at_s = self.left(now_s), max(self.at_s, now_s)
