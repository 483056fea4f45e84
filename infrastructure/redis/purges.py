"""Purges that all instances obey: kept in one hash, told on a channel, and known to each process by heart."""

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from domain.caching import Purge, Purges
from domain.events import CachePurged, Publish
from infrastructure.redis.client import NO_ANSWER, RedisClient
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.scripting import Script

PURGES = "weir:purges"

_RECORD = Script("""
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) or 0
if known < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    if (tonumber(all[i + 1]) or 0) <= tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('PUBLISH', ARGV[4], 'purge ' .. ARGV[2] .. ' ' .. ARGV[1])
""")
"""KEYS purges; ARGV which, at (Unix seconds), the time up to which purges no longer matter, channel.

It has no time to live, or a server that is full would forget it first, and serve what was purged.
"""

_which = msgspec.json.Decoder(tuple[str | None, str | None])


class RedisPurges:
    """Tells other instances, and has `purges` learn what they tell. Records are kept for `ttl_s` seconds."""

    def __init__(
        self, *, purges: Purges, client: RedisClient, events: FleetEvents, ttl_s: float, publish: Publish
    ) -> None:
        self._purges = purges
        self._client = client
        self._ttl_s = ttl_s
        self._publish = publish
        self._unsent: list[Purge] = []
        events.hear("purge", self._hear)
        events.on_begin.append(self._read_all)
        client.on_return.append(self._read_all)

    async def tell(self, purge: Purge) -> bool:
        """The purge is recorded and the other instances hear of it; False: they will when Redis is back."""
        try:
            await self._send(purge)
        except NO_ANSWER:
            self._unsent.append(purge)
            return False
        return True

    async def learn(self) -> None:
        """What was purged before is known here, unless Redis is away."""
        with suppress(*NO_ANSWER):
            self._add_all(await self._client.submit("HGETALL", PURGES))

    def _send(self, purge: Purge) -> asyncio.Future[Any]:
        which = msgspec.json.encode((purge.model, purge.scope))
        oldest_s = purge.at_s - self._ttl_s
        return self._client.submit_script(_RECORD, (PURGES,), which, repr(purge.at_s), repr(oldest_s), EVENTS)

    def _hear(self, said: bytes) -> None:
        at, _, which = said.partition(b" ")
        purge = _purge(which, at)
        if self._purges.add(purge):
            self._publish(CachePurged(model=purge.model, scope=purge.scope))

    def _read_all(self) -> None:
        """Learn what may not have been heard, and tell what could not be told."""
        unsent, self._unsent = self._unsent, []
        for purge in unsent:
            self._send(purge).add_done_callback(partial(self._sent, purge))
        self._client.submit("HGETALL", PURGES).add_done_callback(self._read)

    def _sent(self, purge: Purge, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._unsent.append(purge)

    def _read(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._add_all(answer.result())

    def _add_all(self, fields: Any) -> None:
        """Learn what is recorded: a list, or by a newer protocol a dictionary."""
        pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
        for which, at in pairs:
            try:
                self._purges.add(_purge(which, at))
            except ValueError:
                continue


def _purge(which: bytes, at: bytes) -> Purge:
    """The purge that was recorded.

    Raises:
        ValueError: that is none.
    """
    try:
        model, scope = _which.decode(which)
    except msgspec.MsgspecError as error:
        raise ValueError(*error.args) from error
    at_s = float(at)
    if not math.isfinite(at_s):
        raise ValueError("no time")
    return Purge(at_s=at_s, model=model, scope=scope)
