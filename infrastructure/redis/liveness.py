"""Instances tell each other that they live, and go on with what those that do not have left."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from domain.events import DefectFound, Publish
from domain.shares import UNKNOWN_COUNT
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.generation_log import FOLLOWED_MS, RedisGenerationLog
from infrastructure.redis.keys import instance_key
from infrastructure.redis.known import Known
from infrastructure.redis.scripting import Script

BEAT_S = 0.5
LIFE_MS = 1700
"""An instance that has not beaten for so long is gone: with the two beats in which another notices, within 3 s. Two, as
all seem gone when Redis has just come back empty or been emptied; and for so long after that nobody is held to be."""

INSTANCES = "weir:instances"

_COUNT = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")
"""KEYS instances, by when they last beat; ARGV instance, life_ms: how many have beaten within that."""

CUT_OFF_BEATS = 6
"""So many beats without an answer for a generation, and this instance goes on with it alone. Beats, not seconds: while
it was stopped itself, nobody was away. Each generation for itself: of a cluster, part can be away."""


class Liveness:
    """Beats for this process, and watches the leaders of what is followed here."""

    def __init__(self, *, client: RedisClient, log: RedisGenerationLog, instance_id: str, publish: Publish) -> None:
        self._client = client
        self._log = log
        self._instance_id = instance_id
        self._publish = publish
        self._missing: set[str] = set()
        self._counts: deque[int] = deque(maxlen=4)
        self._returned = asyncio.Event()
        self._forgotten_at_s = -math.inf
        client.on_return.append(self._redis_is_back)
        self._pulse: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def instance_count(self) -> int:
        """How many instances there were when Redis was last asked; the most of late, as after its return some miss.

        UNKNOWN_COUNT before it was.
        """
        return max(self._counts, default=UNKNOWN_COUNT)

    def start(self) -> None:
        """Others see that this instance lives, until `close`."""
        self._live_on()
        self._beating = asyncio.get_running_loop().create_task(self._beat_on(), name="redis-liveness")

    async def close(self) -> None:
        """Others see at once that this instance is gone."""
        if self._pulse is not None:
            self._pulse.cancel()
        for task in filter(None, (self._beating, self._looking)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._ask("DEL", instance_key(self._instance_id))
        await self._ask("ZREM", INSTANCES, self._instance_id)

    def _live_on(self) -> None:
        """Say so again and again, however long it takes until Redis answers all that a beat asks."""
        self._say_so()
        self._pulse = asyncio.get_running_loop().call_later(BEAT_S, self._live_on)

    def _say_so(self) -> None:
        """Others will see that this instance lives; if it was not said there before, Redis has been emptied."""
        own = instance_key(self._instance_id)
        self._client.submit("EXISTS", own).add_done_callback(self._was_there)
        self._client.submit("SET", own, 1, "PX", LIFE_MS).add_done_callback(unheard)

    def _was_there(self, answer: asyncio.Future[Any]) -> None:
        if not (answer.cancelled() or answer.exception() or answer.result()):
            self._forgotten_at_s = asyncio.get_running_loop().time()

    async def _beat_on(self) -> None:
        while True:
            self._returned.clear()
            try:
                await self._beat()
            except Exception as defect:  # noqa: BLE001  # an instance that stops beating loses all it leads
                self._publish(DefectFound(thread_id="-", error=defect))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._returned.wait(), BEAT_S)

    def _redis_is_back(self) -> None:
        """It may be empty: this instance is in it again at once, and others have time for that too."""
        self._forgotten_at_s = asyncio.get_running_loop().time()
        self._say_so()
        self._returned.set()

    async def _beat(self) -> None:
        """Say what this process follows; see to it that what nobody leads any more is taken over.

        That may be much at once: the next beat does not wait for it.
        """
        followed = list(self._log.followed())
        owners = sorted({known.owner for known in followed})
        count, *answers = await asyncio.gather(
            self._count(),
            *(self._ask("EXISTS", instance_key(owner)) for owner in owners),
            *(self._ask("SET", known.followed, 1, "PX", FOLLOWED_MS) for known in followed),
        )
        for known, said in zip(followed, answers[len(owners) :], strict=True):
            known.unanswered_count = 0 if said else known.unanswered_count + 1
        if count is not None:
            self._counts.append(count)
        missing = {owner for owner, count in zip(owners, answers, strict=False) if count == 0}
        if asyncio.get_running_loop().time() - self._forgotten_at_s < LIFE_MS / 1000:
            missing.clear()
        gone, self._missing = missing & self._missing, missing
        if self._looking is None or self._looking.done():
            looking = self._look_after(followed, gone | {self._instance_id})
            self._looking = asyncio.get_running_loop().create_task(looking, name="redis-liveness-look")
            self._looking.add_done_callback(self._looked)

    async def _look_after(self, followed: Sequence[Known], gone: set[str]) -> None:
        """Take over what `gone` led; look for what may have been missed of the rest.

        Of what is led here and quiet, Redis says whether it is still led here, and gets what could not be written.
        """
        cut_off = {known for known in followed if known.unanswered_count >= CUT_OFF_BEATS}
        lost = [known for known in followed if known in cut_off or known.is_alone or known.owner in gone]
        for known in (*followed, *self._log.quiet()):
            self._log.refresh(known)
        ends = await asyncio.gather(
            *(self._log.take_over(known, is_cut_off=known in cut_off) for known in lost), return_exceptions=True
        )
        for end in ends:
            if isinstance(end, Exception):
                self._publish(DefectFound(thread_id="-", error=end))

    def _looked(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled() and (defect := looking.exception()):
            self._publish(DefectFound(thread_id="-", error=defect))

    async def _count(self) -> int | None:
        """How many instances live, this one among them; None: there was no answer."""
        try:
            count: int = await self._client.submit_script(_COUNT, (INSTANCES,), self._instance_id, LIFE_MS)
        except NO_ANSWER:
            return None
        return count

    async def _ask(self, *command: Any) -> Any:
        """The answer; None: there was none."""
        try:
            return await self._client.submit(*command)
        except NO_ANSWER:
            return None
