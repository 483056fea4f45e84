"""The leader's side: what is appended goes to Redis first, and then to those who read it here.

While an append is under way, what comes gathers for the next. While Redis is away, readers here are told at once, and
what is missing there is written when it is back.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from domain.generation import Opened, Record, Sealed, State
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.keys import stream_key, tag_of
from infrastructure.redis.known import Known, Roll
from infrastructure.redis.scripts import APPEND, BEHIND, FENCED, GONE, LAPSED, OWNED
from infrastructure.redis.wire import encode_record

HOLD_MS = 2000
"""How long the question stays held once it is answered, if its leader does not release it: until the answer is stored,
whoever asks must find it here."""

MAX_UNWRITTEN = 10_000
"""So many ended generations wait for Redis at most, when it is away; fewer if the memory for ended ones is used up."""

UNKEPT_MS = 3000
"""How long an answer that must not be kept stays, for those who read it: they look for its end every half second."""


class Writer:
    """Writes what is led here. `fenced` is called with what is led by another (its epoch and name) from now on."""

    def __init__(
        self,
        *,
        client: RedisClient,
        generations: Generations,
        roll: Roll,
        instance_id: str,
        lease_ms: int,
        keep_ms: int,
        fenced: Callable[[Known, int, str], None],
    ) -> None:
        self._client = client
        self._generations = generations
        self._roll = roll
        self._instance_id = instance_id
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._fenced = fenced
        self._unwritten: deque[Known] = deque()

    def append(self, known: Known, record: Record) -> None:
        """`record` is on its way."""
        known.pending.append(record)
        self._write(known)

    def make_findable(self, opened: Opened) -> None:
        """Whoever has the stream's id finds the generation, if there is one."""
        key, kept_ms = stream_key(opened.generation_id), self._lease_ms + self._kept_ms(opened)
        self._client.submit("SET", key, tag_of(opened), "PX", kept_ms).add_done_callback(unheard)

    def _kept_ms(self, opened: Opened) -> int:
        """How long it can be read after its end."""
        return self._keep_ms if opened.is_kept else UNKEPT_MS

    def _lose_soon(self, known: Known) -> None:
        """Nothing of an answer that must not be kept is found for longer than those who read it need."""
        if not known.generation.opened.is_kept:
            self._client.submit("PEXPIRE", stream_key(known.generation_id), UNKEPT_MS).add_done_callback(unheard)

    def check(self, known: Known) -> None:
        """Redis gets what it does not have (any more)."""
        if known.generation.sealed and self._generations.find(known.generation_id) is not known.generation:
            self._roll.remove(known)
        else:
            self._submit(known)

    def _write(self, known: Known) -> None:
        if known.pending or known.written < len(known.generation.records):
            self._submit(known)

    def _submit(self, known: Known) -> None:
        """Send all that Redis does not have, unless that is being done."""
        generation = known.generation
        if known.writing or known.is_alone:
            return
        if self._client.is_away:
            self._tell(known, len(known.pending))
            return
        records = (*generation.records[known.written :], *known.pending)
        if known.written == 0:
            self.make_findable(generation.opened)
        last = records[-1] if records and isinstance(records[-1], Sealed) else None
        count, pending_count = known.written + len(records), len(known.pending)
        known.writing = self._client.submit_script(
            APPEND,
            (known.lease, known.log),
            known.generation_id,
            generation.epoch,
            self._instance_id,
            known.written,
            self._lease_ms,
            self._kept_ms(generation.opened) if last else "",
            known.tail,
            known.request if known.has_lapsed or not known.written else b"",
            HOLD_MS if last and last.state is State.DONE else 0,
            *map(encode_record, records),
        )
        known.writing.add_done_callback(lambda answer: self._written(known, count, pending_count, answer))

    def _written(self, known: Known, count: int, pending_count: int, answer: asyncio.Future[Any]) -> None:
        """Act on what Redis says to records up to number `count`, of which `pending_count` nobody has been told."""
        known.writing = None
        if answer.cancelled() or isinstance(answer.exception(), NO_ANSWER):
            self._tell(known, len(known.pending))
            return
        match answer.result():
            case [code] if code == LAPSED:
                known.has_lapsed = True
                self._submit(known)
                return
            case [code] if code == GONE and not known.is_apart:
                known.part()
                self._submit(known)
                return
            case [code, *_] if code == OWNED:
                known.written, known.has_lapsed = count, False
                self._tell(known, pending_count)
            case [code, length] if code == BEHIND:
                known.written = length
            case [code, epoch, owner] if code == FENCED and known.written == len(known.generation.records):
                self._fenced(known, int(epoch), owner.decode())
                return
            case _:
                known.is_alone = True
                self._tell(known, len(known.pending))
        self._write(known)

    def _tell(self, known: Known, count: int) -> None:
        """Readers have the first `count` pending records; what is sealed is known no longer once it is written."""
        records, known.pending = known.pending[:count], known.pending[count:]
        for record in records:
            self._generations.append(known.generation, known.generation.epoch, record)
        if known.generation.sealed:
            self._lose_soon(known)
            known.settled()
            if known.is_alone or known.is_written:
                self._roll.remove(known)
            else:
                self._keep_unwritten(known)

    def _keep_unwritten(self, known: Known) -> None:
        """Redis gets it when it is back, if it is still kept here then."""
        unwritten = self._unwritten
        unwritten.append(known)
        while unwritten and (len(unwritten) > MAX_UNWRITTEN or self._is_done(unwritten[0])):
            self._roll.remove(unwritten.popleft())

    def _is_done(self, known: Known) -> bool:
        generation = known.generation
        return known.is_written or (generation.opened.is_kept and not self._generations.keeps(generation))
