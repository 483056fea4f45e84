"""Tokens of a bucket that instances share, held by one of them: what it admits without asking.

An instance asks the bucket (`Ask`) and is told what it gets (`Told`). What it holds is out of the bucket, which fills
only up to what is not out: in the bucket and out, there are never more tokens than the rate's amount. So in no window
is more admitted than that amount and what came back meanwhile, however many instances there are.

What is held lapses here before the bucket forgets that it is out, and is given back then if it still can be. What an
instance held that is gone, or stood still for longer, is lost, not given twice: no more than one lease.

A rate too small to be divided is not held: each check asks, and its token is spent when the bucket gives it.

While the bucket cannot be asked, an instance has a share of the rate (domain/shares.py).
"""

from dataclasses import dataclass
from math import ceil, exp
from typing import NamedTuple

from domain.limiting import Quota, Rate
from domain.shares import NO_OUTAGE, Outage, Share, share
from domain.values import value

LEASE_S = 3.0
"""How long the bucket remembers what is out; counted from when it was asked."""
USE_S = 2.0
"""How long it is held; counted from before it was asked for, so from earlier than the bucket counts."""
GRANT_S = 0.5
"""What was spent for those who wait is lost when that is told later than this after it was asked for: the bucket has
filled in its place. For what is leased it does not fill until that lapses, so it is good until then."""
LOOK_S = 1.0
"""How often what is held is looked at: what was not used meanwhile is given back."""
PACE_S = 0.2
"""Who got less than it wanted asks again after so long at most: what comes back meanwhile is given at once then."""
ALONE_S = 0.5
"""For how long nothing is asked after there was no answer."""
AHEAD_S = 1.0
"""For how long a lease should last."""

_FEWEST_LEASES = 50
_LEASES_AN_INSTANCE = 5
"""One lease is at most this part of the amount: a fifth of it may be out, a fiftieth lost with an instance."""
_SLOWEST_PER_S = 2.0
"""Who asks more seldom than this is given each token when it asks."""


@value
class Ask:
    """What is asked of the bucket at `at_s`.

    `spend`: tokens for those who wait, spent when given; `want`: tokens to hold for them, beside the `held`; `ahead`:
    tokens to hold for those who will come, none of them the bucket's last; `give`: tokens given back; `owed`: tokens
    spent without the bucket, or (below 0) not needed after all; `away`: those spent in a share that have not come back;
    `keep`: tokens that are left in the bucket until `keep_until_s`, as others may have spent them without it.
    """

    at_s: float
    spend: int = 0
    want: int = 0
    ahead: int = 0
    held: int = 0
    give: int = 0
    owed: float = 0.0
    away: float = 0.0
    keep: float = 0.0
    keep_until_s: float = 0.0


class Told(NamedTuple):
    """What the bucket gave: `left` is in it now, and there is a whole token after `wait_s`."""

    spent: int
    leased: int
    left: float
    wait_s: float


@dataclass(slots=True)
class Lease:
    """What one instance holds of one user's bucket. Times are of one monotonic clock.

    `owed` is the next Ask's; `waiting` counts those who cannot be told anything before the bucket has answered. Who is
    refused until `refused_until_s` is told to come at `token_at_s`: by then no instance refuses for want of that token.
    """

    rate: Rate
    tokens: int = 0
    until_s: float = 0.0
    refused_until_s: float = 0.0
    token_at_s: float = 0.0
    owed: float = 0.0
    waiting: int = 0
    low: int = 0
    noted_at_s: float = 0.0
    asked_at_s: float = 0.0
    _quiet_until_s: float = 0.0
    _out: int = 0
    _largest: int = 0
    _recent: float = 0.0
    _left: float | None = None
    _left_at_s: float = 0.0
    _share: Share | None = None
    _share_told: int = 0
    _alone_until_s: float = 0.0

    def note(self, now_s: float) -> None:
        """A request is to be checked: how many there were in the last second or so decides how much is held."""
        self._recent = self._recent * exp(min(0.0, self.noted_at_s - now_s)) + 1.0
        self.noted_at_s = now_s

    def take(self, now_s: float) -> float | None:
        """Take a token (0.0), or say for how long there is none for certain; None: the bucket has to be asked."""
        if self.tokens and now_s < self.until_s:
            self.tokens -= 1
            return 0.0
        return self.token_at_s - now_s if now_s < self.refused_until_s else None

    def is_low(self, now_s: float) -> bool:
        """Whether more should be asked for before all is used."""
        return self.tokens < self.low and now_s >= self._quiet_until_s

    def ask(self, now_s: float, instance_count: int, outage: Outage = NO_OUTAGE) -> Ask:
        """What to ask now. What was held since the last time and not used, or lapsed, is given back."""
        self._largest = largest = _largest(self.rate, instance_count)
        is_divided = largest >= 2  # noqa: PLR2004  # one token is no lease
        is_kept = is_divided and now_s < self.until_s and not self._is_unused
        give = 0 if is_kept else self.tokens
        self.tokens -= give
        spend, want, ahead, self.low = 0, 0, 0, 0
        if not is_divided:
            spend = self.waiting
        elif not self._is_unused:
            more = self._ahead(now_s, largest)
            want, ahead = max(0, self.waiting - self.tokens), min(more, max(0, self.waiting + more - self.tokens))
            self.low = (more + 1) // 2
        self.asked_at_s, self._out = now_s, self.tokens
        owed, self.owed = self.owed, 0
        self._share_told = self._share.spent if self._share else 0
        return Ask(
            at_s=now_s,
            spend=spend,
            want=want,
            ahead=ahead,
            held=self.tokens,
            give=give,
            owed=owed,
            away=self._share.owed(now_s) if self._share else 0.0,
            keep=outage.others_may_have_spent(self.rate, instance_count, now_s),
            keep_until_s=outage.settled_at_s,
        )

    def told(self, ask: Ask, told: Told, now_s: float) -> None:
        """Hold what the bucket gave, and know when it has more."""
        if self._share is not None:
            self.owed += self._share.spent - self._share_told
            self._share = None
        self._alone_until_s = 0.0
        self._left, self._left_at_s = told.left, now_s
        is_late = now_s - ask.at_s >= GRANT_S
        spent = 0 if is_late else min(told.spent, self.waiting)
        self.tokens += told.leased + spent
        self.until_s = ask.at_s + USE_S
        self._out = ask.held + told.leased
        if (told.spent < ask.spend and not is_late) or told.leased < ask.want + ask.ahead:
            self._refuse(ask, told, now_s)

    def not_told(self, ask: Ask, now_s: float) -> None:
        """Go on alone for a while; what the bucket was to take from itself it will be told again."""
        self.owed += max(0, ask.owed)
        self._alone_until_s = now_s + ALONE_S

    def is_alone(self, now_s: float) -> bool:
        """Whether the bucket is not to be asked now."""
        return now_s < self._alone_until_s

    def ask_again(self, now_s: float) -> None:
        """The bucket can be asked: it is owed what was spent without it."""
        self._alone_until_s = 0.0
        if not self.owes(now_s):
            self._share = None

    def take_alone(self, now_s: float, lost_at_s: float | None, instance_count: int) -> float:
        """Take a token of this instance's share (0.0), or say how long to wait for one; the bucket is told later.

        `lost_at_s` is when all buckets were lost sight of; None: it is this one alone that does not answer.
        """
        if self._share is not None and lost_at_s is not None and self._share.since_s < lost_at_s:
            self._end_share(now_s)
        if self._share is None:
            since_s = now_s if lost_at_s is None else lost_at_s
            self._share = share(self.rate, instance_count, self._known_left(since_s), since_s)
        return self._share.spend(now_s)

    def owes(self, now_s: float) -> bool:
        """Whether there is something that the bucket has to be told."""
        return bool(self.owed or (self._share is not None and self._share.owed(now_s)))

    def refund(self, now_s: float) -> None:
        """The token can be had again: here if the bucket still counts it as out, else from the bucket."""
        if self._share is not None:
            self._share.refund()
        elif self.tokens < self._out and now_s < self.until_s:
            self.tokens += 1
        else:
            self.owed -= 1
            self.refused_until_s = 0.0

    def want_nothing(self) -> None:
        """What is held will be given back when the bucket is asked next."""
        self.asked_at_s = max(self.asked_at_s, self.noted_at_s)

    def look_after_s(self, now_s: float) -> float | None:
        """When to look whether something is to be asked, without anybody waiting for it; None: not at all."""
        if self._is_much_used:
            return _pace_s(self.rate) / 4
        if self.tokens or self.owes(now_s):
            return LOOK_S
        return self._quiet_until_s - now_s if self.low and now_s < self._quiet_until_s else None

    def has_to_ask(self, now_s: float) -> bool:
        """Whether there is something to tell the bucket or, as requests came since it was asked, to want of it."""
        is_wanting = self.low and not self._is_unused
        return bool(self.tokens or self._is_much_used or self.owes(now_s) or is_wanting)

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost when this is forgotten."""
        return not (self.tokens or self.owes(now_s) or self.waiting) and now_s - self.noted_at_s > LEASE_S

    def quota(self, policy: str, now_s: float) -> Quota:
        """What is left, as far as is known here."""
        tokens = self.tokens if now_s < self.until_s else 0
        if self._share is not None:
            left = self._share.left(now_s)
        elif not tokens and now_s < self.refused_until_s:
            left = 0.0
        else:
            left = self._known_left(now_s) + tokens
        amount = self.rate.amount
        remaining = max(0.0, min(amount, left))
        reset_s = (amount - remaining) / self.rate.refill_per_s
        return Quota(policy=policy, rate=self.rate, remaining=int(remaining + 1e-6), reset_s=reset_s)

    def _end_share(self, now_s: float) -> None:
        """What has come back in it since the bucket answered has come back there too."""
        if self._share is not None:
            self.owed += self._share.owed(now_s)
            self._share = None

    def _refuse(self, ask: Ask, told: Told, now_s: float) -> None:
        """Ask no more for a while, and refuse until there is a token.

        A refusal counts from when it was asked, and lasts until there may be a token; what is told counts from when it
        was answered, until there is one for certain. So no refusal outlasts what any instance has told of that token.
        """
        wait_s, soonest_s = told.wait_s, (1.0 - told.left) / self.rate.refill_per_s
        pace_s = _pace_s(self.rate) if ask.want + ask.ahead else 0.0
        self._quiet_until_s = now_s + max(wait_s, pace_s)
        if ask.keep:
            wait_s = soonest_s = max(wait_s, ask.keep_until_s - now_s)
        if wait_s > 0:
            self.token_at_s = now_s + wait_s + pace_s
            self.refused_until_s = ask.at_s + min(wait_s, soonest_s) + pace_s

    @property
    def _is_unused(self) -> bool:
        return not self.waiting and self.noted_at_s <= self.asked_at_s

    @property
    def _is_much_used(self) -> bool:
        """Whether much was used of what the bucket has for out: nothing comes back in its place before that is told."""
        return self._out - self.tokens > max(1, self._largest)

    def _ahead(self, now_s: float, largest: int) -> int:
        """How many tokens to hold: what requests of late say will be needed."""
        per_s = self._recent * exp(min(0.0, self.noted_at_s - now_s))
        return 0 if per_s < _SLOWEST_PER_S else min(largest, ceil(per_s * AHEAD_S))

    def _known_left(self, now_s: float) -> float:
        if self._left is None:
            return self.rate.amount
        return min(self.rate.amount, self._left + max(0.0, now_s - self._left_at_s) * self.rate.refill_per_s)


def _pace_s(rate: Rate) -> float:
    """In which no more comes back than one lease."""
    return min(PACE_S, rate.per_s / _FEWEST_LEASES)


def _largest(rate: Rate, instance_count: int) -> int:
    return rate.amount // max(_FEWEST_LEASES, _LEASES_AN_INSTANCE * instance_count)
