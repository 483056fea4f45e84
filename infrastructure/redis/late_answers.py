"""What was answered while Redis was away is in L2 when Redis is back, for all instances."""

import asyncio
from collections.abc import Awaitable, Callable

from domain.events import DefectFound, Publish
from domain.generation import Generation
from domain.ports import Recording
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient
from infrastructure.redis.response_cache import RedisResponseCache
from infrastructure.redis.waiting import Waiting


class LateAnswers:
    """Keeps answers that `cache` could not store, and stores them later: the latest `max_entries` and `max_bytes`.

    One after the other, so that a slow link carries them; and first `learn` learns what has been purged, and `settle`
    whether the answer is what others have under its id.
    """

    def __init__(
        self,
        *,
        client: RedisClient,
        cache: RedisResponseCache,
        max_entries: int,
        max_bytes: int,
        learn: Callable[[], Awaitable[None]],
        settle: Callable[[Generation], Awaitable[None]],
        publish: Publish,
    ) -> None:
        self._cache = cache
        self._learn = learn
        self._settle = settle
        self._publish = publish
        self._waiting = Waiting[Recording](max_entries=max_entries, max_bytes=max_bytes)
        self._storing: asyncio.Task[None] | None = None
        cache.on_missed = self._keep
        client.on_return.append(self._redis_is_back)

    def start(self) -> None:
        """Answers can be kept, until `close`."""

    async def close(self) -> None:
        """Nothing more is stored."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    def _keep(self, fingerprint: str, recording: Recording) -> None:
        self._waiting.add(fingerprint, recording, recording.generation.size_bytes)

    def _redis_is_back(self) -> None:
        if self._waiting and (self._storing is None or self._storing.done()):
            self._storing = asyncio.get_running_loop().create_task(self._store_all(), name="redis-late-answers")
            self._storing.add_done_callback(self._stored)

    async def _store_all(self) -> None:
        """Redis has all that waited, unless it goes away again: then the rest waits on."""
        await self._learn()
        while self._waiting:
            fingerprint, recording = self._waiting.pop()
            try:
                await self._settle(recording.generation)
                await self._cache.store(fingerprint, recording)
            except RedisAway:
                self._keep_on(fingerprint, recording)
                return
            except NO_ANSWER:
                continue

    def _keep_on(self, fingerprint: str, recording: Recording) -> None:
        if fingerprint not in self._waiting:
            self._keep(fingerprint, recording)

    def _stored(self, storing: asyncio.Task[None]) -> None:
        if not storing.cancelled() and (defect := storing.exception()):
            self._publish(DefectFound(thread_id="-", error=defect))
