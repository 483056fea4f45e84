"""The generations that concern this process: those under way, and those that ended a while ago."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from domain.generation import Generation, Opened, Record


class Generations:
    """Keeps ended generations for `ttl_s` seconds, the latest `max_entries` and `max_bytes` of them.

    One that is larger than all is not kept, and drives no other out.
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

    def answering(self, fingerprint: str) -> Generation | None:
        """The shared generation under way for this question."""
        return self._by_question.get(fingerprint)

    def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, under way or ended."""
        running = self._under_way.get(generation_id)
        if running is not None:
            return running
        self._drop_expired()
        generation, _ = self._ended.get(generation_id, (None, 0.0))
        return generation

    def begin(self, opened: Opened, epoch: int = 0, records: Sequence[Record] = ()) -> Generation:
        """A generation, with what it has so far beside its first record, led at `epoch` (0: not yet).

        While two answer one question, others join the one that was here first.
        """
        generation = Generation(opened)
        generation.epoch = epoch
        for record in records:
            generation.append(epoch, record)
        if generation.sealed:
            self._keep(generation)
            return generation
        self._under_way[opened.generation_id] = generation
        if opened.is_shared:
            self._by_question.setdefault(opened.fingerprint, generation)
        return generation

    def append(self, generation: Generation, epoch: int, record: Record) -> None:
        """`record` is in the generation, which a Sealed one ends.

        Raises:
            StaleEpoch: another leader has claimed the generation.
        """
        generation.append(epoch, record)
        if generation.sealed is record:
            self.drop(generation)
            self._keep(generation)

    def drop(self, generation: Generation) -> None:
        """The generation is under way here no more."""
        opened = generation.opened
        self._under_way.pop(opened.generation_id, None)
        if self._by_question.get(opened.fingerprint) is generation:
            del self._by_question[opened.fingerprint]

    def _keep(self, generation: Generation) -> None:
        if generation.size_bytes > self._max_bytes:
            return
        self._ended[generation.opened.generation_id] = (generation, self._clock() + self._ttl_s)
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
