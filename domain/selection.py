"""Which routes are tried, and in what order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.breaker import circuit_name
from domain.errors import AllProvidersDown, Attempt, CircuitOpen


class Prefill(StrEnum):
    """How a route is given the beginning of an answer, to go on with it.

    ASSISTANT: a last message of the assistant, which the model goes on with. DEEPSEEK: the same, marked
    `"prefix": true`. NONE: the route would begin anew, so the rest is asked for in words.
    """

    ASSISTANT = "assistant"
    DEEPSEEK = "deepseek"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to have a model's answer: a provider and its own name for the model.

    Prices are US dollars for a million tokens. `weight` is the route's share under WEIGHTED. `context_tokens` is how
    many tokens question and answer may have together; None: not known.
    """

    provider: str
    model: str
    usd_per_mtok_in: float = 0.0
    usd_per_mtok_out: float = 0.0
    weight: int = 1
    prefill: Prefill = Prefill.NONE
    context_tokens: int | None = None

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens on this route."""
        return (prompt_tokens * self.usd_per_mtok_in + completion_tokens * self.usd_per_mtok_out) / 1_000_000


class Strategy(StrEnum):
    """How the routes of a model are put in order: as they stand, or at random with a share for each."""

    PRIORITY = "priority"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A name that clients ask for, the routes that can answer it, and how these are put in order."""

    name: str
    routes: tuple[Route, ...]
    strategy: Strategy = Strategy.PRIORITY


def select_routes(
    model: Model, preferred: str | None, can_try: Callable[[str], bool], random: Callable[[], float]
) -> Sequence[Route]:
    """The routes of `model` worth trying, best first: the `preferred` provider's lead, open circuits are left out.

    `random` gives numbers from 0 to below 1.

    Raises:
        AllProvidersDown: every route's circuit is open.
    """
    routes = [route for route in model.routes if can_try(circuit_name(route.provider, route.model))]
    if not routes:
        raise AllProvidersDown(
            tuple(Attempt(route.provider, route.model, CircuitOpen.reason) for route in model.routes)
        )
    if model.strategy is Strategy.WEIGHTED:  # Source: Efraimidis and Spirakis (2006), "Weighted random sampling"
        routes.sort(key=lambda route: random() ** (1 / route.weight), reverse=True)
    return sorted(routes, key=lambda route: route.provider != preferred)
