"""What one client is being sent."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum

from domain.admission import Slot
from domain.chat import Caller, Chunk
from domain.errors import AnswerFailed, Internal
from domain.events import AnswerServed, DefectFound, FirstChunkServed, Publish
from domain.generation import Generation, Reader, Record, Sealed, State
from domain.limiting import Quota


class CacheStatus(StrEnum):
    """Where an answer comes from.

    `is_hit`: the answer was stored before it was asked for; one that `spares_a_call` is not paid for.
    """

    L1 = "l1"
    L2 = "l2"
    COALESCED = "coalesced"
    MISS = "miss"
    BYPASS = "bypass"

    is_hit: bool
    spares_a_call: bool

    def __init__(self, name: str) -> None:
        self.is_hit = name in {"l1", "l2"}
        self.spares_a_call = self.is_hit or name == "coalesced"


class Answer:
    """A generation as one client reads it, from `position` on, and the slot that this takes until `close`.

    `age_s` is how old a stored answer is; `quotas` what the caller has left, of each limit it has. One that
    `is_rejoined` was asked for before: neither its first chunk's time nor what it saved is told again.
    `keeping` keeps the answer in the client's conversation, if it is of one. Where there is a `failure`, it is all that
    the client is sent.
    """

    __slots__ = (
        "_began_s",
        "_caller",
        "_clock",
        "_is_first_chunk_due",
        "_is_rejoined",
        "_publish",
        "_slot",
        "age_s",
        "cache",
        "failure",
        "generation",
        "keeping",
        "position",
        "quotas",
        "reader",
        "thread_id",
    )

    def __init__(
        self,
        *,
        generation: Generation,
        cache: CacheStatus,
        caller: Caller,
        thread_id: str,
        slot: Slot,
        quotas: tuple[Quota, ...],
        publish: Publish,
        clock: Callable[[], float],
        began_s: float,
        position: int = 0,
        age_s: float | None = None,
        is_rejoined: bool = False,
        failure: AnswerFailed | None = None,
    ) -> None:
        self.generation = generation
        self.cache = cache
        self.thread_id = thread_id
        self.quotas = quotas
        self.position = position
        self.age_s = age_s
        self.failure = failure
        self.keeping: asyncio.Task[None] | None = None
        self.reader = Reader(generation, position)
        self._caller = caller
        self._slot = slot
        self._publish = publish
        self._clock = clock
        self._began_s = began_s
        self._is_rejoined = is_rejoined
        self._is_first_chunk_due = not is_rejoined

    @property
    def stream_id(self) -> str:
        """The id under which the stream can be joined again."""
        return self.generation.opened.generation_id

    @property
    def duration_s(self) -> float:
        """The seconds since the client asked."""
        return self._clock() - self._began_s

    def saved_usd(self, sealed: Sealed) -> float:
        """What this client's answer would have cost, had it not been shared."""
        return (sealed.cost_usd or 0.0) if self.cache.spares_a_call else 0.0

    def served(self, records: Sequence[Record]) -> None:
        """Say that `records` have been sent; the time of the first chunk is published."""
        if self._is_first_chunk_due and any(type(record) is Chunk for record in records):
            self._is_first_chunk_due = False
            self._publish(
                FirstChunkServed(provider=self.generation.provider, cache=self.cache, seconds=self.duration_s)
            )

    async def kept(self) -> None:
        """The answer, which has ended, is in the client's conversation if it is of one and whole."""
        if self.keeping is not None:
            await asyncio.wait([self.keeping])

    @property
    def has_nothing_left(self) -> bool:
        """Whether the client has seen the end already."""
        is_at_end = self.position == len(self.generation.records)
        return is_at_end and self.generation.sealed is not None and self.failure is None

    def served_whole(self) -> None:
        """The client is sent the rest in one piece, up to the end; the answer is closed."""
        records = self.generation.records
        self.reader.position = len(records)
        self.served(records)
        self.close()

    def defect_found(self, error: BaseException) -> Internal:
        """What to tell the client of a defect of ours, which is published."""
        self._publish(DefectFound(thread_id=self.thread_id, error=error))
        return Internal()

    def close(self) -> None:
        """The client has been served or is gone: it reads no more and its slot is free. Closing again does nothing."""
        if not self._slot.release():
            return
        generation, reader = self.generation, self.reader
        reader.close()
        sealed = generation.sealed
        is_at_end = reader.position == len(generation.records)
        is_whole = is_at_end and generation.state is State.DONE and self.failure is None
        failure = self.failure or (sealed.failure if sealed else None)
        has_saved = is_whole and not self._is_rejoined
        self._publish(
            AnswerServed(
                thread_id=self.thread_id,
                stream_id=self.stream_id,
                caller=self._caller,
                requested=generation.opened.model,
                cache=self.cache,
                provider=sealed.provider if sealed else None,
                model=sealed.model if sealed else None,
                chunk_count=sealed.chunk_count if sealed else 0,
                duration_s=self.duration_s,
                is_whole=is_whole,
                failure=failure.code if failure else None,
                usage=sealed.usage if sealed else None,
                cost_usd=self._cost_usd(sealed),
                saved_usd=self.saved_usd(sealed) if sealed and has_saved else 0.0,
            )
        )

    def _cost_usd(self, sealed: Sealed | None) -> float | None:
        """What this client's asking has cost; None while the answer that it caused goes on."""
        if self.cache.spares_a_call or self._is_rejoined:
            return 0.0
        return (sealed.cost_usd or 0.0) if sealed else None
