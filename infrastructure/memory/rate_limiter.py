"""Token buckets in this process's memory."""

from collections.abc import Callable, Mapping

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import Publish, RateChecked
from domain.limiting import Quota, Rate, TokenBucket
from infrastructure.memory.crowd import Crowd

MAX_BUCKETS = 100_000
"""Buckets kept at most for addresses, and as many for users of keys; those that are full again are forgotten first."""


class MemoryRateLimiter:
    """A bucket for each user and rate, its key's own or that of its tier; a tier without a rate has no limit."""

    def __init__(
        self,
        *,
        rates: Mapping[str, Rate],
        publish: Publish,
        clock: Callable[[], float],
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self._rates = rates
        self._publish = publish
        self._clock = clock
        self._buckets = Crowd[tuple[str, int, float], TokenBucket](most=max_buckets, is_idle=TokenBucket.is_full)

    async def spend(self, caller: Caller) -> None:
        """Take one token.

        Raises:
            RateLimited: there is none; `retry_after_s` is the time until there is one.
        """
        rate = self._rate(caller)
        if rate is None:
            return
        self._publish(RateChecked(path="local"))
        now_s = self._clock()
        name = _name(caller.user, rate)
        bucket = self._buckets.of(caller, name, now_s, lambda: TokenBucket(rate, rate.amount, now_s))
        retry_after_s = bucket.spend(now_s)
        if retry_after_s:
            raise RateLimited.of_requests(bucket.quota(caller.tier, now_s), retry_after_s)

    def refund(self, caller: Caller) -> None:
        """Give back a token whose work was not needed."""
        rate = self._rate(caller)
        bucket = self._buckets.get(_name(caller.user, rate)) if rate else None
        if bucket is not None:
            bucket.refund()

    def quota(self, caller: Caller) -> Quota | None:
        """What is left; None: no limit."""
        rate = self._rate(caller)
        if rate is None:
            return None
        bucket = self._buckets.get(_name(caller.user, rate))
        if bucket is None:
            return Quota(policy=caller.tier, rate=rate, remaining=rate.amount, reset_s=0.0)
        return bucket.quota(caller.tier, self._clock())

    def _rate(self, caller: Caller) -> Rate | None:
        return caller.rate or self._rates.get(caller.tier)


def _name(user: str, rate: Rate) -> tuple[str, int, float]:
    """Users' keys may have rates of their own: what one allows is not another's to spend."""
    return (user, rate.amount, rate.per_s)
