"""The audit trail of one process, for as long as it lives."""

from collections import deque
from itertools import count, islice

from domain.audit import Audited, AuditEntry

KEPT = 10_000
"""How many entries are kept."""


class MemoryAuditTrail:
    """Keeps the last `kept` entries."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[tuple[int, AuditEntry]] = deque(maxlen=kept)
        self._numbers = count(1)

    def append(self, entry: AuditEntry) -> None:
        """The entry is in the trail."""
        self._entries.append((next(self._numbers), entry))

    async def read(self, limit: int, before: str | None = None) -> list[Audited]:
        """The last entries, the newest first, at most `limit`; of those that are older than the position `before`."""
        end = _place(before) if before else None
        older = (pair for pair in reversed(self._entries) if end is None or (pair[0], 0) < end)
        return [Audited(position=f"{number}-0", entry=entry) for number, entry in islice(older, limit)]


def _place(position: str) -> tuple[int, int]:
    number, _, part = position.partition("-")
    return int(number), int(part)
