"""Generations in this process's memory: the log is a list, and telling readers is a future."""

from collections import OrderedDict
from collections.abc import Callable

from domain.generation import Generation, Opened, Record
from domain.ports import Claim, Lease


class MemoryGenerationLog:
    """Keeps ended generations for `ttl_s` seconds, the latest `max_entries` and `max_bytes` of them.

    One that is larger than all is not kept, and drives no other out; nor is one that must not be.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._by_question: dict[str, Generation] = {}
        self._under_way: dict[str, Generation] = {}
        self._ended: OrderedDict[str, tuple[Generation, float]] = OrderedDict()
        self._ended_bytes = 0

    async def under_way(self, fingerprint: str) -> Generation | None:
        """The shared generation that is answering this question now."""
        running = self._by_question.get(fingerprint)
        return None if running is None or running.is_stopping else running

    async def claim(self, opened: Opened) -> Claim:
        """Join the generation under way for the question of `opened`, or begin that generation and lead it."""
        running = await self.under_way(opened.fingerprint) if opened.is_shared else None
        if running is not None:
            return Claim(running, None)
        generation = Generation(opened)
        self._under_way[opened.generation_id] = generation
        if opened.is_shared:
            self._by_question[opened.fingerprint] = generation
        return Claim(generation, Lease(generation, generation.claim()))

    async def append(self, lease: Lease, record: Record) -> None:
        """`record` is in the log, and readers are told.

        Raises:
            StaleEpoch: another leader has claimed the generation.
        """
        generation = lease.generation
        generation.append(lease.epoch, record)
        if generation.sealed is record:
            self._end(generation)

    async def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, while it runs and for the time that ended ones are kept."""
        running = self._under_way.get(generation_id)
        if running is not None:
            return running
        self._drop_expired()
        generation, _ = self._ended.get(generation_id, (None, 0.0))
        return generation

    def _end(self, generation: Generation) -> None:
        opened = generation.opened
        del self._under_way[opened.generation_id]
        if self._by_question.get(opened.fingerprint) is generation:
            del self._by_question[opened.fingerprint]
        if not opened.is_kept or generation.size_bytes > self._max_bytes:
            return
        self._ended[opened.generation_id] = (generation, self._clock() + self._ttl_s)
        self._ended_bytes += generation.size_bytes
        self._drop_expired()
        while len(self._ended) > self._max_entries or self._ended_bytes > self._max_bytes:
            self._drop_oldest()

    def _drop_expired(self) -> None:
        now_s = self._clock()
        while self._ended and next(iter(self._ended.values()))[1] <= now_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (generation, _) = self._ended.popitem(last=False)
        self._ended_bytes -= generation.size_bytes
