"""The audit trail of the fleet, as a stream in Redis. What gathers meanwhile is written together, beside the requests.

An entry whose writing was not acknowledged is written again, and may then be there twice.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec

from domain.audit import Audited, AuditEntry
from domain.errors import AuditUnavailable
from domain.events import AuditEntriesLost, Publish
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient
from infrastructure.redis.scripting import Script

TRAIL = "weir:audit"
KEPT = 100_000
"""About how many entries are kept."""

_GATHER_S = 0.1
_AT_ONCE = 500
"""How many entries are written by one command."""
_MAX_WAITING = 10_000
"""How many entries wait at most for a Redis that is away."""
_FIELD = b"entry"

_APPEND = Script("""
for number = 2, #ARGV do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[number])
end
""")
"""KEYS trail; ARGV kept, entries."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AuditEntry).decode


class RedisAuditTrail:
    """Keeps about the last `kept` entries of all instances; at most `max_waiting` wait to be written."""

    def __init__(
        self, *, client: RedisClient, publish: Publish, kept: int = KEPT, max_waiting: int = _MAX_WAITING
    ) -> None:
        self._client = client
        self._publish = publish
        self._kept = kept
        self._waiting: deque[AuditEntry] = deque()
        self._max_waiting = max_waiting
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._flushing: set[asyncio.Task[None]] = set()
        self._lost_count = 0
        self._is_refused = False
        client.on_return.append(self._write_soon)

    def append(self, entry: AuditEntry) -> None:
        """The entry will be in the trail soon, or when Redis is back."""
        self._waiting.append(entry)
        self._make_room()
        if self._timer is None and not self._client.is_away:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self._write_soon)

    async def read(self, limit: int, before: str | None = None) -> list[Audited]:
        """The last entries, the newest first, at most `limit`; of those that are older than the position `before`.

        Raises:
            AuditUnavailable: Redis cannot tell now.
        """
        if before is not None and _is_first(before):
            return []
        try:
            await self._write()
            end = "+" if before is None else f"({before}"
            found = await self._client.submit("XREVRANGE", TRAIL, end, "-", "COUNT", limit)
        except NO_ANSWER as error:
            raise AuditUnavailable from error
        return [each for position, fields in found for each in _audited(position, fields)]

    def start(self) -> None:
        """Entries are written, until `close`."""

    async def close(self) -> None:
        """Whatever waited is in the trail, or given up."""
        with suppress(*NO_ANSWER):
            await self._write()
        self._lost_count += len(self._waiting)
        self._waiting.clear()
        self._tell_lost()

    def _write_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._write_quietly(), name="redis-audit-write")
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def _write_quietly(self) -> None:
        with suppress(*NO_ANSWER):
            await self._write()

    async def _write(self) -> None:
        """All that waited is in the trail, in order.

        Raises:
            RedisAway: it waits for Redis to be back.
            RedisError, RedisClusterException: Redis will not have it; what was refused is lost.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._writing:
            while self._waiting:
                await self._write_some()

    async def _write_some(self) -> None:
        """The oldest of what waited are in the trail."""
        entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
        try:
            await self._client.submit_script(_APPEND, [TRAIL], self._kept, *map(_encode, entries))
        except RedisAway:
            self._waiting.extendleft(reversed(entries))
            self._make_room()
            raise
        except NO_ANSWER:
            self._refused(len(entries))
            raise
        self._is_refused = False
        self._tell_lost()

    def _make_room(self) -> None:
        """The oldest go when too many wait; that is told when Redis is back."""
        while len(self._waiting) > self._max_waiting:
            self._waiting.popleft()
            self._lost_count += 1

    def _refused(self, count: int) -> None:
        """Entries are lost that Redis does not take: told at the first time in a row, and when it takes some again."""
        self._lost_count += count
        if not self._is_refused:
            self._is_refused = True
            self._tell_lost()

    def _tell_lost(self) -> None:
        if self._lost_count:
            self._publish(AuditEntriesLost(count=self._lost_count))
            self._lost_count = 0


def _is_first(position: str) -> bool:
    """Whether nothing can be before it: Redis does not take that for an end."""
    return not int(position.replace("-", ""))


def _audited(position: bytes, fields: Mapping[bytes, bytes]) -> Iterator[Audited]:
    """The entry, unless this version cannot read it."""
    with suppress(KeyError, msgspec.MsgspecError):
        yield Audited(position=position.decode(), entry=_decode(fields[_FIELD]))
