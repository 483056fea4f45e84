"""How an answer is got from routes that may fail: retry on the same route, then the next one, for all or for the rest.

What is done about each way of failing is the table in domain/reactions.py. Before the first token the next route is
asked for the answer; after it, for the rest of it, where that can be asked for and joined (domain/continuation.py,
domain/splice.py). What was sent is never taken back: what cannot be gone on with is interrupted.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from domain.breaker import circuit_name
from domain.calls import Call, Calls, Write
from domain.chat import ChatRequest, Chunk
from domain.continuation import can_continue, continued, prefill_for
from domain.errors import (
    AnswerEmpty,
    CircuitOpen,
    ProviderDeferred,
    ProviderError,
    ProviderRejected,
    RequestRejected,
    StreamInterrupted,
    UpstreamTimeout,
)
from domain.events import FailedOver, Publish
from domain.generation import ProviderChange
from domain.hedging import Hedging
from domain.ports import CircuitBreakers
from domain.progress import Progress
from domain.reactions import Elsewhere, Here, reaction_to
from domain.retrying import Delays, RetryBudgets, RetryPolicy
from domain.selection import Prefill, Route
from domain.splice import Splice
from domain.values import value

_EARLY_S = 0.002
"""A timer may go off so much early, and who comes before the end of a rest is not let through."""


@value
class _Errand:
    """What is asked, what has come of it, and where that goes."""

    request: ChatRequest
    progress: Progress
    write: Write


class Failover:
    """Gets an answer from the first of some routes that gives one, and its rest from the next ones.

    `total_s` is how long all of it may take. Unless it `continues`, what is lost after its first token is interrupted.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        breakers: CircuitBreakers,
        budgets: RetryBudgets,
        total_s: float,
        retry: RetryPolicy,
        delays: Delays,
        publish: Publish,
        continues: bool = True,
        hedging: Hedging | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._calls = calls
        self._breakers = breakers
        self._budgets = budgets
        self._total_s = total_s
        self._retry = retry
        self._delays = delays
        self._publish = publish
        self._continues = continues
        self._hedging = hedging
        self._sleep = sleep

    async def answer(self, request: ChatRequest, routes: Sequence[Route], progress: Progress, write: Write) -> None:
        """The whole answer has been written, chunk by chunk, with every change of provider before its chunks.

        What `progress` has already is gone on with.

        Raises:
            AllProvidersDown: no route could answer.
            UpstreamTimeout: none answered in time.
            RequestRejected: a provider refused the request itself; the other routes are not asked.
            StreamInterrupted: the answer was lost after its first chunk, and nobody could go on.
        """
        try:
            async with asyncio.timeout(self._total_s) as limit:
                await self._first_to_answer(_Errand(request=request, progress=progress, write=write), routes)
        except TimeoutError:
            if not limit.expired():
                raise
            if len(progress.finished) >= request.choice_count:
                return
            if progress.chunks:
                raise StreamInterrupted(f"The answer was not whole after {self._total_s:g} s.") from None
            raise UpstreamTimeout(tuple(progress.attempts)) from None

    async def _first_to_answer(self, errand: _Errand, routes: Sequence[Route]) -> None:
        progress, left = errand.progress, list(routes)
        empty: Route | None = None
        while left and self._can_go_on(errand):
            route, *left = left
            is_again, is_rest = route is progress.route, bool(progress.chunks)
            if is_again and not self._budgets.take(route.provider):
                break
            await errand.write(self._turn_to(route, progress))
            may_be_empty = not left or empty is not None or errand.request.choice_count > 1
            try:
                return await self._try_route(errand, route, left, is_extra=is_again, may_be_empty=may_be_empty)
            except AnswerEmpty:
                empty = progress.route
            except (ProviderError, CircuitOpen) as failure:
                if isinstance(failure, ProviderRejected) and not is_rest:
                    left = _larger(left, route, failure, progress)
                elif progress.chunks:
                    left = _for_the_rest(left, failure, progress, is_rest=is_rest)
        if empty is None or progress.chunks:
            raise progress.out_of_routes()
        return await self._take_empty(errand, empty)

    async def _take_empty(self, errand: _Errand, route: Route) -> None:
        """What `route` had to say was nothing; as nobody else had anything, that is the answer."""
        await errand.write(self._turn_to(route, errand.progress))
        end = Chunk(finish_reason="stop")
        errand.progress.came(end)
        await errand.write(end)

    def _can_go_on(self, errand: _Errand) -> bool:
        """Whether the answer has not begun, or its rest can be asked for."""
        chunks = errand.progress.chunks
        return not chunks or (self._continues and can_continue(errand.request, chunks))

    def _turn_to(self, route: Route, progress: Progress) -> ProviderChange:
        """Make `route` the one that is asked from here on."""
        left, progress.route = progress.route, route
        if left is None and progress.lost_provider:
            return _change("continued", progress.lost_provider, route, "the instance that asked it was lost")
        if left is None:
            return ProviderChange(status="selected", provider=route.provider, model=route.model)
        phase, status = ("midstream", "continued") if progress.chunks else ("first_token", "failover")
        self._tell_of_change(left, route, phase, progress)
        return _change(status, left.provider, route, progress.attempts[-1].reason)

    def _tell_of_change(self, left: Route, route: Route, phase: str, progress: Progress) -> None:
        self._publish(
            FailedOver(thread_id=progress.thread_id, previous=left.provider, provider=route.provider, phase=phase)
        )

    async def _try_route(
        self, errand: _Errand, route: Route, others: Sequence[Route], *, is_extra: bool, may_be_empty: bool
    ) -> None:
        """The answer, or its rest, has come from `route`, at its first attempt or a later one."""
        progress = errand.progress
        came, attempts_left, delays = progress.chunk_count, self._retry.attempts, None
        while True:
            attempts_left -= 1
            try:
                return await self._ask(errand, route, others, is_extra=is_extra, may_be_empty=may_be_empty)
            except (ProviderError, CircuitOpen) as failure:
                was_made = isinstance(failure, ProviderError)
                delays = delays or self._delays()
                delay_s = self._wait_before_retry(failure, next(delays), is_last=not others)
                if progress.chunk_count > came or not attempts_left or delay_s is None:
                    raise
                if was_made and not self._budgets.take(route.provider):
                    raise
                is_extra = is_extra or was_made
                await errand.write(_change("retrying", route.provider, route, failure.reason))
                await self._sleep(delay_s)

    async def _ask(
        self, errand: _Errand, route: Route, others: Sequence[Route], *, is_extra: bool, may_be_empty: bool
    ) -> None:
        """One attempt: for the answer, or for its rest."""
        if errand.progress.chunks:
            return await self._ask_for_rest(errand, route, is_extra=is_extra)
        call = Call(route=route, request=errand.request, is_extra=is_extra, may_be_empty=may_be_empty)
        if self._hedging is None or not others or not self._breakers.can_try(_circuit(others[0])):
            return await self._make(call, errand)
        return await self._hedged(self._hedging, call, others[0], errand)

    async def _ask_for_rest(self, errand: _Errand, route: Route, *, is_extra: bool) -> None:
        """One attempt to have the rest; who was given the beginning as a prefix, to no use, is asked in words."""
        text = errand.progress.text
        prefill = prefill_for(text, route)
        try:
            return await self._make(_call_for_rest(errand, route, prefill, is_extra=is_extra), errand)
        except ProviderError as failure:
            is_asked_in_words = prefill is not Prefill.NONE and reaction_to(failure).here is Here.IN_WORDS
            if not is_asked_in_words or errand.progress.text != text or not self._budgets.take(route.provider):
                raise
        return await self._make(_call_for_rest(errand, route, Prefill.NONE, is_extra=True), errand)

    def _make(self, call: Call, errand: _Errand) -> Coroutine[Any, Any, None]:
        return self._calls.make(call, errand.progress, errand.write)

    async def _hedged(self, hedging: Hedging, call: Call, other: Route, errand: _Errand) -> None:
        """The answer has come from `call`, or from `other` if that was asked too and was faster."""

        async def turn() -> None:
            left, errand.progress.route = call.route, other
            self._tell_of_change(left, other, "hedge", errand.progress)
            await errand.write(_change("failover", left.provider, other, "was slower than it usually is"))

        second = Call(route=other, request=call.request, may_be_empty=call.may_be_empty, on_first=turn, is_extra=True)
        await hedging.race(
            call,
            second,
            make=lambda each: self._make(each, errand),
            may_call_more=lambda: self._budgets.take(call.route.provider),
        )

    def _wait_before_retry(
        self, failure: ProviderError | CircuitOpen, backoff_s: float, *, is_last: bool
    ) -> float | None:
        """The seconds to wait before asking the route again; None: do not.

        Who waits for the end of a rest comes a random time after it: others wait for it too.
        """
        backoff_s = max(backoff_s, _EARLY_S)
        if isinstance(failure, CircuitOpen):
            is_worth_it = is_last and failure.is_resting and failure.retry_after_s <= self._retry.wish_max_s
            return failure.retry_after_s + backoff_s if is_worth_it else None
        match reaction_to(failure).here:
            case Here.BACKOFF:
                return backoff_s
            case Here.WISH if isinstance(failure, ProviderDeferred):
                is_short = failure.retry_after_s <= self._retry.wish_max_s
                return failure.retry_after_s + backoff_s if is_short else None
        return None


def _circuit(route: Route) -> str:
    return circuit_name(route.provider, route.model)


def _call_for_rest(errand: _Errand, route: Route, prefill: Prefill, *, is_extra: bool) -> Call:
    text, is_prefilled = errand.progress.text, prefill is not Prefill.NONE
    return Call(
        route=route,
        request=continued(errand.request, text, prefill, errand.progress.used_tokens),
        splice=Splice(text, is_prefilled=is_prefilled),
        is_prefilled=is_prefilled,
        is_extra=is_extra,
    )


def _larger(left: Sequence[Route], asked: Route, failure: ProviderRejected, progress: Progress) -> list[Route]:
    """Those of `left` that may take what was too long for `asked`.

    Raises:
        RequestRejected: there are none, or the request is wrong for all.
    """
    if reaction_to(failure).elsewhere is Elsewhere.LARGER and not progress.chunks:
        larger = [route for route in left if (route.context_tokens or 0) > (asked.context_tokens or math.inf)]
        if larger:
            return larger
    raise RequestRejected(failure.reason, tuple(progress.attempts), failure.status) from failure


def _for_the_rest(
    left: Sequence[Route], failure: ProviderError | CircuitOpen, progress: Progress, *, is_rest: bool
) -> list[Route]:
    """Who is asked for the rest: the others, or where there are none the same once more, if a second try may help."""
    asked = progress.route
    others = [route for route in left if route is not asked]
    if others or is_rest or asked is None or reaction_to(failure).here in {Here.NO, Here.IN_WORDS}:
        return others
    return [asked]


def _change(status: str, left: str, to: Route, reason: str) -> ProviderChange:
    return ProviderChange(status=status, provider=to.provider, model=to.model, previous=left, reason=reason)
