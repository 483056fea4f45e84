"""Which routes are tried, and in what order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors import AllProvidersDown, Attempt


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
    many tokens question and answer may have together; None: not known. `max_choices` is how many answers a call may ask
    for at once; None: any number.
    """

    provider: str
    model: str
    usd_per_mtok_in: float = 0.0
    usd_per_mtok_out: float = 0.0
    weight: int = 1
    prefill: Prefill = Prefill.NONE
    context_tokens: int | None = None
    max_choices: int | None = None

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens on this route."""
        return (prompt_tokens * self.usd_per_mtok_in + completion_tokens * self.usd_per_mtok_out) / 1_000_000


class Strategy(StrEnum):
    """How the routes of a model are put in order, for each request.

    PRIORITY: as they stand. WEIGHTED: at random, with a share for each. CHEAPEST: by what this request is expected to
    cost. FASTEST: by the time to the first token lately; one that was never tried goes first, and now and then any.
    ROUND_ROBIN: each leads in turn.
    """

    PRIORITY = "priority"
    WEIGHTED = "weighted"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A name that clients ask for, the routes that can answer it, and how these are put in order."""

    name: str
    routes: tuple[Route, ...]
    strategy: Strategy = Strategy.PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a selection goes by.

    `obstacle` says why a route cannot be called now; None: it can. `rest_s` says how soon one that cannot will have had
    the short rest that it has asked for; None: there is nothing to wait for. `random` gives numbers from 0 to below 1.
    `turn` is how many selections the model has had. `first_token_s` is how long a route takes to its first token, None
    when it was never tried; `cost_usd` what this request is expected to cost there.
    """

    obstacle: Callable[[Route], str | None]
    rest_s: Callable[[Route], float | None]
    random: Callable[[], float]
    turn: int
    first_token_s: Callable[[Route], float | None]
    cost_usd: Callable[[Route], float]


EXPLORED_RATIO = 0.05
"""The share of requests under FASTEST that any route may lead: one that has been slow may be so no longer."""


def select_routes(model: Model, preferred: str | None, facts: Facts) -> Sequence[Route]:
    """The routes of `model` that can be called, best first; those of the `preferred` provider lead.

    Behind them stand those that can be waited for.

    Raises:
        AllProvidersDown: there are none of either.
    """
    obstacles = [(route, facts.obstacle(route)) for route in model.routes]
    routes = [route for route, obstacle in obstacles if obstacle is None]
    resting = _soonest(model, facts)
    if not routes and not resting:
        why = (Attempt(route.provider, route.model, obstacle or "") for route, obstacle in obstacles)
        raise AllProvidersDown(tuple(why))
    ordered = ORDERS[model.strategy](routes, facts)
    return [*sorted(ordered, key=lambda route: route.provider != preferred), *resting]


def _soonest(model: Model, facts: Facts) -> Sequence[Route]:
    """The routes that are worth waiting for, the soonest first."""
    rests_s = [(rest_s, place) for place, route in enumerate(model.routes) if (rest_s := facts.rest_s(route))]
    return [model.routes[place] for _, place in sorted(rests_s)]


Order = Callable[[Sequence[Route], Facts], Sequence[Route]]


def _weighted(routes: Sequence[Route], facts: Facts) -> Sequence[Route]:
    """Source: Efraimidis and Spirakis (2006), "Weighted random sampling"."""
    return sorted(routes, key=lambda route: facts.random() ** (1 / route.weight), reverse=True)


def _fastest(routes: Sequence[Route], facts: Facts) -> Sequence[Route]:
    by_speed = sorted(routes, key=lambda route: (facts.first_token_s(route) or 0.0, facts.random()))
    if not by_speed or facts.random() >= EXPLORED_RATIO:
        return by_speed
    lucky = by_speed.pop(int(facts.random() * len(by_speed)))
    return [lucky, *by_speed]


def _round_robin(routes: Sequence[Route], facts: Facts) -> Sequence[Route]:
    first = facts.turn % max(1, len(routes))
    return [*routes[first:], *routes[:first]]


ORDERS: Mapping[Strategy, Order] = {
    Strategy.PRIORITY: lambda routes, _: routes,
    Strategy.WEIGHTED: _weighted,
    Strategy.CHEAPEST: lambda routes, facts: sorted(routes, key=facts.cost_usd),
    Strategy.FASTEST: _fastest,
    Strategy.ROUND_ROBIN: _round_robin,
}
"""The order of routes under each strategy."""
