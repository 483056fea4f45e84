"""Buckets in Redis that instances share; what one holds of them is checked without asking (domain/leases.py).

While Redis is away an instance goes on with its share (domain/shares.py).
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any

from domain.chat import Caller
from domain.errors import RateLimited
from domain.events import Publish, RateChecked
from domain.leases import LEASE_S, Ask, Lease, Told
from domain.limiting import Quota, Rate
from domain.shares import NO_OUTAGE, Outage
from infrastructure.redis.client import RedisClient
from infrastructure.redis.limit_scripts import EXCHANGE

MAX_HELD = 20_000
"""Users of whom something is known here at most; the one that asked longest ago is forgotten first."""

_LEASE_US = int(LEASE_S * 1_000_000)
_LOCAL, _REDIS = RateChecked(path="local"), RateChecked(path="redis")


_Name = tuple[str, int, float]
"""A bucket's: whose, and its rate."""


class _Held(Lease):
    """A lease, and what is under way for it."""

    __slots__ = ("asking", "look", "name")

    def __init__(self, name: _Name, rate: Rate) -> None:
        super().__init__(rate)
        self.name = name
        self.asking: asyncio.Future[Any] | None = None
        self.look: asyncio.TimerHandle | None = None


class RedisRateLimiter:
    """A bucket for each user and rate, its key's own or that of its tier; a tier without a rate has no limit."""

    def __init__(
        self,
        *,
        rates: Mapping[str, Rate],
        client: RedisClient,
        instance_id: str,
        instance_count: Callable[[], int],
        publish: Publish,
        clock: Callable[[], float],
        max_held: int = MAX_HELD,
    ) -> None:
        self._rates = rates
        self._client = client
        self._instance_id = instance_id
        self._instance_count = instance_count
        self._publish = publish
        self._clock = clock
        self._max_held = max_held
        self._numbers = count(1)
        self._held: OrderedDict[_Name, _Held] = OrderedDict()
        self._outage = NO_OUTAGE
        self._lost_at_s = -math.inf
        client.on_loss.append(self._redis_is_away)
        client.on_return.append(self._redis_is_back)

    def start(self) -> None:
        """Callers can be checked, until `close`."""

    async def close(self) -> None:
        """What is held has been given back."""
        await asyncio.gather(*(held.asking for held in self._held.values() if held.asking), return_exceptions=True)
        answers = [self._let_go(held) for held in self._held.values()]
        self._held.clear()
        await asyncio.gather(*filter(None, answers), return_exceptions=True)

    async def spend(self, caller: Caller) -> None:
        """Take one token.

        Raises:
            RateLimited: there is none; `retry_after_s` is the time until there is one.
        """
        rate = caller.rate or self._rates.get(caller.tier)
        if rate is None:
            return
        now_s = self._clock()
        held = self._of(caller.user, rate, now_s)
        held.note(now_s)
        wait_s = held.take(now_s)
        if wait_s is None:
            wait_s = await self._wait(held)
        else:
            self._publish(_LOCAL)
        if wait_s:
            raise RateLimited.of_requests(held.quota(caller.tier, self._clock()), wait_s)
        if held.is_low(now_s) and held.asking is None:
            self._ask(held)

    def refund(self, caller: Caller) -> None:
        """Give back a token whose work was not needed."""
        rate = caller.rate or self._rates.get(caller.tier)
        held = self._held.get(_name(caller.user, rate)) if rate else None
        if held is not None:
            held.refund(self._clock())
            self._look_later(held)

    def quota(self, caller: Caller) -> Quota | None:
        """What is left, as far as is known here; None: no limit."""
        rate = caller.rate or self._rates.get(caller.tier)
        if rate is None:
            return None
        held = self._held.get(_name(caller.user, rate))
        if held is None:
            return Quota(policy=caller.tier, rate=rate, remaining=rate.amount, reset_s=0.0)
        return held.quota(caller.tier, self._clock())

    async def _wait(self, held: _Held) -> float:
        """As `Lease.take`, once the bucket has said what there is; all who wait are told by one answer."""
        held.waiting += 1
        is_asked = False
        try:
            while (wait_s := held.take(self._clock())) is None:
                if self._client.is_away or held.is_alone(self._clock()):
                    wait_s = self._take_alone(held)
                    break
                is_asked = True
                await asyncio.wait([held.asking or self._ask(held)])
        finally:
            held.waiting -= 1
        self._publish(_REDIS if is_asked else _LOCAL)
        return wait_s

    def _take_alone(self, held: _Held) -> float:
        lost_at_s = self._lost_at_s if self._client.is_away else None
        return held.take_alone(self._clock(), lost_at_s, self._instance_count())

    def _of(self, user: str, rate: Rate, now_s: float) -> _Held:
        name = _name(user, rate)
        held = self._held.get(name)
        if held is None:
            self._make_room(now_s)
            held = self._held[name] = _Held(name, rate)
        else:
            self._held.move_to_end(name)
        return held

    def _make_room(self, now_s: float) -> None:
        """Those who asked longest ago are forgotten once they are idle; to look at two for each new one is enough."""
        for oldest in list(islice(self._held.values(), 2)):
            if len(self._held) >= self._max_held or oldest.is_idle(now_s):
                del self._held[oldest.name]
                self._let_go(oldest)

    def _let_go(self, held: _Held) -> asyncio.Future[Any] | None:
        """Nothing more is held for this user; what there was is on its way back."""
        if held.look is not None:
            held.look.cancel()
        held.want_nothing()
        return self._ask(held) if held.has_to_ask(self._clock()) and held.asking is None else None

    def _ask(self, held: _Held) -> asyncio.Future[Any]:
        ask = held.ask(self._clock(), self._instance_count(), self._outage)
        rate, number = held.rate, next(self._numbers)
        what = (ask.spend, ask.want, ask.ahead, ask.held, ask.give, ask.owed + ask.away, ask.keep)
        keys, per_us = (bucket_key(held.name[0], rate),), int(rate.per_s * 1_000_000)
        asking = self._client.submit_script(
            EXCHANGE, keys, self._instance_id, number, rate.amount, per_us, _LEASE_US, *what
        )
        held.asking = asking
        asking.add_done_callback(partial(self._told, held, ask))
        return asking

    def _told(self, held: _Held, ask: Ask, answer: asyncio.Future[Any]) -> None:
        held.asking = None
        if answer.cancelled() or answer.exception() is not None:
            held.not_told(ask, self._clock())
            return
        spent, leased, left, wait_us = answer.result()
        held.told(ask, Told(spent, leased, float(left), wait_us / 1_000_000), self._clock())
        self._look_later(held)

    def _look_later(self, held: _Held) -> None:
        if held.look is not None:
            held.look.cancel()
        after_s = held.look_after_s(self._clock())
        held.look = None if after_s is None else asyncio.get_running_loop().call_later(after_s, self._look, held)

    def _look(self, held: _Held) -> None:
        held.look = None
        if held.has_to_ask(self._clock()) and held.asking is None and self._held.get(held.name) is held:
            self._ask(held)

    def _redis_is_away(self) -> None:
        """What others owe from an outage before, or from before this instance began, may not have been told yet."""
        now_s = self._lost_at_s = self._clock()
        since_s = now_s if now_s >= self._outage.settled_at_s else self._outage.since_s
        if not self._client.has_answered:
            since_s = -math.inf
        self._outage = Outage(since_s=since_s, until_s=math.inf)

    def _redis_is_back(self) -> None:
        """Every bucket is told what was spent without it."""
        now_s = self._clock()
        if self._outage.until_s == math.inf:
            self._outage = replace(self._outage, until_s=now_s)
        for held in self._held.values():
            held.ask_again(now_s)
            if held.owes(now_s) and held.asking is None:
                self._ask(held)


def _name(user: str, rate: Rate) -> _Name:
    return (user, rate.amount, rate.per_s)


def bucket_key(user: str, rate: Rate) -> str:
    """Hash: a user's bucket of that rate, see EXCHANGE."""
    return f"weir:bucket:{{{user}}}:{rate.amount}/{rate.per_s:g}"
