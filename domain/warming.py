"""Asking ahead, so that answers are stored before anybody waits for them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from domain.answer import Answer
from domain.chat import OPERATOR, WHOLE_REASONS, ChatRequest
from domain.errors import FieldError, InvalidRequest, WeirError
from domain.fingerprint import CacheScope
from domain.generation import Sealed
from domain.lifecycle import Ask, Lifecycle

_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """What became of so many questions: stored already, answered and stored now, or failed, by the reason's code."""

    asked: int
    stored_already: int
    answered: int
    failed: Mapping[str, int]


class Warming:
    """Asks at most `concurrency` questions at once, and `per_s` a second that are not stored already."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        scope: CacheScope,
        per_s: float,
        concurrency: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lifecycle = lifecycle
        self._scope = scope
        self._interval_s = 1 / per_s
        self._lanes = asyncio.Semaphore(concurrency)
        self._clock = clock
        self._sleep = sleep
        self._next_s = 0.0

    async def warm(self, requests: Sequence[ChatRequest], thread_id: str) -> Warmed:
        """Every question has been asked, and its answer is stored if it could be.

        Raises:
            InvalidRequest: answers are not shared, so nobody would be served what an operator asks.
        """
        if self._scope is not CacheScope.SHARED:
            reason = f"{self._scope.value}: only answers that are shared with everybody can be asked for ahead"
            raise InvalidRequest(FieldError("WEIR_CACHE_SCOPE", reason))
        outcomes = Counter(await asyncio.gather(*(self._ask(request, thread_id) for request in requests)))
        stored_already, answered = outcomes.pop("stored_already", 0), outcomes.pop("answered", 0)
        return Warmed(asked=len(requests), stored_already=stored_already, answered=answered, failed=outcomes)

    async def _ask(self, request: ChatRequest, thread_id: str) -> str:
        """What became of one question, in a word."""
        async with self._lanes:
            await self._sleep(max(0.0, self._next_s - self._clock()))
            try:
                answer = await self._lifecycle.ask(Ask(request=request, caller=OPERATOR, thread_id=thread_id))
            except WeirError as refusal:
                return refusal.code
            if answer.cache.is_hit:
                answer.served_whole()
                return "stored_already"
            self._next_s = max(self._next_s, self._clock()) + self._interval_s
            return _outcome(await _read(answer))


async def _read(answer: Answer) -> Sealed:
    """The end of the answer, once it is there; the answer is closed."""
    try:
        while not (sealed := answer.generation.sealed):
            answer.served(await answer.reader.read(_SILENCE_S))
        return sealed
    finally:
        answer.close()


def _outcome(sealed: Sealed) -> str:
    if sealed.failure:
        return sealed.failure.code
    return "answered" if sealed.finish_reason in WHOLE_REASONS else "not_stored"
