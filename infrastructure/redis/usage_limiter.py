"""Tokens a minute and US dollars a day, counted in Redis for all instances; while it is away, each has its share."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from domain.chat import Caller
from domain.errors import RateLimited
from domain.limiting import Quota, Rate, TokenBucket
from domain.usage import NOTHING, Reservation, UsageLimits, Use, usage_limits
from infrastructure.memory.usage_limiter import DAY_S, MAX_USERS, MemoryUsageLimiter, tokens_quota
from infrastructure.redis.client import NO_ANSWER, RedisClient
from infrastructure.redis.limit_scripts import RESERVE, SETTLE


@dataclass(slots=True)
class _Told:
    """What Redis said last of a user: what is left of a minute's tokens, and what was spent on `day` (UTC)."""

    bucket: TokenBucket | None
    usd: float
    day: int


class RedisUsageLimiter:
    """`own` counts what is reserved while Redis is away; what it cost Redis is told later, under an id of its own."""

    def __init__(
        self,
        *,
        tiers: Mapping[str, int],
        client: RedisClient,
        own: MemoryUsageLimiter,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._tiers = tiers
        self._client = client
        self._own = own
        self._new_id = new_id
        self._clock = clock
        self._unix_now = unix_now
        self._told: OrderedDict[tuple[str, int | None], _Told] = OrderedDict()
        self._uncharged: deque[Reservation] = deque(maxlen=MAX_USERS)
        self._unsettled: deque[tuple[Reservation, Use]] = deque(maxlen=MAX_USERS)
        client.on_return.append(self._catch_up)

    async def reserve(self, caller: Caller, use: Use) -> Reservation | None:
        """What the caller's limits still allow is taken from them; None: it has none.

        Raises:
            RateLimited: there is less left than `use`.
        """
        limits = usage_limits(caller, self._tiers)
        if limits is None:
            return None
        reservation = Reservation(user=caller.user, id=self._new_id(), use=_within(limits, use), limits=limits)
        try:
            answer = await self._ask(reservation)
        except asyncio.CancelledError:
            self._settle(reservation, NOTHING)
            raise
        except NO_ANSWER:
            self._unsettled.append((reservation, NOTHING))
            return self._own.reserve_within(caller, self._left_of(caller.user, limits), use)
        self._hear(caller, reservation, use, answer)
        return reservation

    def settle(self, reservation: Reservation, use: Use) -> None:
        """The reservation has become `use`, or will have in a moment."""
        if reservation.is_local:
            self._own.settle(reservation, use)
            if use.usd:
                self._charge(replace(reservation, id=self._new_id(), use=Use(tokens=0, usd=use.usd)))
            return
        known = self._told.get((reservation.user, reservation.limits.tokens_per_minute))
        if known is not None and known.bucket is not None:
            known.bucket.refund(reservation.use.tokens - use.tokens)
        self._settle(reservation, use)

    def quota(self, caller: Caller) -> Quota | None:
        """What is left of a minute's tokens, as far as is known here; None: no limit."""
        limits = usage_limits(caller, self._tiers)
        if limits is None or limits.tokens_per_minute is None:
            return None
        amount, now_s = limits.tokens_per_minute, self._clock()
        known = self._told.get((caller.user, amount))
        bucket = known.bucket if known else None
        return tokens_quota(bucket or _bucket(amount, amount, now_s), caller.tier, now_s)

    def _ask(self, reservation: Reservation) -> asyncio.Future[Any]:
        use, budget = reservation.use, reservation.limits.budget_usd_per_day
        keys, limit = (usage_key(reservation.user),), reservation.limits.tokens_per_minute or 0
        dollars = (repr(-1.0 if budget is None else budget), repr(use.usd))
        return self._client.submit_script(RESERVE, keys, reservation.id, limit, use.tokens, *dollars)

    def _charge(self, spent: Reservation) -> None:
        """Redis counts what was spent without it, as soon as it can."""
        unlimited = replace(spent.limits, budget_usd_per_day=None)
        self._ask(replace(spent, limits=unlimited)).add_done_callback(partial(self._charged, spent))

    def _charged(self, spent: Reservation, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._uncharged.append(spent)

    def _settle(self, reservation: Reservation, use: Use) -> None:
        keys = (usage_key(reservation.user),)
        answer = self._client.submit_script(SETTLE, keys, reservation.id, use.tokens, repr(use.usd))
        answer.add_done_callback(partial(self._settled, reservation, use))

    def _settled(self, reservation: Reservation, use: Use, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._unsettled.append((reservation, use))

    def _catch_up(self) -> None:
        """Redis is back: it is told what it missed. What it did not answer it may have reserved all the same."""
        uncharged, unsettled = tuple(self._uncharged), tuple(self._unsettled)
        self._uncharged.clear()
        self._unsettled.clear()
        for spent in uncharged:
            self._charge(spent)
        for reservation, use in unsettled:
            self._settle(reservation, use)

    def _left_of(self, user: str, limits: UsageLimits) -> UsageLimits:
        """The limits, without what was spent of today's budget when Redis was last asked."""
        known, budget = self._told.get((user, limits.tokens_per_minute)), limits.budget_usd_per_day
        if known is None or budget is None or known.day != self._unix_now() // DAY_S:
            return limits
        return replace(limits, budget_usd_per_day=max(0.0, budget - known.usd))

    def _hear(self, caller: Caller, reservation: Reservation, use: Use, answer: Any) -> None:
        """Know what is left.

        Raises:
            RateLimited: it was too little.
        """
        limits, (reason, tokens, usd, wait_us) = reservation.limits, answer
        bucket = self._know(caller.user, limits, float(tokens), float(usd)).bucket
        if reason == b"tokens" and bucket is not None:
            quota = tokens_quota(bucket, caller.tier, self._clock())
            raise RateLimited.of_tokens(quota, reservation.use.tokens, wait_us / 1_000_000)
        if reason in {b"budget", b"held"} and limits.budget_usd_per_day is not None:
            left_usd = limits.budget_usd_per_day - float(usd)
            raise RateLimited.of_budget(left_usd, use.usd, wait_us / 1_000_000, is_held=reason == b"held")

    def _know(self, user: str, limits: UsageLimits, tokens: float, usd: float) -> _Told:
        amount = limits.tokens_per_minute
        bucket = None if amount is None else _bucket(amount, tokens, self._clock())
        known = self._told[user, amount] = _Told(bucket, usd, int(self._unix_now() // DAY_S))
        self._told.move_to_end((user, amount))
        if len(self._told) > MAX_USERS:
            self._told.popitem(last=False)
        return known


def _bucket(tokens_per_minute: int, tokens: float, now_s: float) -> TokenBucket:
    return TokenBucket(Rate(amount=tokens_per_minute, per_s=60.0), tokens, now_s)


def _within(limits: UsageLimits, use: Use) -> Use:
    """No more than the whole of each limit, or the request could never be answered; nothing of a limit there is not."""
    amount, budget = limits.tokens_per_minute, limits.budget_usd_per_day
    tokens = 0 if amount is None else min(use.tokens, amount)
    return Use(tokens=tokens, usd=use.usd if budget is None else min(use.usd, budget))


def usage_key(user: str) -> str:
    """Hash: what a user's answers have used, see RESERVE."""
    return f"weir:bucket:{{{user}}}:usage"
