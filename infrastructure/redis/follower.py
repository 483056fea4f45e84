"""The followers' side: what another instance writes is read here too, as Redis tells of it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from domain.errors import StreamInterrupted
from domain.events import DefectFound, Publish
from domain.generation import Generation, Opened, Record, Sealed, State
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import NO_ANSWER, RedisClient
from infrastructure.redis.keys import log_key
from infrastructure.redis.known import Known, Roll
from infrastructure.redis.subscriptions import Subscriptions
from infrastructure.redis.wire import decode_record, encode_record

NO_RECORD = (msgspec.MsgspecError, ValueError, KeyError, RecursionError)


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

    async def join(
        self, tag: str, generation_id: str, epoch: bytes, owner: bytes, request: bytes, *, is_apart: bool = False
    ) -> Generation | None:
        """The generation, with all records so far, and more as they come; None: its log is gone or is no log."""
        here = self._here(generation_id)
        if here is not None:
            return here
        try:
            entries = await self._client.submit("XRANGE", log_key(tag, generation_id), "-", "+")
            first, *more = [_record(fields) for _, fields in entries]
        except (*NO_ANSWER, *NO_RECORD):
            return None
        here = self._here(generation_id)
        if here is not None or not isinstance(first, Opened):
            return here
        generation = self._generations.begin(first, int(epoch), more)
        if generation.sealed is None:
            written, leader = len(generation.records), owner.decode()
            self.follow(
                Known(generation, request or b"", leader, is_led_here=False, written=written, is_apart=is_apart)
            )
        return generation

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
            self._generations.append(generation, generation.epoch, Sealed(state=State.FAILED, failure=failure))
        self.drop(known)

    def fetch(self, known: Known) -> None:
        """Get the records that are not here yet; what is said meanwhile leads to one more look."""
        if known.is_led_here or known.is_alone or known.generation.sealed:
            return
        if known.is_fetching:
            known.is_dirty = True
            return
        known.is_fetching, known.is_dirty = True, False
        answer = self._client.submit("XRANGE", known.log, f"{known.written}-0", "+")
        answer.add_done_callback(lambda entries: self._fetched(known, entries))

    def _fetched(self, known: Known, answer: asyncio.Future[Any]) -> None:
        known.is_fetching = False
        if known.is_led_here or answer.cancelled() or answer.exception() is not None:
            return
        try:
            self.take_in(known, answer.result())
        except Diverged:
            known.is_alone = True
        except NO_RECORD as error:
            self._publish(DefectFound(thread_id=known.generation.opened.thread_id, error=error))
            self.lose(known)
            return
        if known.generation.sealed is None and known.is_dirty:
            self.fetch(known)

    def take_in(self, known: Known, entries: Sequence[Any]) -> None:
        """Readers here have those records of the log that they did not have.

        Raises:
            Diverged: the log does not go on from what was told here.
            ValueError, KeyError, msgspec.MsgspecError: those are no records.
        """
        generation = known.generation
        for name, fields in entries:
            number = int(name.partition(b"-")[0]) - 1
            if generation.sealed or number > len(generation.records):
                break
            record = _record(fields)
            if number == len(generation.records):
                self._generations.append(generation, generation.epoch, record)
            elif record != decode_record(encode_record(generation.records[number])):
                raise Diverged(number)
        known.written = len(generation.records)
        if generation.sealed:
            self.leave(known)
            self._roll.remove(known)

    def _here(self, generation_id: str) -> Generation | None:
        known = self._roll.get(generation_id)
        return known.generation if known else self._generations.find(generation_id)


def _record(fields: Any) -> Record:
    return decode_record(fields[b"r"])
