"""What is known of routes when one is to be chosen: who can be called, whose turn it is, how fast each has been."""

from collections import Counter
from collections.abc import Callable, Sequence

from domain.breaker import circuit_name
from domain.chat import ChatRequest
from domain.concurrency import ProviderSlots
from domain.errors import AllProvidersDown, CircuitOpen, ProviderFull
from domain.ports import CircuitBreakers
from domain.selection import Facts, Model, Route, select_routes
from domain.tokens import estimated_prompt_tokens

_NEWEST_SHARE = 0.2
"""What the latest time to a first token counts for in a route's average."""

_ANSWER_TOKENS = 400
"""How long an answer is taken to be when the request does not limit it further."""


class Routing:
    """Selects routes, and learns from what they do; each instance by itself."""

    def __init__(self, *, breakers: CircuitBreakers, slots: ProviderSlots, random: Callable[[], float]) -> None:
        self._breakers = breakers
        self._slots = slots
        self._random = random
        self._turns: Counter[str] = Counter()
        self._first_token_s: dict[Route, float] = {}

    def took(self, route: Route, seconds: float) -> None:
        """Remember that `route` has taken so long to its first token."""
        before = self._first_token_s.get(route, seconds)
        self._first_token_s[route] = before + _NEWEST_SHARE * (seconds - before)

    def select(self, model: Model, request: ChatRequest) -> Sequence[Route]:
        """The routes that can be called now, in the order in which they are to be tried.

        Raises:
            AllProvidersDown: there are none; `retry_after_s` is the time until there may be one.
        """
        self._turns[model.name] += 1
        facts = Facts(
            obstacle=self._obstacle,
            random=self._random,
            turn=self._turns[model.name] - 1,
            first_token_s=self._first_token_s.get,
            cost_usd=lambda route: _expected_cost_usd(route, request),
        )
        try:
            return select_routes(model, request.provider, facts)
        except AllProvidersDown as down:
            down.retry_after_s = min(map(self._wait_s, model.routes), default=0.0) or None
            raise

    def _obstacle(self, route: Route) -> str | None:
        if not self._breakers.can_try(circuit_name(route.provider, route.model)):
            return CircuitOpen.reason
        return None if self._slots.has_room(route.provider) else ProviderFull.sentence

    def _wait_s(self, route: Route) -> float:
        """Seconds until `route` may be called: its circuit says when, a full provider may have room any moment."""
        wait_s = self._breakers.circuit(circuit_name(route.provider, route.model)).wait_s
        return wait_s if self._slots.has_room(route.provider) else max(wait_s, ProviderFull.retry_after_s)


def _expected_cost_usd(route: Route, request: ChatRequest) -> float:
    limit = request.options.get("max_completion_tokens") or request.options.get("max_tokens")
    answer_tokens = min(_ANSWER_TOKENS, limit) if isinstance(limit, int) else _ANSWER_TOKENS
    return route.cost_usd(estimated_prompt_tokens(request), answer_tokens)
