"""Generations in this process's memory: the log is a list, and telling readers is a future."""

from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakKeyDictionary, WeakValueDictionary

from domain.generation import Generation, Opened, Record
from domain.ports import Claim, Lease


class MemoryGenerationLog:
    """Finds ended generations for `ttl_s` seconds: the latest `max_entries` and `max_bytes` of them are kept for that.

    Of those that are larger than all the latest is kept beside them. Any other is found while somebody else holds it:
    a cache that serves it, or a reader. One that must not be kept is not found.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._by_question: dict[str, Generation] = {}
        self._under_way: dict[str, Generation] = {}
        self._ended: WeakValueDictionary[str, Generation] = WeakValueDictionary()
        self._expires_at_s: WeakKeyDictionary[Generation, float] = WeakKeyDictionary()
        self._kept: OrderedDict[str, Generation] = OrderedDict()
        self._kept_bytes = 0
        self._oversized: Generation | None = None

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
        ended = self._ended.get(generation_id)
        return None if ended is None or self._is_expired(ended) else ended

    def _end(self, generation: Generation) -> None:
        opened = generation.opened
        del self._under_way[opened.generation_id]
        if self._by_question.get(opened.fingerprint) is generation:
            del self._by_question[opened.fingerprint]
        if opened.is_kept:
            self._ended[opened.generation_id] = generation
            self._expires_at_s[generation] = self._clock() + self._ttl_s
            self._keep(generation)

    def _keep(self, generation: Generation) -> None:
        self._drop_expired()
        if generation.size_bytes > self._max_bytes:
            self._oversized = generation
            return
        self._kept[generation.opened.generation_id] = generation
        self._kept_bytes += generation.size_bytes
        while len(self._kept) > self._max_entries or self._kept_bytes > self._max_bytes:
            self._drop_oldest()

    def _is_expired(self, generation: Generation) -> bool:
        return self._expires_at_s[generation] <= self._clock()

    def _drop_expired(self) -> None:
        while self._kept and self._is_expired(next(iter(self._kept.values()))):
            self._drop_oldest()
        if self._oversized is not None and self._is_expired(self._oversized):
            self._oversized = None

    def _drop_oldest(self) -> None:
        _, generation = self._kept.popitem(last=False)
        self._kept_bytes -= generation.size_bytes
