"""Tokens a minute and US dollars a day, counted in Redis for all instances; while it is away, each has its share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from domain.chat import Caller
from domain.errors import RateLimited
from domain.limiting import Quota, Rate, TokenBucket
from domain.usage import Reservation, UsageLimits, Use, usage_limits
from infrastructure.memory.usage_limiter import MAX_USERS, MemoryUsageLimiter, tokens_quota
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.limit_scripts import RESERVE, SETTLE


class RedisUsageLimiter:
    """`own` counts what is reserved while Redis is away."""

    def __init__(
        self,
        *,
        tiers: Mapping[str, int],
        client: RedisClient,
        own: MemoryUsageLimiter,
        new_id: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._tiers = tiers
        self._client = client
        self._own = own
        self._new_id = new_id
        self._clock = clock
        self._told: OrderedDict[str, TokenBucket] = OrderedDict()

    async def reserve(self, caller: Caller, use: Use) -> Reservation | None:
        """What the caller's limits still allow is taken from them; None: it has none.

        Raises:
            RateLimited: there is less left than `use`.
        """
        limits = usage_limits(caller, self._tiers)
        if limits is None:
            return None
        reservation = Reservation(user=caller.user, id=self._new_id(), use=_within(limits, use))
        try:
            answer = await self._ask(reservation, limits)
        except NO_ANSWER:
            return self._own.reserve_within(caller, limits, use)
        self._hear(caller, limits, reservation.use, answer)
        return reservation

    def settle(self, reservation: Reservation, use: Use) -> None:
        """The reservation has become `use`, or will have in a moment."""
        if reservation.is_local:
            self._own.settle(reservation, use)
            return
        known = self._told.get(reservation.user)
        if known is not None:
            known.refund(reservation.use.tokens - use.tokens)
        keys = (usage_key(reservation.user),)
        self._client.submit_script(SETTLE, keys, reservation.id, use.tokens, repr(use.usd)).add_done_callback(unheard)

    def quota(self, caller: Caller) -> Quota | None:
        """What is left of a minute's tokens, as far as is known here; None: no limit."""
        limits = usage_limits(caller, self._tiers)
        if limits is None or limits.tokens_per_minute is None:
            return None
        amount, now_s = limits.tokens_per_minute, self._clock()
        known = self._told.get(caller.user) or TokenBucket(Rate(amount=amount, per_s=60.0), amount, now_s)
        return tokens_quota(known, caller.tier, now_s)

    async def _ask(self, reservation: Reservation, limits: UsageLimits) -> Any:
        use, budget = reservation.use, limits.budget_usd_per_day
        keys, limit = (usage_key(reservation.user),), limits.tokens_per_minute or 0
        dollars = (repr(-1.0 if budget is None else budget), repr(use.usd))
        return await self._client.submit_script(RESERVE, keys, reservation.id, limit, use.tokens, *dollars)

    def _hear(self, caller: Caller, limits: UsageLimits, use: Use, answer: Any) -> None:
        """Know what is left.

        Raises:
            RateLimited: it was too little.
        """
        reason, tokens, _, wait_us = answer
        known = self._know(caller, limits, float(tokens))
        if reason == b"tokens" and known is not None:
            raise RateLimited.of_tokens(known, use.tokens, wait_us / 1_000_000)
        if reason == b"budget" and limits.budget_usd_per_day is not None:
            raise RateLimited.of_budget(limits.budget_usd_per_day, use.usd, wait_us / 1_000_000)

    def _know(self, caller: Caller, limits: UsageLimits, tokens: float) -> Quota | None:
        amount, now_s = limits.tokens_per_minute, self._clock()
        if amount is None:
            return None
        known = self._told[caller.user] = TokenBucket(Rate(amount=amount, per_s=60.0), tokens, now_s)
        self._told.move_to_end(caller.user)
        if len(self._told) > MAX_USERS:
            self._told.popitem(last=False)
        return tokens_quota(known, caller.tier, now_s)


def _within(limits: UsageLimits, use: Use) -> Use:
    """No more than the whole of each limit, or the request could never be answered; nothing of a limit there is not."""
    amount, budget = limits.tokens_per_minute, limits.budget_usd_per_day
    tokens = 0 if amount is None else min(use.tokens, amount)
    return Use(tokens=tokens, usd=use.usd if budget is None else min(use.usd, budget))


def usage_key(user: str) -> str:
    """Hash: what a user's answers have used, see RESERVE."""
    return f"weir:bucket:{{{user}}}:usage"
