"""The generations that concern this process: those under way, and those that ended a while ago."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary

from domain.generation import Generation, Opened, Record


class Generations:
    """Finds ended generations for `ttl_s` seconds: the latest `max_entries` and `max_bytes` of them are kept for that.

    Of those that are larger than all the latest is kept beside them. Any other is found while somebody else holds it:
    a cache that serves it, or a reader. One that must not be kept is not found.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self.max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._by_question: dict[str, Generation] = {}
        self._under_way: dict[str, Generation] = {}
        self._ended: WeakValueDictionary[str, Generation] = WeakValueDictionary()
        self._expires_at_s: WeakKeyDictionary[Generation, float] = WeakKeyDictionary()
        self._kept: OrderedDict[str, Generation] = OrderedDict()
        self._kept_bytes = 0
        self._oversized: Generation | None = None

    def answering(self, fingerprint: str) -> Generation | None:
        """The shared generation under way for this question."""
        running = self._by_question.get(fingerprint)
        return None if running is None or running.is_stopping else running

    def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, under way or ended."""
        running = self._under_way.get(generation_id)
        if running is not None:
            return running
        self._drop_expired()
        ended = self._ended.get(generation_id)
        return None if ended is None or self._is_expired(ended) else ended

    def keeps(self, generation: Generation) -> bool:
        """Whether it would be found even if nobody else held it."""
        self._drop_expired()
        return generation is self._oversized or generation.opened.generation_id in self._kept

    def begin(self, opened: Opened, epoch: int = 0, records: Sequence[Record] = ()) -> Generation:
        """A generation, with what it has so far beside its first record, led at `epoch` (0: not yet).

        While two answer one question, others join the one that was here first, unless that is stopping.
        """
        generation = Generation(opened)
        generation.epoch = epoch
        for record in records:
            generation.append(epoch, record)
        if generation.sealed:
            self._end(generation)
            return generation
        self._under_way[opened.generation_id] = generation
        if opened.is_shared and self.answering(opened.fingerprint) is None:
            self._by_question[opened.fingerprint] = generation
        return generation

    def append(self, generation: Generation, epoch: int, record: Record) -> None:
        """`record` is in the generation, which a Sealed one ends.

        Raises:
            StaleEpoch: another leader has claimed the generation.
        """
        generation.append(epoch, record)
        if generation.sealed is record:
            self.drop(generation)
            self._end(generation)

    def drop(self, generation: Generation) -> None:
        """The generation is under way here no more."""
        opened = generation.opened
        self._under_way.pop(opened.generation_id, None)
        if self._by_question.get(opened.fingerprint) is generation:
            del self._by_question[opened.fingerprint]

    def _end(self, generation: Generation) -> None:
        opened = generation.opened
        if opened.is_kept:
            self._ended[opened.generation_id] = generation
            self._expires_at_s[generation] = self._clock() + self._ttl_s
            self._keep(generation)

    def _keep(self, generation: Generation) -> None:
        self._drop_expired()
        if generation.size_bytes > self.max_bytes:
            self._oversized = generation
            return
        self._kept[generation.opened.generation_id] = generation
        self._kept_bytes += generation.size_bytes
        while len(self._kept) > self._max_entries or self._kept_bytes > self.max_bytes:
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
