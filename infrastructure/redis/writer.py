"""The leader's side: what is appended goes to Redis first, and then to those who read it here.

While an append is under way, what comes gathers for the next. While Redis is away, readers here are told at once, and
what is missing there is written when it is back: one generation after the other, in slices that a slow link carries.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from domain.chat import Chunk
from domain.generation import Opened, Record, Sealed, State
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.keys import stream_key, tag_of
from infrastructure.redis.known import Known, Roll
from infrastructure.redis.scripts import APPEND, BEHIND, FENCED, GONE, LAPSED, OWNED
from infrastructure.redis.waiting import Waiting
from infrastructure.redis.wire import encode_record

HOLD_MS = 2000
"""How long the question stays held once it is answered, if its leader does not release it: until the answer is stored,
whoever asks must find it here."""

MAX_UNWRITTEN = 10_000
"""So many ended generations wait for Redis at most, when it is away. They and their requests take no more memory than
those that are kept may, and none waits that is kept no more."""

UNKEPT_WAIT_S = 5.0
"""So long an ended answer that must not be kept waits for Redis. Who follows it elsewhere has gone on alone by then."""

SLICE_BYTES = 32_768
"""So much of a generation leaves together, or one record that is larger."""

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
        self._unwritten = Waiting[Known](
            max_entries=MAX_UNWRITTEN, max_bytes=generations.max_bytes, given_up=self._give_up
        )
        self._backlog: dict[Known, None] = {}
        self._lingering: dict[Known, None] = {}
        client.on_leaving.append(self._submit_lingering)

    def append(self, known: Known, record: Record) -> None:
        """`record` is on its way."""
        known.pending.append((record, encode_record(record)))
        if not known.writing:
            self._submit_in_time(known)

    def _submit_in_time(self, known: Known) -> None:
        """Send what is pending: in this turn, a first chunk and an end; else what is with the next batch."""
        if known.has_begun and type(known.pending[-1][0]) is not Sealed:
            self._lingering[known] = None
            self._client.linger()
        else:
            asyncio.get_running_loop().call_soon(self.hurry, known)

    def hurry(self, known: Known) -> None:
        """Nothing of it lingers."""
        if known.pending and not known.writing:
            self.write(known)

    def _submit_lingering(self) -> None:
        lingering, self._lingering = self._lingering, {}
        for known in lingering:
            self.hurry(known)

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
        """Redis gets what it does not have (any more), in its turn."""
        if known.generation.sealed and not self._is_wanted(known):
            self._leave(known)
        elif known.is_written:
            self.write(known)
        else:
            self._backlog.setdefault(known)
            self._go_on()

    def _is_wanted(self, known: Known) -> bool:
        """Whether an ended one is still worth writing."""
        generation = known.generation
        if generation.opened.is_kept:
            return self._generations.keeps(generation)
        return asyncio.get_running_loop().time() < known.wanted_until_s

    def _go_on(self) -> None:
        """The first of the backlog is being written; those that cannot be now are left to the next look."""
        while self._backlog:
            known = next(iter(self._backlog))
            if not known.writing:
                self.write(known)
            if known.writing:
                return
            self._backlog.pop(known, None)

    def _go_on_with(self, known: Known) -> None:
        if known.written < len(known.generation.records):
            self.write(known)
        elif known.pending:
            self._submit_in_time(known)

    def write(self, known: Known) -> None:
        """Send what Redis does not have, or the first slice of it, unless that is being done."""
        generation = known.generation
        if known.writing or known.is_alone:
            return
        if self._client.is_away:
            self._tell(known, len(known.pending))
            return
        if known.written == 0:
            self.make_findable(generation.opened)
        told = generation.records[known.written :]
        records = _slice(((record, encode_record(record)) for record in told), known.pending)
        last = records[-1][0] if records and isinstance(records[-1][0], Sealed) else None
        count, pending_count = known.written + len(records), max(0, len(records) - len(told))
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
            *(encoded for _, encoded in records),
        )
        known.writing.add_done_callback(lambda answer: self._written(known, count, pending_count, answer))

    def _written(self, known: Known, count: int, pending_count: int, answer: asyncio.Future[Any]) -> None:
        """Act on what Redis says, and write what is next: of the same generation, or of the backlog."""
        known.writing = None
        self._act(known, count, pending_count, answer)
        if not known.writing:
            self._backlog.pop(known, None)
            self._go_on()

    def _act(self, known: Known, count: int, pending_count: int, answer: asyncio.Future[Any]) -> None:
        """Act on what Redis says to records up to number `count`, of which `pending_count` nobody has been told."""
        if answer.cancelled() or isinstance(answer.exception(), NO_ANSWER):
            self._tell(known, len(known.pending))
            return
        match answer.result():
            case [code] if code == LAPSED:
                known.has_lapsed = True
                self.write(known)
                return
            case [code] if code == GONE and not known.is_apart:
                known.part()
                self.write(known)
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
                known.go_alone()
                self._tell(known, len(known.pending))
        self._go_on_with(known)

    def _tell(self, known: Known, count: int) -> None:
        """Readers have the first `count` pending records; what is sealed is known no longer once it is written."""
        records, known.pending = known.pending[:count], known.pending[count:]
        for record, _ in records:
            self._generations.append(known.generation, known.generation.epoch, record)
            known.has_begun = known.has_begun or type(record) is Chunk
        if known.generation.sealed:
            known.settled()
            if known.is_alone or known.is_written:
                self._leave(known)
            elif known in self._roll and known.generation_id not in self._unwritten:
                self._keep_unwritten(known)

    def _keep_unwritten(self, known: Known) -> None:
        """Redis gets it when it is back, if it is still wanted here then."""
        generation = known.generation
        if not generation.opened.is_kept:
            known.wanted_until_s = asyncio.get_running_loop().time() + UNKEPT_WAIT_S
        self._unwritten.add(known.generation_id, known, generation.size_bytes + len(known.request))

    def _leave(self, known: Known) -> None:
        """Redis has it, or will not get it."""
        self._lose_soon(known)
        self._unwritten.remove(known.generation_id)
        self._give_up(known)

    def _give_up(self, known: Known) -> None:
        self._backlog.pop(known, None)
        self._roll.remove(known)


def _slice(*records: Iterable[tuple[Record, bytes]]) -> list[tuple[Record, bytes]]:
    """The first of them: as many as leave together."""
    taken: list[tuple[Record, bytes]] = []
    size_bytes = 0
    for record, encoded in chain(*records):
        size_bytes += len(encoded)
        if taken and size_bytes > SLICE_BYTES:
            break
        taken.append((record, encoded))
    return taken
