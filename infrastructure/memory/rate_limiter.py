"""Token buckets in this process's memory."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import Publish, RateChecked
from domain.limiting import Quota, Rate, TokenBucket

MAX_BUCKETS = 100_000
"""Buckets kept at most; the one that was used longest ago is forgotten first."""


class MemoryRateLimiter:
    """A bucket for each caller, at the rate of its tier; a tier without a rate has no limit."""

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
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    async def spend(self, caller: Caller) -> None:
        """Take one token.

        Raises:
            RateLimited: there is none; `retry_after_s` is the time until there is one.
        """
        rate = self._rates.get(caller.tier)
        if rate is None:
            return
        self._publish(RateChecked(path="local"))
        bucket, now_s = self._bucket(caller, rate), self._clock()
        retry_after_s = bucket.spend(now_s)
        if retry_after_s:
            raise RateLimited(retry_after_s, bucket.quota(caller.tier, now_s))

    async def refund(self, caller: Caller) -> None:
        """Give back a token whose work was not needed."""
        bucket = self._buckets.get(caller.user)
        if bucket is not None:
            bucket.refund()

    def quota(self, caller: Caller) -> Quota | None:
        """What is left; None: no limit."""
        rate = self._rates.get(caller.tier)
        if rate is None:
            return None
        bucket = self._buckets.get(caller.user)
        if bucket is None:
            return Quota(policy=caller.tier, rate=rate, remaining=rate.amount, reset_s=0.0)
        return bucket.quota(caller.tier, self._clock())

    def _bucket(self, caller: Caller, rate: Rate) -> TokenBucket:
        bucket = self._buckets.get(caller.user)
        if bucket is None:
            bucket = self._buckets[caller.user] = TokenBucket(rate, rate.amount, self._clock())
            if len(self._buckets) > self._max_buckets:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller.user)
        return bucket
