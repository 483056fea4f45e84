"""How an answer is got from routes that may fail: retry on the same route, then the next one.

Before the first token every failure but a rejection can still be made good; after it the stream is interrupted.

    what happened            retry here                       next route    counts against the circuit
    ProviderUnavailable      yes, with backoff                yes           yes
    ProviderOverloaded       yes, if it asks for a short wait yes           yes
    ProviderSaturated        yes, with backoff                yes           no
    ProviderTimeout          no                               yes           yes
    ProviderMisconfigured    no                               yes           yes
    RouteUnfit               no                               yes           no
    CircuitOpen              no                               yes           no
    ProviderRejected         no                               no            no
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domain.chat import WHOLE_REASONS, ChatRequest, Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    AnswerFailed,
    Attempt,
    CircuitOpen,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    RequestRejected,
    StreamInterrupted,
    UpstreamTimeout,
)
from domain.events import AttemptEnded, FailedOver, Publish
from domain.generation import Generation, ProviderChange, Record, Sealed, State
from domain.ports import CircuitBreakers, Permit, Provider
from domain.selection import Route

_BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long is waited, in seconds: to connect and for the first token (each attempt), between chunks, in all."""

    connect_s: float = 5.0
    first_token_s: float = 10.0
    stall_s: float = 10.0
    total_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` on one route before its first token; waits grow from `base_s` to `max_s`, with full jitter.

    A provider's own wish is waited for in place only up to `wish_max_s`.
    """

    attempts: int = 3
    base_s: float = 1.0
    max_s: float = 30.0
    wish_max_s: float = 3.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"at least one attempt, not {self.attempts}")


Delays = Callable[[], Iterator[float]]
"""Gives the waits between the attempts of one request, in seconds."""

Write = Callable[[Record], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Progress:
    """What has come of one answer so far; `finished` are the choices that nothing is missing of.

    `clock`, `began_s` and `first_chunk_s` are in monotonic seconds.
    """

    thread_id: str
    clock: Callable[[], float]
    lost_provider: str = ""
    began_s: float = field(init=False)
    route: Route | None = None
    attempts: list[Attempt] = field(default_factory=list)
    only_timeouts: bool = True
    chunk_count: int = 0
    resumed_count: int = 0
    finished: frozenset[int] = frozenset()
    first_chunk_s: float | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    """Of several choices' reasons the last, but one of a filter stands."""

    def __post_init__(self) -> None:
        self.began_s = self.clock()

    def resume(self, generation: Generation) -> None:
        """Count what an earlier leader has written, and remember whom it was asking when it was lost."""
        self.lost_provider = generation.provider
        for record in generation.records:
            if isinstance(record, Chunk):
                self.came(record)
        self.resumed_count = self.chunk_count

    @property
    def has_begun(self) -> bool:
        """Whether this leader has written a chunk."""
        return self.chunk_count > self.resumed_count

    def came(self, chunk: Chunk) -> None:
        """Count `chunk`, which is part of the answer."""
        self.chunk_count += 1
        if chunk.content and self.finished:
            self.finished -= {chunk.index}
        if chunk.finish_reason:
            self.finished |= {chunk.index}
            if self.finish_reason is None or self.finish_reason in WHOLE_REASONS:
                self.finish_reason = chunk.finish_reason
        if self.first_chunk_s is None:
            self.first_chunk_s = self.clock()

    def sealed(self, state: State, failure: AnswerFailed | None = None) -> Sealed:
        """The record that ends the generation in `state`."""
        route, usage = self.route, self.usage
        cost_usd = route.cost_usd(usage.prompt_tokens, usage.completion_tokens) if route and usage else None
        return Sealed(
            state=state,
            provider=route.provider if route else None,
            model=route.model if route else None,
            finish_reason=self.finish_reason,
            usage=usage,
            cost_usd=cost_usd,
            chunk_count=self.chunk_count,
            ttft_s=None if self.first_chunk_s is None else self.first_chunk_s - self.began_s,
            duration_s=self.clock() - self.began_s,
            failure=failure,
        )

    def failed(self, route: Route, failure: ProviderError | CircuitOpen) -> None:
        """Remember why `route` did not answer."""
        reason = failure.reason if isinstance(failure, ProviderError) else "its circuit is open"
        self.attempts.append(Attempt(route.provider, route.model, reason))
        self.only_timeouts = self.only_timeouts and isinstance(failure, ProviderTimeout)

    def out_of_routes(self) -> AnswerFailed:
        """The error for a client when no route is left."""
        if self.chunk_count:
            return StreamInterrupted("The instance that was producing the answer was lost, and nobody could go on.")
        kind = UpstreamTimeout if self.only_timeouts else AllProvidersDown
        return kind(tuple(self.attempts))


class Failover:
    """Gets an answer from the first of some routes that gives one."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        breakers: CircuitBreakers,
        deadlines: Deadlines,
        retry: RetryPolicy,
        delays: Delays,
        publish: Publish,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._deadlines = deadlines
        self._retry = retry
        self._delays = delays
        self._publish = publish
        self._sleep = sleep

    async def answer(self, request: ChatRequest, routes: Sequence[Route], progress: Progress, write: Write) -> None:
        """The whole answer has been written, chunk by chunk, with every change of provider before its chunks.

        Raises:
            AllProvidersDown: no route could answer.
            UpstreamTimeout: none answered in time.
            RequestRejected: a provider refused the request itself; the other routes are not asked.
            StreamInterrupted: the provider was lost after its first chunk.
        """
        try:
            async with asyncio.timeout(self._deadlines.total_s):
                await self._first_to_answer(request, routes, progress, write)
        except TimeoutError:
            if progress.chunk_count:
                raise StreamInterrupted(f"The answer was not whole after {self._deadlines.total_s:g} s.") from None
            raise UpstreamTimeout(tuple(progress.attempts)) from None

    async def _first_to_answer(
        self, request: ChatRequest, routes: Sequence[Route], progress: Progress, write: Write
    ) -> None:
        for route in routes:
            await write(self._turn_to(route, progress))
            try:
                await self._try_route(request, route, progress, write)
            except (ProviderError, CircuitOpen) as failure:
                if progress.has_begun:
                    raise _interrupted(route, progress) from failure
            else:
                return
        raise progress.out_of_routes()

    def _turn_to(self, route: Route, progress: Progress) -> ProviderChange:
        """Make `route` the one that is asked from here on."""
        left, progress.route = progress.route, route
        if left is None and progress.lost_provider:
            return _change("continued", progress.lost_provider, route, "the instance that asked it was lost")
        if left is None:
            return ProviderChange(status="selected", provider=route.provider, model=route.model)
        self._publish(
            FailedOver(
                thread_id=progress.thread_id, previous=left.provider, provider=route.provider, phase="first_token"
            )
        )
        reason = progress.attempts[-1].reason
        return _change("failover", left.provider, route, reason)

    async def _try_route(self, request: ChatRequest, route: Route, progress: Progress, write: Write) -> None:
        """The answer has come from `route`, at its first attempt or a later one."""
        delays: Iterator[float] | None = None
        attempts_left = self._retry.attempts
        while True:
            attempts_left -= 1
            try:
                return await self._attempt(request, route, progress, write)
            except ProviderRejected as failure:
                raise RequestRejected(failure.reason, tuple(progress.attempts), failure.status) from failure
            except ProviderError as failure:
                delays = delays or self._delays()
                delay_s = self._wait_before_retry(failure, next(delays))
                if progress.has_begun or not attempts_left or delay_s is None:
                    raise
                await write(_change("retrying", route.provider, route, failure.reason))
                await self._sleep(delay_s)

    def _wait_before_retry(self, failure: ProviderError, backoff_s: float) -> float | None:
        """The seconds to wait before asking the same route again; None: do not."""
        if not failure.can_retry:
            return None
        if failure.retry_after_s is None:
            return backoff_s
        return failure.retry_after_s if failure.retry_after_s <= self._retry.wish_max_s else None

    async def _attempt(self, request: ChatRequest, route: Route, progress: Progress, write: Write) -> None:
        """One call, told to the circuit: what is our own doing (cancelled, out of time) counts for nothing."""
        outcome, reason = "cancelled", None
        progress.usage = None
        try:
            permit = await self._breakers.acquire(route.provider)
        except CircuitOpen as failure:
            progress.failed(route, failure)
            raise
        try:
            await self._stream(request, route, progress, write, permit)
            outcome = "ok"
        except ProviderError as failure:
            if failure.counts:
                permit.failure()
            outcome, reason = _outcome(failure), failure.reason
            progress.failed(route, failure)
            raise
        except Exception:
            outcome, reason = "defect", "a defect of ours"
            raise
        finally:
            permit.abandon()
            self._publish(
                AttemptEnded(
                    thread_id=progress.thread_id,
                    provider=route.provider,
                    model=route.model,
                    outcome=outcome,
                    reason=reason,
                )
            )

    async def _stream(
        self, request: ChatRequest, route: Route, progress: Progress, write: Write, permit: Permit
    ) -> None:
        """Write one call's chunks, each in time: the first within its deadline, the rest without a stall.

        Once it has said that the answer is whole, its usage and end mark are not needed for a good end.
        """
        loop = asyncio.get_running_loop()
        stall_s = self._deadlines.stall_s
        try:
            async with asyncio.timeout(self._deadlines.first_token_s) as limit:
                async with self._providers[route.provider].open(route, request) as chunks:
                    async for chunk in chunks:
                        progress.usage = chunk.usage or progress.usage
                        if not chunk.is_answer:
                            continue
                        if not progress.has_begun:
                            permit.success()
                        progress.came(chunk)
                        limit.reschedule(loop.time() + stall_s)
                        await write(chunk)
        except TimeoutError:
            if len(progress.finished) < request.choice_count:
                raise ProviderTimeout(self._too_late(progress)) from None

    def _too_late(self, progress: Progress) -> str:
        if progress.has_begun:
            return f"sent nothing for {self._deadlines.stall_s:g} s"
        return f"sent no first token within {self._deadlines.first_token_s:g} s"


def _change(status: str, left: str, to: Route, reason: str) -> ProviderChange:
    return ProviderChange(status=status, provider=to.provider, model=to.model, previous=left, reason=reason)


def _interrupted(route: Route, progress: Progress) -> StreamInterrupted:
    reason = progress.attempts[-1].reason
    return StreamInterrupted(
        f"{route.provider} {reason} after {progress.chunk_count} chunks.", tuple(progress.attempts)
    )


def _outcome(failure: ProviderError) -> str:
    """The failure's kind: unavailable, overloaded, timeout, route_unfit, …"""
    return _BETWEEN_WORDS.sub("_", type(failure).__name__.removeprefix("Provider")).lower()
