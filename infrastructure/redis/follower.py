"""The followers' side: what another instance writes is read here too, as Redis tells of it."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from domain.errors import StreamInterrupted
from domain.events import DefectFound, Publish
from domain.generation import Generation, IllegalMove, Opened, Record, Sealed, State
from domain.values import value
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import NO_ANSWER, RedisClient
from infrastructure.redis.flights import Flights
from infrastructure.redis.keys import lease_key, log_key, own_lease_key
from infrastructure.redis.known import Known, Roll
from infrastructure.redis.scripts import READ
from infrastructure.redis.subscriptions import Subscriptions
from infrastructure.redis.wire import decode_record, encode_record

NO_RECORD = (msgspec.MsgspecError, ValueError, KeyError, RecursionError, IllegalMove)

SLICE_BYTES = 64 * 1024
"""A long log is read in slices of so many bytes (scripts.py)."""

_AT_ONCE = 8
"""So many slices are under way at most: together they are read well within the time that a living server needs."""

_TAIL = 64
"""So many records are read at once of what is new; there are hardly ever more."""

Entries: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Of a log: name and value each."""


@value
class Held:
    """Who leads a generation, under the question's lease or, `is_apart`, one of its own; of one that ended, nobody."""

    epoch: int = 0
    owner: str = ""
    is_apart: bool = False


class Diverged(ValueError):
    """The log does not go on from what was told here: Redis has lost it, and another has written it anew."""


class Follower:
    """Follows what others lead."""

    def __init__(
        self,
        *,
        client: RedisClient,
        subscriptions: Subscriptions,
        generations: Generations,
        roll: Roll,
        publish: Publish,
    ) -> None:
        self._client = client
        self._subscriptions = subscriptions
        self._generations = generations
        self._roll = roll
        self._publish = publish
        self._joining: Flights[Generation | None] = Flights()
        self._reading = asyncio.Semaphore(_AT_ONCE)

    async def join(self, tag: str, generation_id: str, held: Held) -> Generation | None:
        """The generation, with all records so far, and more as they come; None: its log is gone or is no log.

        However many join at once, it is read once.
        """
        here = self._here(generation_id)
        if here is not None:
            return here
        return await self._joining.share(generation_id, lambda: self._join(tag, generation_id, held))

    async def _join(self, tag: str, generation_id: str, held: Held) -> Generation | None:
        lease = own_lease_key(tag, generation_id) if held.is_apart else lease_key(tag)
        try:
            records, request = await self._whole(log_key(tag, generation_id), lease, generation_id)
            here = self._here(generation_id)
            if here is not None or not isinstance(records[0], Opened):
                return here
            generation = self._generations.begin(records[0], held.epoch, records[1:])
        except (*NO_ANSWER, *NO_RECORD):
            return None
        if generation.sealed is None:
            known = Known(
                generation, request, held.owner, is_led_here=False, written=len(records), is_apart=held.is_apart
            )
            self.follow(known)
        return generation

    async def _whole(self, log: str, lease: str, generation_id: str) -> tuple[list[Record], bytes]:
        """All records so far, one at least, and what was asked.

        Raises:
            ValueError, KeyError, msgspec.MsgspecError: those are no records, or some miss.
        """
        records: list[Record] = []
        is_more = True
        while is_more:
            is_more, request, entries = await self._slice(log, lease, generation_id, len(records) + 1)
            if not entries or _number(entries[0][0]) != len(records):
                raise ValueError(f"record {len(records)} misses")
            records += [decode_record(data) for _, data in entries]
        return records, request

    async def _slice(self, log: str, lease: str, generation_id: str, entry: int) -> tuple[bool, bytes, Entries]:
        """Whether there are more, what was asked if not, and the records from that entry on."""
        async with self._reading:
            answer = await self._client.submit_script(READ, (log, lease), generation_id, f"{entry}-0", SLICE_BYTES)
        is_more, request, entries = answer
        return bool(is_more), request, entries

    async def read_on(self, known: Known) -> None:
        """All that the log has of what another leads is here.

        Raises: as `take_in`, and RedisError, RedisAway.
        """
        is_more = True
        while is_more and not (known.is_led_here or known.generation.sealed):
            is_more, _, entries = await self._slice(known.log, known.lease, known.generation_id, known.written)
            if not known.is_led_here:
                self.take_in(known, entries)

    def follow(self, known: Known) -> None:
        """Readers here are told of every record from now on, those written meanwhile among them."""
        self._roll.add(known)
        self._subscriptions.add(known.tail, lambda _: self.fetch(known))

    def leave(self, known: Known) -> None:
        """Redis need not tell of it any more."""
        self._subscriptions.remove(known.tail)

    def drop(self, known: Known) -> None:
        """It concerns nobody here any more."""
        self.leave(known)
        self._roll.remove(known)
        self._generations.drop(known.generation)

    def lose(self, known: Known) -> None:
        """It can't be gone on with: those who read it here are told so."""
        failure = StreamInterrupted("The instance that was producing the answer was lost.")
        generation = known.generation
        if generation.sealed is None:
            end = Sealed(state=State.FAILED, failure=failure, fork=generation.new_fork())
            self._generations.append(generation, generation.epoch, end)
        self.drop(known)

    def fetch(self, known: Known) -> None:
        """Get the records that are not here yet; what is said meanwhile leads to one more look."""
        if known.is_led_here or known.is_alone or known.generation.sealed:
            return
        if known.is_fetching:
            known.is_dirty = True
            return
        known.is_fetching, known.is_dirty = True, False
        answer = self._client.submit("XRANGE", known.log, f"{known.written}-0", "+", "COUNT", _TAIL)
        answer.add_done_callback(lambda entries: self._fetched(known, entries))

    def _fetched(self, known: Known, answer: asyncio.Future[Any]) -> None:
        known.is_fetching = False
        if known.is_led_here or answer.cancelled() or answer.exception() is not None:
            return
        try:
            entries = [(name, fields[b"r"]) for name, fields in answer.result()]
            self.take_in(known, entries)
        except Diverged:
            known.go_alone()
        except NO_RECORD as error:
            self._publish(DefectFound(thread_id=known.generation.opened.thread_id, error=error))
            self.lose(known)
            return
        if known.generation.sealed is None and (known.is_dirty or len(entries) == _TAIL):
            self.fetch(known)

    def take_in(self, known: Known, entries: Entries) -> None:
        """Readers here have those records of the log that they did not have.

        Raises:
            Diverged: the log does not go on from what was told here.
            ValueError, KeyError, msgspec.MsgspecError: those are no records.
        """
        generation = known.generation
        for name, data in entries:
            number = _number(name)
            if generation.sealed or number > len(generation.records):
                break
            record = decode_record(data)
            if number == len(generation.records):
                self._generations.append(generation, generation.epoch, record)
            elif record != decode_record(encode_record(generation.records[number])):
                raise Diverged(f"record {number} is another")
        known.written = len(generation.records)
        if generation.sealed:
            self.leave(known)
            self._roll.remove(known)

    def _here(self, generation_id: str) -> Generation | None:
        known = self._roll.get(generation_id)
        return known.generation if known else self._generations.find(generation_id)


def _number(name: bytes) -> int:
    """The number of the record that is that entry."""
    return int(name.partition(b"-")[0]) - 1
