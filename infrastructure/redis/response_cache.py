"""L2: whole answers in Redis, for all instances.

A value is a version, a flag, and the answer in msgpack: deflated where that pays, which has a checksum within it, else
behind its checksum. What cannot be read, or has changed since, is a miss.
"""

import asyncio
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from domain.caching import Purges
from domain.events import EntryUnreadable, Publish
from domain.generation import Generation, IllegalMove, State
from domain.ports import Recording
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient, unheard
from infrastructure.redis.keys import response_key
from infrastructure.redis.wire import decode_recording, encode_recording

VERSION = 3
_PLAIN, _DEFLATED = 0, 1
COMPRESSION_LEVEL = 1
_CHECKSUM_BYTES = 4
_COMPRESS_FROM_BYTES = 1024
"""A third is spared below, 200 bytes at 50 chunks: less than it is worth, for each hit takes up to 14 µs longer, a
thirtieth of it. Two fifths are spared above (perf/compression.py)."""

_MAX_BYTES = 16 * 1024 * 1024

MAX_VALUE_BYTES = 4 * 1024 * 1024
"""No answer is larger as a value, and no more of one is read: a text is counted in all its copies up to _MAX_BYTES."""

WRONG = (msgspec.MsgspecError, ValueError, zlib.error, LookupError, RecursionError, IllegalMove)


def _forgotten(_: str, __: Recording) -> None:
    """Nobody stores it later."""


class RedisResponseCache:
    """Keeps answers for `ttl_s` seconds under their fingerprints. `on_missed` hears of each that Redis was away for.

    What goes on alone is not kept: who comes back to its stream elsewhere would find another answer under its id.
    """

    def __init__(
        self, *, client: RedisClient, ttl_s: float, purges: Purges, publish: Publish, unix_now: Callable[[], float]
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._purges = purges
        self._publish = publish
        self._unix_now = unix_now
        self.on_missed: Callable[[str, Recording], None] = _forgotten

    async def get(self, fingerprint: str) -> Recording | None:
        """The recording, if Redis has it, it can be read, its time has not passed, and no purge conceals it."""
        try:
            value = await self._client.submit("GETRANGE", response_key(fingerprint), 0, MAX_VALUE_BYTES)
        except NO_ANSWER:
            return None
        return self._fresh(fingerprint, value) if value else None

    def _fresh(self, fingerprint: str, value: bytes) -> Recording | None:
        """The recording that is in `value`; what is too large to be one, and costs whoever asks, is gone."""
        if len(value) > MAX_VALUE_BYTES:
            self._client.submit("UNLINK", response_key(fingerprint)).add_done_callback(unheard)
        try:
            recording = _recording(value)
        except WRONG as error:
            self._publish(EntryUnreadable(fingerprint=fingerprint, error=error))
            return None
        is_fresh = self._unix_now() - recording.sealed_at_s < self._ttl_s
        return recording if is_fresh and not self._purges.conceal(recording) else None

    async def put(self, fingerprint: str, recording: Recording) -> None:
        """The recording is on its way to Redis, where it replaces an earlier one; without Redis `on_missed` is told."""
        answer = self._submit(fingerprint, recording)
        if answer is not None:
            answer.add_done_callback(partial(self._put, fingerprint, recording))

    async def store(self, fingerprint: str, recording: Recording) -> None:
        """Redis has the recording or a later one, for the time that is left; none that is expired, purged or too large.

        Raises:
            RedisAway, RedisError, RedisClusterException: Redis has not, or not for sure.
        """
        stored = await self.get(fingerprint)
        if stored is None or stored.sealed_at_s < recording.sealed_at_s:
            answer = self._submit(fingerprint, recording)
            if answer is not None:
                await answer

    def _submit(self, fingerprint: str, recording: Recording) -> asyncio.Future[Any] | None:
        """What Redis says to it; None: it need not be asked."""
        ttl_ms = int((self._ttl_s - (self._unix_now() - recording.sealed_at_s)) * 1000)
        generation = recording.generation
        if ttl_ms <= 0 or generation.is_alone or generation.size_bytes > _MAX_BYTES or self._purges.conceal(recording):
            return None
        return self._client.submit("SET", response_key(fingerprint), _value(recording), "PX", ttl_ms)

    def _put(self, fingerprint: str, recording: Recording, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and isinstance(answer.exception(), RedisAway):
            self.on_missed(fingerprint, recording)


def _value(recording: Recording) -> bytes:
    body = encode_recording(recording.sealed_at_s, recording.generation.records)
    if len(body) < _COMPRESS_FROM_BYTES:
        return bytes((VERSION, _PLAIN)) + _checksum(body) + body
    return bytes((VERSION, _DEFLATED)) + zlib.compress(body, COMPRESSION_LEVEL)


def _recording(value: bytes) -> Recording:
    """The recording that is in `value`.

    Raises:
        ValueError, LookupError, zlib.error, msgspec.MsgspecError: it is not a whole one of this version.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError("larger than any answer")
    if value[0] != VERSION:
        raise ValueError(f"version {value[0]}, not {VERSION}")
    sealed_at_s, records = decode_recording(_BODIES[value[1]](value[2:]))
    generation = Generation.replayed(records)
    if generation.state is not State.DONE:
        raise ValueError("not a whole answer")
    return Recording(generation, sealed_at_s)


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES)


def _unchanged(data: bytes) -> bytes:
    """What stands behind its checksum in `data`, if it is that."""
    body = data[_CHECKSUM_BYTES:]
    if data[:_CHECKSUM_BYTES] != _checksum(body):
        raise ValueError("changed since it was written")
    return body


def inflated(data: bytes) -> bytes:
    """`data` decompressed, if that does not take more than an answer can."""
    inflater = zlib.decompressobj()
    body = inflater.decompress(data, _MAX_BYTES)
    if not inflater.eof:
        raise ValueError("too large or cut")
    return body


_BODIES: dict[int, Callable[[bytes], bytes]] = {_PLAIN: _unchanged, _DEFLATED: inflated}
"""What the flag says of the body."""
