"""One call of a provider: let through by its circuit, held to its deadlines, and told to both when it has ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from domain.breaker import circuit_name
from domain.chat import ChatRequest, Chunk
from domain.concurrency import ProviderSlots
from domain.errors import (
    AnswerEmpty,
    CircuitOpen,
    PrefixRefused,
    ProviderDeferred,
    ProviderError,
    ProviderFull,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreadable,
    RouteUnfit,
)
from domain.events import AttemptEnded, DefectFound, Publish
from domain.generation import Record
from domain.ports import CircuitBreakers, Permit, Provider
from domain.progress import Progress, Share
from domain.reactions import reaction_to
from domain.retrying import RetryBudgets
from domain.selection import Route
from domain.splice import Splice

Write = Callable[[Record], Awaitable[None]]

SETTLE_S = 0.25
"""So long is waited for the usage when an answer has its end, by a chunk that says nothing else.

A finish reason beside text, or before any, is no such end: some servers say it with every text, and more comes.
Source: github.com/BerriAI/litellm/issues/2195 and github.com/songquanpeng/one-api/issues/1408, as known 2026-11.
"""

END_S = 0.02
"""And so long for the stream's end, when the usage is there too: its connection, read to the end, serves the next call.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long is waited, in seconds: to connect and for the first token (each attempt), between chunks, in all."""

    connect_s: float = 5.0
    first_token_s: float = 10.0
    stall_s: float = 10.0
    total_s: float = 300.0


@dataclass(slots=True, kw_only=True)
class Call:
    """What is asked of `route`.

    `splice` joins what comes to what has been sent; None: the answer is asked for from its beginning. One that
    `is_prefilled` is given what has been sent as a prefix. `may_be_empty`: an answer that says nothing is one.
    `on_first` is awaited before the first chunk is written. `is_extra`: the request has made the calls that it needs
    without it. `has_lost`: another call was faster, and this one is ended for that. `asked_s` is when its provider was
    asked, in the loop's seconds. `permit` is its circuit's, once it has one; `share` is what it has given, once it has
    begun to.
    """

    route: Route
    request: ChatRequest
    splice: Splice | None = None
    is_prefilled: bool = False
    may_be_empty: bool = True
    on_first: Callable[[], Awaitable[None]] | None = None
    is_extra: bool = False
    has_lost: bool = False
    asked_s: float = 0.0
    permit: Permit | None = None
    share: Share | None = None

    @property
    def circuit(self) -> str:
        """The name of its circuit."""
        return circuit_name(self.route.provider, self.route.model)

    def meant(self, failure: ProviderError) -> ProviderError:
        """What `failure` is, for what was asked: a refusal of what has a prefix may be one of the prefix."""
        is_refusal = self.is_prefilled and self.share is None
        if is_refusal and isinstance(failure, ProviderRejected | ProviderMisconfigured):
            return PrefixRefused()
        return failure


class Learner(Protocol):
    """Who learns from calls how soon routes answer."""

    def took(self, route: Route, seconds: float) -> None:
        """`route` has taken so long to its first token, from being asked."""
        ...

    def lost(self, route: Route, seconds: float) -> None:
        """`route` has had no first token for so long, and another was asked for it."""
        ...

    def failed(self, route: Route) -> None:
        """A call of `route` has failed."""
        ...


class Calls:
    """Makes calls, as many at once as `slots` has; `learners` hear how each one went."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        breakers: CircuitBreakers,
        deadlines: Deadlines,
        publish: Publish,
        slots: ProviderSlots,
        budgets: RetryBudgets,
        learners: Sequence[Learner] = (),
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._deadlines = deadlines
        self._publish = publish
        self._slots = slots
        self._budgets = budgets
        self._learners = learners

    async def make(self, call: Call, progress: Progress, write: Write) -> None:
        """The answer, or the rest of it, has been written; what is our own doing says nothing of the provider.

        Raises:
            CircuitOpen, ProviderFull, RouteUnfit: it was not made; the last, also when the provider says so.
            ProviderError: it failed, before its first chunk or after.
        """
        provider = call.route.provider
        try:
            _check_fitness(call)
            self._slots.take(provider)
        except (RouteUnfit, ProviderFull) as failure:
            progress.failed(call.route, failure)
            raise
        try:
            await self._make(call, progress, write)
        finally:
            self._slots.give_back(provider)

    async def _make(self, call: Call, progress: Progress, write: Write) -> None:
        outcome, reason = "cancelled", None
        try:
            permit = call.permit = await self._breakers.acquire(call.circuit)
        except CircuitOpen as failure:
            progress.failed(call.route, failure)
            raise
        if not call.is_extra:
            self._budgets.called(call.route.provider)
        call.asked_s = asyncio.get_running_loop().time()
        try:
            await self._stream(call, progress, write)
            outcome = "ok"
        except ProviderError as failure:
            meant = call.meant(failure)
            outcome, reason = reaction_to(meant).outcome, meant.reason
            self._failed(call, permit, meant)
            progress.failed(call.route, meant)
            if meant is failure:
                raise
            raise meant from failure
        except asyncio.CancelledError:
            if call.has_lost:
                self._lost(call, progress)
            raise
        except _NotWritten as not_written:
            outcome, reason = "defect", "a defect of ours"
            raise not_written.error from None
        finally:
            permit.abandon()
            self._publish(
                AttemptEnded(
                    thread_id=progress.thread_id,
                    provider=call.route.provider,
                    model=call.route.model,
                    outcome=outcome,
                    reason=reason,
                )
            )

    def _failed(self, call: Call, permit: Permit, failure: ProviderError) -> None:
        """Its circuit has heard of it, and so has whoever chooses routes, unless it says nothing of the provider."""
        if reaction_to(failure).counts:
            permit.failure()
        if isinstance(failure, ProviderDeferred):
            self._breakers.rest(call.circuit, failure.retry_after_s)
        if reaction_to(failure).counts or isinstance(failure, ProviderDeferred):
            for learner in self._learners:
                learner.failed(call.route)

    def _lost(self, call: Call, progress: Progress) -> None:
        """What it was asked has been read, and is booked though nothing came of it."""
        progress.shares.append(Share(route=call.route, request=call.request))
        for learner in self._learners:
            learner.lost(call.route, asyncio.get_running_loop().time() - call.asked_s)

    async def _stream(self, call: Call, progress: Progress, write: Write) -> None:
        """Write the chunks, each in time: the first within its deadline, the rest without a stall.

        Once it has said that the answer is whole, its usage and end mark are not needed for a good end.

        Raises:
            ProviderError: it failed; a defect in reading it is told, and is one of its failures.
            _NotWritten: what it gave could not be written.
        """
        try:
            async with asyncio.timeout(self._deadlines.first_token_s) as limit:
                async with self._providers[call.route.provider].open(call.route, call.request) as chunks:
                    await self._pass_on(call, chunks, progress, write, limit)
        except _NotWritten:
            raise
        except ProviderError:
            if not _is_whole(call, progress):
                raise
        except TimeoutError:
            if not _is_whole(call, progress):
                raise ProviderTimeout(self._too_late(call)) from None
        except Exception as defect:
            self._publish(DefectFound(thread_id=progress.thread_id, error=defect))
            if not _is_whole(call, progress):
                raise ProviderUnreadable from defect

    async def _pass_on(
        self,
        call: Call,
        chunks: AsyncIterator[Chunk],
        progress: Progress,
        write: Write,
        limit: asyncio.Timeout,
    ) -> None:
        """Write those of `chunks` that are part of the answer, and new; each puts off `limit`."""
        loop, stall_s, splice, is_firm = asyncio.get_running_loop(), self._deadlines.stall_s, call.splice, False
        share = Share(route=call.route, request=call.request)
        async for chunk in chunks:
            share.usage = chunk.usage or share.usage
            if chunk.is_answer:
                is_firm = chunk.is_end and call.share is not None
                if call.share is None:
                    if not call.may_be_empty and _is_empty(chunk):
                        raise AnswerEmpty
                    await self._begin(call, share, progress, loop.time() - call.asked_s)
                limit.reschedule(loop.time() + stall_s)
                share.chunks.append(chunk)
                for new in _new_of(chunk, splice):
                    progress.came(new)
                    await _written(write(new))
            if is_firm and _is_whole(call, progress):
                limit.reschedule(loop.time() + (END_S if share.usage else SETTLE_S))
        if splice is not None and not progress.finished and (rest := splice.finish()):
            progress.came(Chunk(rest))
            await _written(write(Chunk(rest)))

    async def _begin(self, call: Call, share: Share, progress: Progress, seconds: float) -> None:
        """The call has its first chunk, after so many seconds."""
        if call.permit is not None:
            call.permit.success()
        for learner in self._learners:
            learner.took(call.route, seconds)
        if call.on_first is not None:
            await _written(call.on_first())
        call.share = share
        progress.shares.append(share)

    def _too_late(self, call: Call) -> str:
        if call.share is not None:
            return f"sent nothing for {self._deadlines.stall_s:g} s"
        return f"sent no first token within {self._deadlines.first_token_s:g} s"


class _NotWritten(Exception):
    """Writing failed with `error`, which is none of the provider's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


async def _written(writing: Awaitable[None]) -> None:
    try:
        await writing
    except Exception as error:
        raise _NotWritten(error) from error


def _check_fitness(call: Call) -> None:
    """The route gives as many choices as are asked for.

    Raises:
        RouteUnfit: it does not.
    """
    most = call.route.max_choices
    if most is not None and call.request.choice_count > most:
        raise RouteUnfit(f"gives no more choices than {most}")


def _is_whole(call: Call, progress: Progress) -> bool:
    return len(progress.finished) >= call.request.choice_count


def _parted(chunk: Chunk) -> Sequence[Chunk]:
    """`chunk`, its finish reason by itself: as OpenAI does, and as some clients need it to see the last text."""
    if not chunk.finish_reason or chunk.is_end:
        return (chunk,)
    return replace(chunk, finish_reason=None), Chunk(finish_reason=chunk.finish_reason, index=chunk.index)


def _new_of(chunk: Chunk, splice: Splice | None) -> Sequence[Chunk]:
    """What of `chunk` has not been sent.

    Raises:
        Unaligned: it cannot be told what has not been sent.
    """
    new = chunk if splice is None else splice.join(chunk)
    return () if new is None else _parted(new)


def _is_empty(first: Chunk) -> bool:
    """Whether an answer whose first chunk that is has ended by itself before it has said anything."""
    return first.finish_reason == "stop" and not (first.content or first.delta)
