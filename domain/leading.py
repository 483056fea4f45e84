"""Producing answers: stages 5 and 6, in a task that does not belong to the request that caused it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from domain.calls import Write
from domain.chat import WHOLE_REASONS, ChatRequest, Chunk
from domain.errors import AnswerFailed, Cancelled, Internal
from domain.events import DefectFound, GenerationSealed, Publish, TokensSpent
from domain.failover import Failover
from domain.generation import Generation, Opened, ProviderChange, Record, Sealed, StaleEpoch, State
from domain.ports import GenerationLog, Lease, Recording, ResponseCache
from domain.progress import Progress
from domain.selection import Route
from domain.tracking import Trace

LOOK_S = 0.5
"""Whether a generation is read elsewhere is not asked more often."""


_LEAVING_S, _LEAVING_LOOK_S = 1.0, 0.01
"""Who ends waits so long for readers whose clients have left, and looks so often."""


def _unsettled(_: Sealed | None) -> None:
    """Nobody waits for what it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a leader has to produce, and where its time is noted.

    `can_repeat`: an answer will do that was stored after its asker had looked, and before the claim. `settle` is called
    with what the answer took: its end, or None when it was there already; not by a leader that leaves it to another.
    """

    request: ChatRequest
    routes: Sequence[Route]
    trace: Trace
    can_repeat: bool = False
    settle: Callable[[Sealed | None], None] = _unsettled


class Leaders:
    """The generations that this process is producing.

    One goes on while anybody reads it and `grace_s` seconds longer; then it is stopped, and the provider's call too.
    """

    def __init__(
        self,
        *,
        log: GenerationLog,
        failover: Failover,
        caches: Sequence[ResponseCache],
        publish: Publish,
        clock: Callable[[], float],
        unix_now: Callable[[], float],
        grace_s: float,
    ) -> None:
        self._log = log
        self._failover = failover
        self._caches = caches
        self._publish = publish
        self._clock = clock
        self._unix_now = unix_now
        self._grace_s = grace_s
        self._running: dict[str, tuple[Generation, asyncio.Task[None]]] = {}
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._unread: set[str] = set()
        self._ending: set[asyncio.Task[Any] | None] = set()

    def start(self, lease: Lease, task: Task) -> None:
        """The generation is being produced, in a task of its own, from where an earlier leader left it."""
        generation = lease.generation
        generation_id = generation.opened.generation_id
        running = asyncio.get_running_loop().create_task(self._lead(lease, task), name=f"leader-{generation_id}")
        self._running[generation_id] = (generation, running)
        running.add_done_callback(lambda ended: self._forget(generation, ended))
        generation.on_deserted = lambda: self._begin_grace(generation)
        self._begin_grace(generation)

    def stop(self, generation_id: str, why: str) -> bool:
        """Nobody joins the generation any more, its provider's call is being ended and it will be sealed as cancelled.

        One that is about to be sealed is left to it. False: it is not led here.
        """
        if generation_id not in self._running:
            return False
        generation, running = self._running[generation_id]
        generation.is_stopping = True
        # A task that is cancelled before its first step never runs, and would never seal.
        asyncio.get_running_loop().call_soon(self._cancel, running, why)
        return True

    def _cancel(self, running: asyncio.Task[None], why: str) -> None:
        """End what is being produced; what follows on it (seal, cache, settle) is always done."""
        if running not in self._ending:
            running.cancel(why)

    async def close(self) -> None:
        """No generation is being produced here any more.

        What nobody reads here, and another process can go on with, is left to whoever reads it there: unsealed.
        """
        await self._readers_have_left()
        running = dict(self._running)
        for generation_id, (generation, _) in running.items():
            if not generation.reader_count:
                self._unread.add(generation_id)
            self.stop(generation_id, "This instance is shutting down.")
        await asyncio.gather(*(task for _, task in running.values()), return_exceptions=True)

    async def _readers_have_left(self) -> None:
        """Those whose clients have left in the last moment have noticed, or have had the time to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_S):
                while any(each.reader_count for each, _ in self._running.values()):  # noqa: ASYNC110  # at the end only
                    await asyncio.sleep(_LEAVING_LOOK_S)

    def _begin_grace(self, generation: Generation, at_least_s: float = 0.0) -> None:
        """Stop the generation after the grace period, counted from now, unless somebody reads it by then."""
        generation_id, loop = generation.opened.generation_id, asyncio.get_running_loop()

        def look() -> None:
            if not generation.reader_count:
                looking = loop.create_task(self._stop_if_deserted(generation))
                self._looking.add(looking)
                looking.add_done_callback(self._looking.discard)

        self._end_grace(generation_id)
        self._graces[generation_id] = loop.call_later(max(self._grace_s, at_least_s), look)

    async def _stop_if_deserted(self, generation: Generation) -> None:
        """Stop the generation unless it is read on another instance; then look again after another grace period."""
        if await self._log.is_read_elsewhere(generation) or generation.reader_count:
            self._begin_grace(generation, LOOK_S)
        else:
            self.stop(generation.opened.generation_id, "Nobody was reading it any more.")

    def _end_grace(self, generation_id: str) -> None:
        grace = self._graces.pop(generation_id, None)
        if grace is not None:
            grace.cancel()

    def _forget(self, generation: Generation, ended: asyncio.Task[None]) -> None:
        """Whoever reads the ended generation from now on concerns nobody here, unless it is led here again.

        A defect that ended it is told.
        """
        self._ending.discard(ended)
        defect = None if ended.cancelled() else ended.exception()
        if defect is not None:
            self._publish(DefectFound(thread_id=generation.opened.thread_id, error=defect))
        generation_id = generation.opened.generation_id
        if self._running[generation_id] != (generation, ended):
            return
        generation.on_deserted = None
        del self._running[generation_id]
        self._end_grace(generation_id)

    async def _lead(self, lease: Lease, task: Task) -> None:
        try:
            await self._answer(lease, task)
        except StaleEpoch:
            pass
        finally:
            task.trace.close()

    async def _answer(self, lease: Lease, task: Task) -> None:
        progress = Progress(thread_id=task.trace.thread_id, clock=self._clock)
        progress.resume(lease.generation, task.request, task.routes)
        write = _writing(self._log, lease)
        try:
            repeated = await self._repeat(lease, write) if task.can_repeat else None
            sealed = repeated or await self._produce(task, progress, write)
        except asyncio.CancelledError as stop:
            self._ending.add(asyncio.current_task())
            if not await self._is_left(lease.generation):
                why = str(stop) or "The stream was stopped."
                await self._seal(lease, task, progress.sealed(State.CANCELLED, Cancelled(why)), write)
            raise stop.with_traceback(None) from None  # its frames and the task would hold each other
        finally:
            self._tell_spending(progress)
        self._ending.add(asyncio.current_task())
        if repeated:
            await write(repeated)
            task.settle(None)
        else:
            await self._seal(lease, task, sealed, write)

    async def _is_left(self, generation: Generation) -> bool:
        """Whether another process goes on with it, as nobody reads it here."""
        return generation.opened.generation_id in self._unread and await self._log.can_go_on_elsewhere(generation)

    def _tell_spending(self, progress: Progress) -> None:
        for booking in progress.bookings_here():
            self._publish(
                TokensSpent(
                    thread_id=progress.thread_id,
                    provider=booking.route.provider,
                    model=booking.route.model,
                    usage=booking.usage,
                    cost_usd=booking.cost_usd,
                )
            )

    async def _repeat(self, lease: Lease, write: Write) -> Sealed | None:
        """Write what is stored, if anything is, but for its end, which is returned."""
        stored = await self._stored(lease.generation.opened)
        if stored is None:
            return None
        for record in stored.generation.records[1:-1]:
            await write(record)
        return stored.generation.sealed

    async def _stored(self, opened: Opened) -> Recording | None:
        """The answer in the first cache that has it; one that cannot say is told as a defect, and has none."""
        for cache in self._caches:
            try:
                stored = await cache.get(opened.fingerprint)
            except Exception as defect:  # noqa: BLE001  # whatever it is, the question can be answered
                self._publish(DefectFound(thread_id=opened.thread_id, error=defect))
                continue
            if stored is not None:
                return stored
        return None

    async def _produce(self, task: Task, progress: Progress, write: Write) -> Sealed:
        """Stage 5: write the answer to the log."""
        try:
            with task.trace.stage("5"):
                if len(progress.finished) < task.request.choice_count:
                    await self._failover.answer(task.request, task.routes, progress, write)
        except StaleEpoch:
            raise
        except AnswerFailed as answer_failed:
            return progress.sealed(State.FAILED, _without_frames(answer_failed))
        except Exception as defect:  # noqa: BLE001  # whatever it is, the readers must hear that the answer ended
            self._publish(DefectFound(thread_id=progress.thread_id, error=defect))
            return progress.sealed(State.FAILED, Internal())
        return progress.sealed(State.DONE)

    async def _seal(self, lease: Lease, task: Task, sealed: Sealed, write: Write) -> None:
        """Stage 6: seal, cache, publish."""
        generation = lease.generation
        with task.trace.stage("6"):
            await write(sealed)
            task.settle(sealed)
            is_whole = sealed.state is State.DONE and sealed.finish_reason in WHOLE_REASONS
            if generation.opened.is_kept and is_whole and _says_something(generation):
                await self._keep(generation)
        self._publish(
            GenerationSealed(
                thread_id=task.trace.thread_id, generation_id=generation.opened.generation_id, sealed=sealed
            )
        )

    async def _keep(self, generation: Generation) -> None:
        recording = Recording(generation, self._unix_now())
        for cache in self._caches:
            await cache.put(generation.opened.fingerprint, recording)


def _writing(log: GenerationLog, lease: Lease) -> Write:
    """What writes to the log; where another leader has begun, the first record says in which fork this one goes on."""
    generation = lease.generation
    fork = generation.new_fork() if lease.epoch > 1 or len(generation.records) > 1 else 0

    async def write(record: Record) -> None:
        nonlocal fork
        if fork and isinstance(record, ProviderChange | Sealed):  # what comes first is one of these
            record, fork = replace(record, fork=fork), 0
        await log.append(lease, record)

    return write


def _says_something(generation: Generation) -> bool:
    """Whether the answer is worth keeping: who has nothing to say may have something next time."""
    return any(isinstance(record, Chunk) and (record.content or record.delta) for record in generation.records)


def _without_frames(failure: AnswerFailed) -> AnswerFailed:
    """`failure` without what led to it: it is kept as long as the generation, and must not keep every frame alive."""
    failure.__cause__ = failure.__context__ = None
    return failure.with_traceback(None)
