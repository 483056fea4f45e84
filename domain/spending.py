"""Stage 3: who would cause work spends a request, and reserves what the answer may take."""

from collections.abc import Sequence

from domain.chat import Caller, ChatRequest
from domain.errors import RateLimited
from domain.generation import Sealed
from domain.limiting import Quota
from domain.ports import RateLimiter, UsageLimiter
from domain.selection import Route
from domain.usage import NOTHING, Reservation, estimate, used


class Spending:
    """What callers spend."""

    def __init__(self, limiter: RateLimiter, usage: UsageLimiter) -> None:
        self._limiter = limiter
        self._usage = usage

    async def begin(self, caller: Caller, request: ChatRequest, routes: Sequence[Route]) -> "Spent":
        """One request is spent, and what its answer may take is reserved.

        Raises:
            RateLimited: by the limit that says no; nothing is spent.
        """
        try:
            await self._limiter.spend(caller)
            try:
                reservation = await self._usage.reserve(caller, estimate(request, routes))
            except BaseException:
                self._limiter.refund(caller)
                raise
        except RateLimited as refused:
            refused.quotas = self.quotas(caller)
            raise
        return Spent(self._limiter, self._usage, caller, reservation)

    def quotas(self, caller: Caller) -> tuple[Quota, ...]:
        """What the caller has left, as far as is known here; a limit that it has not is left out."""
        return tuple(filter(None, (self._limiter.quota(caller), self._usage.quota(caller))))


class Spent:
    """What one request has spent."""

    __slots__ = ("_caller", "_limiter", "_reservation", "_usage")

    def __init__(
        self, limiter: RateLimiter, usage: UsageLimiter, caller: Caller, reservation: Reservation | None
    ) -> None:
        self._limiter = limiter
        self._usage = usage
        self._caller = caller
        self._reservation = reservation

    def give_back(self) -> None:
        """The request has caused no work: nothing is spent."""
        self._limiter.refund(self._caller)
        if self._reservation is not None:
            self._usage.settle(self._reservation, NOTHING)

    def settle(self, sealed: Sealed | None) -> None:
        """The answer has ended and took what `sealed` says; None: it was there already, and took nothing."""
        use = NOTHING if sealed is None else used(sealed)
        if self._reservation is not None and use is not None:
            self._usage.settle(self._reservation, use)
