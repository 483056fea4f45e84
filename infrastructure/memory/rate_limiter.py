"""Token buckets in this process's memory."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import Publish, RateChecked
from domain.limiting import Quota, Rate, TokenBucket

MAX_BUCKETS = 100_000
"""Buckets kept at most; the one that was used longest ago is forgotten first."""


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
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[tuple[str, int, float], TokenBucket] = OrderedDict()

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
        bucket = self._bucket(caller.user, rate, now_s)
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

    def _bucket(self, user: str, rate: Rate, now_s: float) -> TokenBucket:
        name = _name(user, rate)
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now_s)
            bucket = self._buckets[name] = TokenBucket(rate, rate.amount, now_s)
        else:
            self._buckets.move_to_end(name)
        return bucket

    def _make_room(self, now_s: float) -> None:
        """A bucket that is full again is as good as none; to look at two for each new one is enough."""
        for name, oldest in list(islice(self._buckets.items(), 2)):
            if len(self._buckets) >= self._max_buckets or oldest.is_full(now_s):
                del self._buckets[name]


def _name(user: str, rate: Rate) -> tuple[str, int, float]:
    """Users' keys may have rates of their own: what one allows is not another's to spend."""
    return (user, rate.amount, rate.per_s)
