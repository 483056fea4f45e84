"""Which stored answers are used most lately, over all instances; and L1 filled with them at the start.

Hits are counted in memory, and added to one sorted set now and then. What was popular long ago fades: every half-life
some instance halves all counts.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from domain.events import CacheHit, Events
from domain.ports import ResponseCache
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.scripting import Script

POPULAR = "weir:cache:popular"
FADED = "weir:cache:popular:faded"
KEPT = 1000
"""How many answers are in the set at most."""

_FLUSH_S = 5.0
_HALF_LIFE_S = 600
_AT_ONCE = 10
"""How many answers are got in one round trip: large ones must not take longer than a living server would."""

_FADE = Script("""
redis.call('ZUNIONSTORE', KEYS[1], 1, KEYS[1], 'WEIGHTS', 0.5)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
""")
"""KEYS popular; ARGV ttl_ms."""


class Popularity:
    """Counts the hits that `events` tell of; from `near` to `far` is from L1 to L2. Counts are kept for `ttl_s`."""

    def __init__(
        self,
        *,
        client: RedisClient,
        events: Events,
        near: ResponseCache,
        far: ResponseCache,
        near_entries: int,
        ttl_s: float,
    ) -> None:
        self._client = client
        self._near = near
        self._far = far
        self._near_entries = near_entries
        self._ttl_ms = int(ttl_s * 1000)
        self._hits: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_filled = False
        events.subscribe(CacheHit, self._hit)

    def start(self) -> None:
        """L1 is being filled, as soon as Redis is there, and hits are being told, until `close`."""
        self._client.on_return.append(self._fill_soon)
        self._fill_soon()
        self._tasks.append(asyncio.get_running_loop().create_task(self._flush_on(), name="redis-popularity-flush"))

    async def close(self) -> None:
        """What was counted last is told too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(*NO_ANSWER):
            await self.flush()

    async def fill(self) -> int:
        """The most popular answers are in L1, the most popular one as the last to go; return how many there are."""
        last = min(self._near_entries, KEPT) - 1
        names = await self._client.submit("ZREVRANGE", POPULAR, 0, last)
        fingerprints = [name.decode() for name in reversed(names)]
        counts = [await self._fetch(fingerprints[at : at + _AT_ONCE]) for at in range(0, len(fingerprints), _AT_ONCE)]
        return sum(counts)

    async def flush(self) -> None:
        """The hits counted here are in the set."""
        hits, self._hits = self._hits.most_common(KEPT), Counter()
        if not hits:
            return
        told: list[asyncio.Future[Any]] = [
            self._client.submit("ZINCRBY", POPULAR, count, fingerprint) for fingerprint, count in hits
        ]
        told += [
            self._client.submit("ZREMRANGEBYRANK", POPULAR, 0, -KEPT - 1),
            self._client.submit("PEXPIRE", POPULAR, self._ttl_ms),
            self._client.submit("SET", FADED, 1, "NX", "EX", _HALF_LIFE_S),
        ]
        for each in told:
            each.add_done_callback(unheard)
        is_first_to_fade = await told[-1]
        if is_first_to_fade:
            await self._client.submit_script(_FADE, (POPULAR,), self._ttl_ms)

    def _hit(self, event: CacheHit) -> None:
        self._hits[event.fingerprint] += 1

    def _fill_soon(self) -> None:
        if not self._is_filled:
            self._tasks.append(asyncio.get_running_loop().create_task(self._fill(), name="redis-popularity-fill"))

    async def _fill(self) -> None:
        with suppress(*NO_ANSWER):
            await self.fill()
            self._is_filled = True

    async def _flush_on(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            with suppress(*NO_ANSWER):
                await self.flush()

    async def _fetch(self, fingerprints: list[str]) -> int:
        """Those that are still stored are in L1; return how many."""
        recordings = await asyncio.gather(*map(self._far.get, fingerprints))
        found = [(fingerprint, each) for fingerprint, each in zip(fingerprints, recordings, strict=True) if each]
        for fingerprint, recording in found:
            await self._near.put(fingerprint, recording)
        return len(found)
