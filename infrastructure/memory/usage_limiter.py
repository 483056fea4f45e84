"""Tokens a minute and US dollars a day, counted in this process's memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from domain.chat import Caller
from domain.errors import RateLimited
from domain.limiting import Quota, Rate, TokenBucket
from domain.usage import Reservation, UsageLimits, Use, usage_limits
from infrastructure.memory.crowd import Crowd

MAX_USERS = 20_000
"""Users of keys kept at most, and as many addresses; those that have spent nothing today and have all of their tokens
are forgotten first."""
DAY_S = 86_400.0
HELD_S = 1.0
"""When to come back if the budget may do once answers under way have ended."""


@dataclass(slots=True)
class _Used:
    """What a user has left of a minute's tokens, of each limit, and has spent on `day` (days since 1970, UTC).

    `held` is what of that is reserved for answers under way, by the reservation's id.
    """

    day: int
    usd: float = 0.0
    held: dict[str, float] = field(default_factory=dict)
    buckets: dict[int | None, TokenBucket] = field(default_factory=dict)

    def is_idle(self, day: int, now_s: float) -> bool:
        """Whether nothing is lost when this is forgotten."""
        has_spent = self.held or (self.usd and self.day == day)
        return not has_spent and all(bucket.is_full(now_s) for bucket in self.buckets.values())


class MemoryUsageLimiter:
    """Counts for each user; each limit is divided by `share`, of which this process is one."""

    def __init__(
        self,
        *,
        tiers: Mapping[str, int],
        clock: Callable[[], float],
        unix_now: Callable[[], float],
        share: Callable[[], int] = lambda: 1,
        max_users: int = MAX_USERS,
    ) -> None:
        self._tiers = tiers
        self._clock = clock
        self._unix_now = unix_now
        self._share = share
        self._users = Crowd[str, _Used](most=max_users, is_idle=lambda used, now_s: used.is_idle(self._day, now_s))
        self._numbers = count()

    async def reserve(self, caller: Caller, use: Use) -> Reservation | None:
        """What the caller's limits still allow is taken from them; None: it has none.

        Raises:
            RateLimited: there is less left than `use`.
        """
        limits = usage_limits(caller, self._tiers)
        return None if limits is None else self.reserve_within(caller, limits, use)

    def reserve_within(self, caller: Caller, limits: UsageLimits, use: Use) -> Reservation:
        """As `reserve`, within this process's share of `limits`."""
        now_s = self._clock()
        known = self._of(caller, now_s)
        bucket = self._bucket(known, limits)
        tokens = _spend_tokens(bucket, use.tokens, caller.tier, now_s)
        budget = limits.budget_usd_per_day
        if budget is not None:
            budget /= self._share()
            usd = min(use.usd, budget)
            if not _fits(known.usd, usd, budget):
                _put_back(bucket, tokens)
                is_held = _fits(known.usd - sum(known.held.values()), usd, budget)
                wait_s = HELD_S if is_held else (known.day + 1) * DAY_S - self._unix_now()
                raise RateLimited.of_budget(budget - known.usd, use.usd, wait_s, is_held=is_held)
            use = Use(tokens=tokens, usd=usd)
        taken = Use(tokens=tokens, usd=use.usd)
        reservation = Reservation(
            user=caller.user, id=str(next(self._numbers)), use=taken, limits=limits, is_local=True
        )
        known.usd += use.usd
        known.held[reservation.id] = use.usd
        return reservation

    def settle(self, reservation: Reservation, use: Use) -> None:
        """The reservation has become `use`; after its day, its estimate stands."""
        known = self._users.get(reservation.user)
        if known is not None:
            _put_back(self._bucket(known, reservation.limits), reservation.use.tokens - use.tokens)
            held_usd = known.held.pop(reservation.id, None)
            known.usd += 0.0 if held_usd is None else use.usd - held_usd

    def quota(self, caller: Caller) -> Quota | None:
        """What is left of a minute's tokens; None: no limit."""
        limits = usage_limits(caller, self._tiers)
        if limits is None or limits.tokens_per_minute is None:
            return None
        known = self._users.get(caller.user)
        bucket = known.buckets.get(limits.tokens_per_minute) if known else None
        return tokens_quota(bucket or self._full(limits.tokens_per_minute), caller.tier, self._clock())

    @property
    def _day(self) -> int:
        return int(self._unix_now() // DAY_S)

    def _of(self, caller: Caller, now_s: float) -> _Used:
        day = self._day
        known = self._users.of(caller, caller.user, now_s, lambda: _Used(day))
        if known.day != day:
            known.day, known.usd, known.held = day, 0.0, {}
        return known

    def _bucket(self, known: _Used, limits: UsageLimits) -> TokenBucket | None:
        limit = limits.tokens_per_minute
        if limit is None:
            return None
        full = self._full(limit)
        bucket = known.buckets.setdefault(limit, full)
        bucket.rate = full.rate
        return bucket

    def _full(self, tokens_per_minute: int) -> TokenBucket:
        rate = Rate(amount=max(1, tokens_per_minute // self._share()), per_s=60.0)
        return TokenBucket(rate, rate.amount, self._clock())


def _spend_tokens(bucket: TokenBucket | None, tokens: int, tier: str, now_s: float) -> int:
    """How many were taken: no more than the whole bucket, or the request could never be answered."""
    if bucket is None:
        return 0
    needed = min(tokens, bucket.rate.amount)
    wait_s = bucket.spend(now_s, needed)
    if wait_s:
        raise RateLimited.of_tokens(tokens_quota(bucket, tier, now_s), needed, wait_s)
    return needed


def _fits(spent_usd: float, usd: float, budget_usd: float) -> bool:
    """Whether some of the budget is left, and as much as `usd`; sums of cents have rounding errors."""
    return spent_usd < budget_usd and spent_usd + usd <= budget_usd + 1e-9


def _put_back(bucket: TokenBucket | None, tokens: int) -> None:
    if bucket is not None:
        bucket.refund(tokens)


def tokens_quota(bucket: TokenBucket, tier: str, now_s: float) -> Quota:
    """What is left of a minute's tokens."""
    return bucket.quota(f"{tier}-tokens", now_s, unit="tokens")
