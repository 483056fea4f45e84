"""Generations in this process's memory: the log is a list, and telling readers is a future."""

from collections.abc import Callable

from domain.chat import ChatRequest
from domain.generation import Generation, Opened, Record
from domain.ports import Claim, Lease
from infrastructure.memory.generations import Generations


class MemoryGenerationLog:
    """The log of a process that is alone: nobody reads, leads or stops anything elsewhere."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self.took_over: Callable[[Lease, ChatRequest], None]
        self.asked_to_stop: Callable[[str], object]

    async def under_way(self, fingerprint: str) -> Generation | None:
        """The shared generation that is answering this question now."""
        return self._generations.answering(fingerprint)

    async def claim(self, opened: Opened, request: ChatRequest) -> Claim:  # noqa: ARG002  # nobody goes on with it
        """Join the generation under way for the question of `opened`, or begin that generation and lead it."""
        running = self._generations.answering(opened.fingerprint) if opened.is_shared else None
        if running is not None:
            return Claim(running, None)
        generation = self._generations.begin(opened)
        return Claim(generation, Lease(generation, generation.claim()))

    async def append(self, lease: Lease, record: Record) -> None:
        """`record` is in the log, and readers are told.

        Raises:
            StaleEpoch: another leader has claimed the generation.
        """
        self._generations.append(lease.generation, lease.epoch, record)

    async def is_read_elsewhere(self, generation: Generation) -> bool:  # noqa: ARG002  # there is no elsewhere
        """Nobody else can read it."""
        return False

    async def catch_up(self, generation: Generation, number: int) -> None:
        """Nobody else writes."""

    async def can_go_on_elsewhere(self, generation: Generation) -> bool:  # noqa: ARG002  # there is no elsewhere
        """Nobody else knows it."""
        return False

    async def request_stop(self, generation_id: str) -> None:
        """Nobody else can lead it."""

    async def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, while it runs and for the time that ended ones are kept."""
        return self._generations.find(generation_id)
