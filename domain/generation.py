"""The production of one answer: an append-only log with one leader and any number of readers.

    UNDER_WAY ──appended, claimed──► UNDER_WAY
    UNDER_WAY ──answered──► DONE        whole; what is cached is this
    UNDER_WAY ──failed────► FAILED
    UNDER_WAY ──stopped───► CANCELLED

Everything that changes `state` or `records` is in this file. What leaders set on a generation (`on_deserted`,
`is_stopping`) is about who reads it, not about its state.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from domain.chat import Chunk, Turn, Usage
from domain.errors import AnswerFailed

RECORD_OVERHEAD_BYTES = 700
"""What a record costs beside its text, kept and encoded in every form that a hot answer is held in.

Measured with tracemalloc on CPython 3.11: 145 bytes as a record; 700 with both forms of an event stream, OpenAI's with
and without usage, and the whole completion (tests/app/test_memory.py).
"""

COPIES = 5
"""How often a text is held at most: as a record, and in those four forms."""


MAX_BATCH = 256
"""Records that a reader gets at once: one that lags is given the rest in pieces."""


class State(Enum):
    """Where a generation is in its life."""

    UNDER_WAY = "under_way"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(Enum):
    """What can happen to a generation."""

    CLAIMED = "claimed"
    APPENDED = "appended"
    ANSWERED = "answered"
    FAILED = "failed"
    STOPPED = "stopped"


MOVES: dict[tuple[State, Move], State] = {
    (State.UNDER_WAY, Move.CLAIMED): State.UNDER_WAY,
    (State.UNDER_WAY, Move.APPENDED): State.UNDER_WAY,
    (State.UNDER_WAY, Move.ANSWERED): State.DONE,
    (State.UNDER_WAY, Move.FAILED): State.FAILED,
    (State.UNDER_WAY, Move.STOPPED): State.CANCELLED,
}


class IllegalMove(Exception):
    """A defect in the caller: `move` cannot happen in `state`."""

    def __init__(self, state: State, move: Move) -> None:
        super().__init__(f"{move.name} cannot happen while {state.name}")


class StaleEpoch(Exception):
    """Another leader has claimed the generation since; this one may write no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The first record: who asked for what, when (Unix seconds), and who may read the answer.

    `is_shared`: others may join it. `is_kept`: it may be stored, and read after its end.
    `turn` is what was asked in a conversation; who comes back to the stream on another instance has it kept there.
    """

    generation_id: str
    fingerprint: str
    created_at_s: float
    thread_id: str
    user: str
    scope: str
    model: str
    is_shared: bool = True
    is_kept: bool = True
    turn: Turn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderChange:
    """Who is being asked from here on: `status` is selected, retrying or failover.

    `previous` is the provider that was asked before, and `reason` why it no longer is. `fork` is the one that begins
    here, 0 if none does.
    """

    status: str
    provider: str
    model: str
    previous: str | None = None
    reason: str | None = None
    fork: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The last record: how it ended, who answered, and what it took.

    `state` is what the generation becomes; `failure` says why unless that is DONE. `usage` and `cost_usd` are of all
    calls together, None when none has given anything. `fork` is the one that begins here, 0 if none does.
    """

    state: State
    provider: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    chunk_count: int = 0
    ttft_s: float | None = None
    duration_s: float = 0.0
    failure: AnswerFailed | None = None
    fork: int = 0


Record: TypeAlias = Opened | ProviderChange | Chunk | Sealed


FORKS = 30
"""So many forks of one answer are told apart: each instance that goes on with what another began has one."""

FIRST_IN_FORK = 2
"""Of a fork is what comes from here on: who was asked first is no part of the answer, and not told to all."""

NOWHERE = FORKS + 1
"""The fork of the error that says that nothing fits: nothing fits behind that either."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The event that a client has seen last: its number, and the fork that it was told in, 0 if in none."""

    number: int
    fork: int = 0


_SEALING = {State.DONE: Move.ANSWERED, State.FAILED: Move.FAILED, State.CANCELLED: Move.STOPPED}


class Generation:
    """A log that can be appended to under the newest epoch, and read from any position.

    A record's index in `records` is its number for good; the first is `opened`. One that `is_stopping` will not answer
    anybody else. One that `is_alone` has, or will have, records that no other instance has under their numbers.

    It forks where another leader goes on with it: the former may live on, and tell more that nobody else knows of. That
    leader's first record says which fork its records are in; those of the first leader are in none.
    """

    __slots__ = (
        "__weakref__",
        "_forks",
        "_waiting",
        "epoch",
        "is_alone",
        "is_stopping",
        "on_deserted",
        "opened",
        "reader_count",
        "records",
        "size_bytes",
        "state",
    )

    def __init__(self, opened: Opened) -> None:
        self.state = State.UNDER_WAY
        self.epoch = 0
        self.is_alone = False
        self.is_stopping = False
        self.opened = opened
        self.records: list[Record] = [opened]
        self.size_bytes = RECORD_OVERHEAD_BYTES + (4 * opened.turn.char_count if opened.turn else 0)
        self.reader_count = 0
        self.on_deserted: Callable[[], None] | None = None
        self._forks: list[tuple[int, int]] = []
        self._waiting: dict[asyncio.Future[None], None] = {}

    @classmethod
    def replayed(cls, records: Sequence[Record]) -> "Generation":
        """The generation whose whole log is `records`, as if they had been appended one by one.

        Raises:
            ValueError: it does not begin with its opening.
            IllegalMove: it goes on after its seal.
        """
        if not records or type(records[0]) is not Opened:
            raise ValueError("a log without an opening")
        if Sealed in set(map(type, records[:-1])):
            raise IllegalMove(State.DONE, Move.APPENDED)
        generation = cls(records[0])
        generation.records = list(records)
        chunks = [record for record in records if type(record) is Chunk]
        generation.size_bytes = RECORD_OVERHEAD_BYTES * len(records) + _chunks_bytes(chunks)
        for number, record in enumerate(records):
            if type(record) is not Chunk:
                generation._note_fork(number, record)
        if type(last := records[-1]) is Sealed:
            generation.state = last.state
        return generation

    @property
    def sealed(self) -> Sealed | None:
        """The last record, once there is one."""
        last = self.records[-1]
        return last if isinstance(last, Sealed) else None

    @property
    def provider(self) -> str:
        """The one that is being asked, or was last; empty before the first."""
        if self.sealed is not None and self.sealed.provider:
            return self.sealed.provider
        changes = (record for record in reversed(self.records) if isinstance(record, ProviderChange))
        return next((change.provider for change in changes), "")

    def claim(self) -> int:
        """The epoch of a new leader; every earlier leader is refused from now on.

        Raises:
            IllegalMove: the generation is sealed.
        """
        self._move(Move.CLAIMED)
        self.epoch += 1
        return self.epoch

    def append(self, epoch: int, record: Record) -> None:
        """Make `record` the next one and wake all readers.

        Raises:
            StaleEpoch: a later epoch has been claimed.
            IllegalMove: the generation is sealed.
        """
        if epoch != self.epoch:
            raise StaleEpoch
        self._move(_SEALING[record.state] if type(record) is Sealed else Move.APPENDED)
        self.records.append(record)
        self.size_bytes += RECORD_OVERHEAD_BYTES
        if type(record) is Chunk:
            self.size_bytes += _chunk_bytes(record)
        else:
            self._note_fork(len(self.records) - 1, record)
        self._wake()

    def new_fork(self) -> int:
        """One for who goes on with it: drawn by lot, for others may go on with it too, of those that it does not have.

        Of all, when it has had all.
        """
        taken = {fork for _, fork in self._forks}
        return secrets.choice([fork for fork in range(1, FORKS + 1) if fork not in taken] or range(1, FORKS + 1))

    @property
    def has_forked(self) -> bool:
        """Whether some of its records are in a fork."""
        return bool(self._forks)

    def fork_of(self, number: int) -> int:
        """The fork that the record of that number is, or will be, in; 0 if in none."""
        return next((fork for first, fork in reversed(self._forks) if number >= first), 0)

    def has_left(self, fork: int) -> bool:
        """Whether no more of its records will be in that fork: another leader has gone on, or there never was one."""
        *left, last = 0, *(each for _, each in self._forks)
        return fork != last and fork in {*left, NOWHERE}

    def _note_fork(self, number: int, record: Record) -> None:
        if isinstance(record, ProviderChange | Sealed) and record.fork:
            self._forks.append((max(FIRST_IN_FORK, number), record.fork))

    def watch(self) -> asyncio.Future[None]:
        """A future that is done once another record is there."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        return future

    def unwatch(self, future: asyncio.Future[None]) -> None:
        """Forget a future that nobody awaits any more."""
        self._waiting.pop(future, None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _move(self, move: Move) -> None:
        try:
            self.state = MOVES[self.state, move]
        except KeyError:
            raise IllegalMove(self.state, move) from None


def _chunk_bytes(chunk: Chunk) -> int:
    """What a chunk takes beside its overhead as a record: its text, and what stands beside that, with their objects."""
    if not (chunk.delta or chunk.choice):
        return _text_bytes(chunk.content)
    return RECORD_OVERHEAD_BYTES + _text_bytes(f"{chunk.content}{chunk.delta}{chunk.choice}")


def _chunks_bytes(chunks: Sequence[Chunk]) -> int:
    """As the sum of each; most answers are plain, and can be looked at in one go."""
    text = "".join([chunk.content for chunk in chunks])
    if text.isascii() and not [chunk for chunk in chunks if chunk.delta or chunk.choice]:
        return _text_bytes(text)
    return sum(map(_chunk_bytes, chunks))


def _text_bytes(text: str) -> int:
    """What `text` takes in all its copies; what is not ASCII may be 4 bytes a character."""
    return COPIES * len(text) * (1 if text.isascii() else 4)


class Reader:
    """A position in a generation's log; the generation goes on while it has readers.

    Close it, once, when the client is served or gone.
    """

    __slots__ = ("_loop", "_silence_s", "_since_s", "_timer", "_waiting", "generation", "position")

    def __init__(self, generation: Generation, position: int = 0) -> None:
        self.generation = generation
        self.position = position
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        generation.reader_count += 1

    async def read(self, silence_s: float) -> Sequence[Record]:
        """The next records, at once when there are any, MAX_BATCH at most; none after `silence_s` without one.

        Nothing comes after the Sealed record: do not ask again.
        """
        records = self.generation.records
        if self.position == len(records):
            self._silence_s = silence_s
            await self._wait()
        new = records[self.position : self.position + MAX_BATCH]
        self.position += len(new)
        return new

    def close(self) -> None:
        """Leave; the last reader to leave makes the generation deserted."""
        if self._timer is not None:
            self._timer.cancel()
        generation = self.generation
        generation.reader_count -= 1
        if not generation.reader_count and generation.on_deserted:
            generation.on_deserted()

    async def _wait(self) -> None:
        self._waiting = self.generation.watch()
        self._since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._tick)
        try:
            await self._waiting
        finally:
            self.generation.unwatch(self._waiting)
            self._waiting = None

    def _tick(self) -> None:
        """Wake the wait when it has lasted long enough; one timer a reader, not one a record."""
        left_s = self._silence_s
        if self._waiting is not None:
            left_s = self._since_s + self._silence_s - self._loop.time()
            if left_s <= 0 and not self._waiting.done():
                self._waiting.set_result(None)
        self._timer = self._loop.call_later(left_s if left_s > 0 else self._silence_s, self._tick)
