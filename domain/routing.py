"""What is known of routes when one is to be chosen: who can be called, whose turn it is, how fast each has been."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from domain.breaker import circuit_name
from domain.chat import ChatRequest
from domain.concurrency import ProviderSlots
from domain.errors import AllProvidersDown, ProviderFull, why_left_alone
from domain.ports import CircuitBreakers
from domain.selection import Facts, Model, Route, select_routes
from domain.tokens import estimated_prompt_tokens

_NEWEST_SHARE = 0.2
"""What the latest time to a first token counts for in a route's average."""

_MOST_FAILURES = 16
"""Each failure since a route's last first token doubles what the next one is expected to take; with so many it is last
of all."""

_ANSWER_TOKENS = 400
"""How long an answer is taken to be when the request does not limit it further."""


class Routing:
    """Selects routes, and learns from what they do; each instance by itself.

    One that has asked for a rest of `wish_max_s` at most is worth waiting for.
    """

    def __init__(
        self, *, breakers: CircuitBreakers, slots: ProviderSlots, random: Callable[[], float], wish_max_s: float = 0.0
    ) -> None:
        self._wish_max_s = wish_max_s
        self._breakers = breakers
        self._slots = slots
        self._random = random
        self._turns: Counter[str] = Counter()
        self._first_token_s: dict[Route, float] = {}
        self._failures: Counter[Route] = Counter()
        self._led: set[Route] = set()

    def took(self, route: Route, seconds: float) -> None:
        """Remember that `route` has taken so long to its first token; that it has failed before is forgiven."""
        self._learn(route, seconds)
        self._failures.pop(route, None)

    def lost(self, route: Route, seconds: float) -> None:
        """Remember that `route` would have taken longer than that, if it is news."""
        if seconds > self._first_token_s.get(route, 0.0):
            self._learn(route, seconds)

    def failed(self, route: Route) -> None:
        """Remember that `route` has failed since its last first token."""
        self._failures[route] = min(self._failures[route] + 1, _MOST_FAILURES)

    def _learn(self, route: Route, seconds: float) -> None:
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
            rest_s=self._rest_s,
            random=self._random,
            turn=self._turns[model.name] - 1,
            first_token_s=self._expected_s,
            cost_usd=lambda route: _expected_cost_usd(route, request),
        )
        try:
            routes = select_routes(model, request.provider, facts)
        except AllProvidersDown as down:
            down.retry_after_s = min(map(self._wait_s, model.routes), default=0.0) or None
            raise
        self._led.add(routes[0])
        return routes

    def _expected_s(self, route: Route) -> float | None:
        """How long a first token is expected to take: for ever where there was none yet; None: it was never tried."""
        known_s = self._first_token_s.get(route)
        if known_s is None:
            return math.inf if route in self._led else None
        return known_s * 2.0 ** self._failures[route]

    def _obstacle(self, route: Route) -> str | None:
        circuit = circuit_name(route.provider, route.model)
        if not self._breakers.can_try(circuit):
            return why_left_alone(is_resting=self._breakers.circuit(circuit).is_resting)
        return None if self._slots.has_room(route.provider) else ProviderFull.sentence

    def _rest_s(self, route: Route) -> float | None:
        circuit = self._breakers.circuit(circuit_name(route.provider, route.model))
        return circuit.wait_s if circuit.is_resting and circuit.wait_s <= self._wish_max_s else None

    def _wait_s(self, route: Route) -> float:
        """Seconds until `route` may be called: its circuit says when, a full provider may have room any moment."""
        wait_s = self._breakers.circuit(circuit_name(route.provider, route.model)).wait_s
        return wait_s if self._slots.has_room(route.provider) else max(wait_s, ProviderFull.retry_after_s)


def _expected_cost_usd(route: Route, request: ChatRequest) -> float:
    limit = request.options.get("max_completion_tokens") or request.options.get("max_tokens")
    answer_tokens = min(_ANSWER_TOKENS, limit) if isinstance(limit, int) else _ANSWER_TOKENS
    return route.cost_usd(estimated_prompt_tokens(request), answer_tokens)
