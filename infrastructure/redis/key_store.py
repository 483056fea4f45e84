"""API keys in Redis, which every instance knows by heart once it has seen them.

They are fields of one hash: by its id each key (infrastructure/key_records.py), and VERSION, which is another one
after each revocation. What was read is believed for as long as the version is known to be what it was then: it is asked
for in the background, and comes with everything that is read. What happens is also told on the channel of all
instances, and so mostly known at once.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from secrets import token_hex
from typing import Any, NamedTuple

from domain.errors import KeysUnavailable
from domain.events import Publish, StoreFailed
from domain.keys import ApiKey
from infrastructure.key_records import decode_key, encode_key
from infrastructure.redis.client import NO_ANSWER, RedisClient
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.scripting import Script

KEYS = "weir:keys"
VERSION = ":version"
"""No key has such an id."""

CONFIRM_S = 0.4
"""How often the version is asked for."""

CURRENT_S = 1.0
"""For so long after it was last asked for with an answer, the version is taken for what it was."""

REREAD_S = 60.0
"""A key is read again so long after it was: one that somebody has deleted by hand leaves the version as it was."""

UNKNOWN_S = 1.0
"""For so long an id that no key had is held to be nobody's."""

TRUST_S = 900.0
"""For so long after it was read a key goes on working while Redis cannot be asked."""

MAX_SEEN = 100_000
MAX_UNKNOWN = 10_000

_ADD = Script("""
local added = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
if added == 1 then redis.call('PUBLISH', ARGV[3], 'key ' .. ARGV[1]) end
return added
""")
"""KEYS keys; ARGV id, record, channel."""

_REVOKE = Script("""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5])
redis.call('PUBLISH', ARGV[3], 'key ' .. ARGV[1])
return 1
""")
"""KEYS keys; ARGV id, record, channel, VERSION, its new value."""


class _Seen(NamedTuple):
    """A key as it was read under a version (None: there was none), at a time of the monotonic clock."""

    key: ApiKey
    version: bytes | None
    read_at_s: float


class RedisKeyStore:
    """Reads a key once, and again when anything says that it may have changed."""

    def __init__(
        self, *, client: RedisClient, events: FleetEvents, publish: Publish, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._publish = publish
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._unknown_at_s: dict[str, float] = {}
        self._version: bytes | None = None
        self._version_at_s = -math.inf
        self._is_doubted = True
        self._confirming: asyncio.Task[None] | None = None
        events.hear("key", self._hear)
        events.on_begin.append(self._doubt)
        client.on_return.append(self._doubt)

    def start(self) -> None:
        """What is known is confirmed in the background, until `close`."""
        self._confirming = asyncio.get_running_loop().create_task(self._confirm_on(), name="redis-keys")

    async def close(self) -> None:
        """Nothing is confirmed any more."""
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of that id; None: there is none.

        Raises:
            KeysUnavailable: Redis cannot tell now, and the key was not read here within TRUST_S seconds.
        """
        now_s = self._clock()
        seen = self._seen.get(key_id)
        if seen is not None and self._is_current(seen, now_s):
            return seen.key
        if now_s - self._unknown_at_s.get(key_id, -math.inf) < UNKNOWN_S:
            return None
        try:
            version, record = await self._client.submit("HMGET", KEYS, VERSION, key_id)
        except NO_ANSWER as error:
            return self._trusted(key_id, error)
        self._confirm(version, now_s)
        return self._learn(key_id, record, version, now_s)

    async def add(self, key: ApiKey) -> bool:
        """The key is in Redis, and every instance will find it; False: there is one of its id.

        Raises:
            KeysUnavailable: Redis did not say so.
        """
        return bool(await self._run(_ADD, key.key_id, encode_key(key), EVENTS))

    async def revoke(self, key_id: str, at_s: float) -> ApiKey | None:
        """The key of that id, which every instance will refuse; None: there is none.

        Raises:
            KeysUnavailable: Redis did not say so.
        """
        record = await self._ask("HGET", KEYS, key_id)
        known = None if record is None else self._decoded(record)
        if known is None:
            return None
        revoked = known if known.revoked_at_s is not None else replace(known, revoked_at_s=at_s)
        is_there = await self._run(_REVOKE, key_id, encode_key(revoked), EVENTS, VERSION, token_hex(8))
        return revoked if is_there else None

    async def all(self) -> list[ApiKey]:
        """Every key, the oldest first.

        Raises:
            KeysUnavailable: Redis cannot tell now, or has something else among the keys.
        """
        found = await self._ask("HGETALL", KEYS)
        fields = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        keys = [self._decoded(record) for name, record in fields.items() if name != VERSION.encode()]
        return sorted(keys, key=lambda key: key.created_at_s)

    def _is_current(self, seen: _Seen, now_s: float) -> bool:
        """Whether nothing was revoked since it was read, as far as can be known."""
        is_known = not self._is_doubted and now_s - self._version_at_s < CURRENT_S and now_s - seen.read_at_s < REREAD_S
        return is_known and seen.version == self._version

    def _trusted(self, key_id: str, error: Exception) -> ApiKey:
        """The key as it was last read, or known to be so still, if that is not too long ago."""
        seen = self._seen.get(key_id)
        if seen is not None:
            known_at_s = self._version_at_s if seen.version == self._version else seen.read_at_s
            if self._clock() - known_at_s < TRUST_S:
                return seen.key
        raise KeysUnavailable from error

    def _learn(self, key_id: str, record: bytes | None, version: bytes | None, read_at_s: float) -> ApiKey | None:
        """What was read is known from now on; the oldest goes when there is too much."""
        self._seen.pop(key_id, None)
        if record is None:
            self._unknown_at_s.pop(key_id, None)
            self._unknown_at_s[key_id] = read_at_s
            _bound(self._unknown_at_s, MAX_UNKNOWN)
            return None
        key = self._decoded(record)
        self._seen[key_id] = _Seen(key, version, read_at_s)
        _bound(self._seen, MAX_SEEN)
        return key

    def _confirm(self, version: bytes | None, asked_at_s: float) -> None:
        """That was the version when it was asked for; what was asked for before that is no news."""
        if asked_at_s >= self._version_at_s:
            self._version, self._version_at_s, self._is_doubted = version, asked_at_s, False

    async def _confirm_on(self) -> None:
        while True:
            await asyncio.sleep(CONFIRM_S)
            if not self._seen:
                continue
            asked_at_s = self._clock()
            try:
                version = await self._client.submit("HGET", KEYS, VERSION)
            except NO_ANSWER:
                continue
            self._confirm(version, asked_at_s)

    def _hear(self, said: bytes) -> None:
        """A key has come, or was revoked."""
        key_id = said.decode()
        self._seen.pop(key_id, None)
        self._unknown_at_s.pop(key_id, None)

    def _doubt(self) -> None:
        """Something may not have been heard: nothing is believed before it is read again."""
        self._is_doubted = True
        self._unknown_at_s.clear()

    def _decoded(self, record: bytes) -> ApiKey:
        try:
            return decode_key(record)
        except ValueError as error:
            self._publish(StoreFailed(operation="keys", error=error))
            raise KeysUnavailable from error

    async def _run(self, script: Script, *arguments: Any) -> Any:
        try:
            return await self._client.submit_script(script, [KEYS], *arguments)
        except NO_ANSWER as error:
            raise KeysUnavailable from error

    async def _ask(self, *command: Any) -> Any:
        try:
            return await self._client.submit(*command)
        except NO_ANSWER as error:
            raise KeysUnavailable from error


def _bound(known: dict[str, Any], limit: int) -> None:
    """At most so many are known; the one that was learnt first goes."""
    if len(known) > limit:
        del known[next(iter(known))]
