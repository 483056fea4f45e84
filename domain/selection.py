"""Which routes are tried, and in what order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors import AllProvidersDown, Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to have a model's answer: a provider and its own name for the model.

    Prices are US dollars for a million tokens. `weight` is the route's share under a weighing strategy.
    """

    provider: str
    model: str
    usd_per_mtok_in: float = 0.0
    usd_per_mtok_out: float = 0.0
    weight: int = 1

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens on this route."""
        return (prompt_tokens * self.usd_per_mtok_in + completion_tokens * self.usd_per_mtok_out) / 1_000_000


class Strategy(StrEnum):
    """How the routes of a model are put in order."""

    PRIORITY = "priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A name that clients ask for, and the routes that can answer it, the preferred one first."""

    name: str
    routes: tuple[Route, ...]
    strategy: Strategy = Strategy.PRIORITY


def select_routes(model: Model, preferred: str | None, can_try: Callable[[str], bool]) -> Sequence[Route]:
    """The routes of `model` worth trying, best first: the `preferred` provider's lead, open circuits are left out.

    Raises:
        AllProvidersDown: every route's circuit is open.
    """
    routes = [route for route in model.routes if can_try(route.provider)]
    if not routes:
        raise AllProvidersDown(
            tuple(Attempt(route.provider, route.model, "its circuit is open") for route in model.routes)
        )
    return sorted(routes, key=lambda route: route.provider != preferred)
