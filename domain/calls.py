"""One call of a provider: let through by its circuit, held to its deadlines, and told to both when it has ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from domain.breaker import circuit_name
from domain.chat import ChatRequest, Chunk
from domain.concurrency import ProviderSlots
from domain.errors import (
    AnswerEmpty,
    CircuitOpen,
    PrefixRefused,
    ProviderError,
    ProviderFull,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderTimeout,
)
from domain.events import AttemptEnded, Publish
from domain.generation import Record
from domain.ports import CircuitBreakers, Permit, Provider
from domain.progress import Progress, Share
from domain.reactions import reaction_to
from domain.selection import Route
from domain.splice import Splice

Write = Callable[[Record], Awaitable[None]]


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
    `on_first` is awaited before the first chunk is written. `permit` is its circuit's, once it has one; `share` is what
    it has given, once it has begun to.
    """

    route: Route
    request: ChatRequest
    splice: Splice | None = None
    is_prefilled: bool = False
    may_be_empty: bool = True
    on_first: Callable[[], Awaitable[None]] | None = None
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


class Calls:
    """Makes calls, as many at once as `slots` has. `on_first_token` is told of each one's time to it, in seconds."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        breakers: CircuitBreakers,
        deadlines: Deadlines,
        publish: Publish,
        slots: ProviderSlots,
        on_first_token: Callable[[Route, float], object] = lambda _route, _seconds: None,
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._deadlines = deadlines
        self._publish = publish
        self._slots = slots
        self._on_first_token = on_first_token

    async def make(self, call: Call, progress: Progress, write: Write) -> None:
        """The answer, or the rest of it, has been written; what is our own doing says nothing of the provider.

        Raises:
            CircuitOpen, ProviderFull: it was not made.
            ProviderError: it failed, before its first chunk or after.
        """
        provider = call.route.provider
        try:
            self._slots.take(provider)
        except ProviderFull as failure:
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
        try:
            await self._stream(call, progress, write)
            outcome = "ok"
        except ProviderError as failure:
            meant = call.meant(failure)
            outcome, reason = reaction_to(meant).outcome, meant.reason
            if reaction_to(meant).counts:
                permit.failure()
            progress.failed(call.route, meant)
            if meant is failure:
                raise
            raise meant from failure
        except Exception:
            outcome, reason = "defect", "a defect of ours"
            raise
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

    async def _stream(self, call: Call, progress: Progress, write: Write) -> None:
        """Write the chunks, each in time: the first within its deadline, the rest without a stall.

        Once it has said that the answer is whole, its usage and end mark are not needed for a good end.
        """
        try:
            async with asyncio.timeout(self._deadlines.first_token_s) as limit:
                async with self._providers[call.route.provider].open(call.route, call.request) as chunks:
                    await self._pass_on(call, chunks, progress, write, limit)
        except (TimeoutError, ProviderError) as failure:
            if len(progress.finished) >= call.request.choice_count:
                return
            if isinstance(failure, TimeoutError):
                raise ProviderTimeout(self._too_late(call)) from None
            raise

    async def _pass_on(
        self,
        call: Call,
        chunks: AsyncIterator[Chunk],
        progress: Progress,
        write: Write,
        limit: asyncio.Timeout,
    ) -> None:
        """Write those of `chunks` that are part of the answer, and new; each puts off `limit`."""
        loop, stall_s, splice = asyncio.get_running_loop(), self._deadlines.stall_s, call.splice
        began_s, share = loop.time(), Share(route=call.route, request=call.request)
        async for chunk in chunks:
            share.usage = chunk.usage or share.usage
            if not chunk.is_answer:
                continue
            if call.share is None:
                if not call.may_be_empty and _is_empty(chunk):
                    raise AnswerEmpty
                await self._begin(call, share, progress, loop.time() - began_s)
            limit.reschedule(loop.time() + stall_s)
            share.chunks.append(chunk)
            if new := chunk if splice is None else splice.join(chunk):
                progress.came(new)
                await write(new)
        if splice is not None and not progress.finished and (rest := splice.finish()):
            progress.came(Chunk(rest))
            await write(Chunk(rest))

    async def _begin(self, call: Call, share: Share, progress: Progress, seconds: float) -> None:
        """The call has its first chunk, after so many seconds."""
        if call.permit is not None:
            call.permit.success()
        self._on_first_token(call.route, seconds)
        if call.on_first is not None:
            await call.on_first()
        call.share = share
        progress.shares.append(share)

    def _too_late(self, call: Call) -> str:
        if call.share is not None:
            return f"sent nothing for {self._deadlines.stall_s:g} s"
        return f"sent no first token within {self._deadlines.first_token_s:g} s"


def _is_empty(first: Chunk) -> bool:
    """Whether an answer whose first chunk that is has ended by itself before it has said anything."""
    return first.finish_reason == "stop" and not (first.content or first.delta)
