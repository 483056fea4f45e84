"""What this process knows of the generations in Redis that concern it."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from domain.generation import Generation, Record
from infrastructure.redis.keys import followed_key, lease_key, log_key, own_lease_key, tag_of, tail_channel


@dataclass(slots=True, eq=False)
class Known:
    """A generation that is led or followed here, its id, and its keys (keys.py), which are asked for with every chunk.

    `written`: how many of its records are in Redis; `writing`: the answer to the append that is under way; `pending`:
    those records that nobody has been told yet, as they will be written.
    `is_apart`: it has a lease of its own, beside the one that answers the same question.
    `unanswered_count`: so many beats Redis has not answered for it.
    `has_begun`: those who read it have had a chunk that was written here.
    `has_lapsed`: Redis has lost its lease.
    `is_to_stop`: its leader has been asked to stop it, and may not have heard.
    `wanted_until_s`: so long, by the loop's clock, it waits for Redis if it must not be kept.
    `unread_count`: so many looks in a row have found nobody here who reads it; at the last, `seen_count` of its records
    were written.
    """

    generation: Generation
    request: bytes
    owner: str
    is_led_here: bool
    written: int
    pending: list[tuple[Record, bytes]] = field(default_factory=list)
    writing: asyncio.Future[Any] | None = None
    is_fetching: bool = False
    is_dirty: bool = False
    is_apart: bool = False
    has_begun: bool = False
    has_lapsed: bool = False
    unanswered_count: int = 0
    is_to_stop: bool = False
    unread_count: int = 0
    seen_count: int = 0
    wanted_until_s: float = math.inf
    settling: asyncio.Future[None] | None = None
    generation_id: str = field(init=False)
    tag: str = field(init=False)
    lease: str = field(init=False)
    log: str = field(init=False)
    followed: str = field(init=False)
    tail: str = field(init=False)

    def __post_init__(self) -> None:
        self.tag = tag_of(self.generation.opened)
        self.generation_id = self.generation.opened.generation_id
        self.lease = own_lease_key(self.tag, self.generation_id) if self.is_apart else lease_key(self.tag)
        self.log = log_key(self.tag, self.generation_id)
        self.followed = followed_key(self.tag)
        self.tail = tail_channel(self.tag, self.generation_id)

    @property
    def is_written(self) -> bool:
        """Whether Redis has all there is."""
        return not self.pending and self.written == len(self.generation.records)

    @property
    def is_alone(self) -> bool:
        """Whether it is finished here, for those who read it here, and not written.

        Another has gone on without what was told here, or Redis has been away for long.
        """
        return self.generation.is_alone

    def go_alone(self) -> None:
        """So it is from now on."""
        self.generation.is_alone = True

    def part(self) -> None:
        """It has a lease of its own from now on, for another has the question's."""
        self.is_apart = self.has_lapsed = True
        self.lease = own_lease_key(self.tag, self.generation_id)

    async def settle(self) -> None:
        """It is sealed here, or is led by another instance."""
        while self.is_led_here and self.generation.sealed is None:
            if self.settling is None:
                self.settling = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.settling)

    def settled(self) -> None:
        """Wake who waits for that."""
        if self.settling is not None and not self.settling.done():
            self.settling.set_result(None)
        self.settling = None


class Roll:
    """All that are known, by id."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def __iter__(self) -> Iterator[Known]:
        return iter(tuple(self._known.values()))

    def __contains__(self, known: Known) -> bool:
        return self._known.get(known.generation_id) is known

    def get(self, generation_id: str) -> Known | None:
        """That one, which is wanted here."""
        known = self._known.get(generation_id)
        if known is not None:
            known.unread_count = 0
        return known

    def add(self, known: Known) -> None:
        """It is known."""
        self._known[known.generation_id] = known

    def remove(self, known: Known) -> None:
        """It concerns nobody here any more."""
        if known in self:
            del self._known[known.generation_id]
