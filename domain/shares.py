"""What an instance may spend of a rate while the bucket that all share cannot be asked.

Each of `instance_count` has the same part: of what the bucket held, as far as it has heard of it, and of what comes
back. All shares together never have more than the one bucket would have if it were as full as its instances know.

Once the bucket is there again it is told what it misses: what was spent, less what has come back since. Until all have
had time to say so, each leaves in it what the others may have spent.
"""

from dataclasses import dataclass
from math import inf

from domain.limiting import Rate, TokenBucket
from domain.values import value

UNKNOWN_COUNT = 10
"""Who has never heard of the others takes itself for one of so many."""

SETTLE_S = 2.0
"""So long after the bucket is there again, every instance has told it what was spent; and by no more do they differ in
when they saw it go."""


@value
class Outage:
    """The bucket could not be asked from `since_s` until `until_s`."""

    since_s: float
    until_s: float

    @property
    def settled_at_s(self) -> float:
        """By then every instance has said what it spent."""
        return self.until_s + SETTLE_S

    def others_may_have_spent(self, rate: Rate, instance_count: int, now_s: float) -> float:
        """At most so many tokens of which the bucket may not have been told: what all shares but one had."""
        if now_s >= self.settled_at_s:
            return 0.0
        whole = _whole(rate, instance_count)
        had = min(whole.amount, whole.refill_per_s * (self.settled_at_s - self.since_s))
        return had * (instance_count - 1) / instance_count


NO_OUTAGE = Outage(since_s=-inf, until_s=-inf)


@dataclass(slots=True)
class Share:
    """One instance's part: a bucket of the whole rate, of which each request takes `instance_count` tokens.

    So nothing is lost by rounding. A rate of fewer than that many has its tokens as often, but each instance may save
    one. It has been filling since `since_s`; `spent` counts requests.
    """

    since_s: float
    bucket: TokenBucket
    instance_count: int
    spent: int = 0

    def spend(self, now_s: float) -> float:
        """Take what one request needs (0.0), or say after how many seconds there is as much."""
        wait_s = self.bucket.spend(now_s, self.instance_count)
        if not wait_s:
            self.spent += 1
        return wait_s

    def refund(self) -> None:
        """One request caused no work."""
        self.bucket.refund(self.instance_count)
        self.spent -= 1

    def left(self, now_s: float) -> float:
        """Requests that could be had now."""
        return max(0.0, self.bucket.left(now_s)) / self.instance_count

    def owed(self, now_s: float) -> float:
        """What the bucket that all share has to be told: what was spent here and has not come back since."""
        missing = (self.bucket.rate.amount - self.bucket.left(now_s)) / self.instance_count
        return max(0.0, min(self.spent, missing))


def share(rate: Rate, instance_count: int, tokens: float, since_s: float) -> Share:
    """One of so many instances' part of `rate`, which had `tokens` of the whole at `since_s`."""
    return Share(since_s, TokenBucket(_whole(rate, instance_count), tokens, since_s), instance_count)


def _whole(rate: Rate, instance_count: int) -> Rate:
    """That rate, of which at least one request each is divided."""
    amount = max(rate.amount, instance_count)
    return Rate(amount=amount, per_s=amount / rate.refill_per_s)
