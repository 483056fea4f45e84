"""L1: whole answers in this process's memory."""

from collections import OrderedDict
from collections.abc import Callable

from domain.caching import Purges
from domain.ports import Recording


class MemoryResponseCache:
    """Keeps the most recently used answers, up to `max_entries` and `max_bytes`, each for `ttl_s` seconds."""

    def __init__(
        self, *, max_entries: int, max_bytes: int, ttl_s: float, purges: Purges, unix_now: Callable[[], float]
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._purges = purges
        self._unix_now = unix_now
        self._recordings: OrderedDict[str, Recording] = OrderedDict()
        self.size_bytes = 0
        purges.on_purge.append(self._drop_purged)

    def __len__(self) -> int:
        return len(self._recordings)

    async def get(self, fingerprint: str) -> Recording | None:
        """The recording, if it is there, its time has not passed, and no purge conceals it."""
        recording = self._recordings.get(fingerprint)
        if recording is None:
            return None
        if self._unix_now() - recording.sealed_at_s >= self._ttl_s or self._purges.conceal(recording):
            self._drop(fingerprint)
            return None
        self._recordings.move_to_end(fingerprint)
        return recording

    async def put(self, fingerprint: str, recording: Recording) -> None:
        """Keep the recording, in place of an earlier one; the least recently used go for it."""
        self._drop(fingerprint)
        if recording.generation.size_bytes > self._max_bytes:
            return
        self._recordings[fingerprint] = recording
        self.size_bytes += recording.generation.size_bytes
        while len(self._recordings) > self._max_entries or self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._recordings)))

    def _drop_purged(self) -> None:
        for fingerprint, recording in tuple(self._recordings.items()):
            if self._purges.conceal(recording):
                self._drop(fingerprint)

    def _drop(self, fingerprint: str) -> None:
        recording = self._recordings.pop(fingerprint, None)
        if recording is not None:
            self.size_bytes -= recording.generation.size_bytes
