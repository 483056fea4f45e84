"""Which routes are tried, and in what order."""

import itertools
import random
from collections import Counter

import pytest

from domain.breaker import provider_of
from domain.errors import AllProvidersDown, Attempt
from domain.selection import Model, Route, Strategy, select_routes

ROUTES = tuple(Route(provider=name, model=f"{name}-{n}") for name, n in ["a1", "b1", "a2", "c1"])
MODEL = Model(name="m", routes=ROUTES)
SHUT = [shut for count in range(3) for shut in itertools.combinations("abc", count)]


@pytest.mark.parametrize("shut", SHUT, ids="".join)
@pytest.mark.parametrize("preferred", [None, "a", "b", "c"])
def test_open_circuits_are_left_out_and_the_preferred_provider_leads(preferred, shut):
    """The catalogue's order stands otherwise."""
    chosen = select_routes(MODEL, preferred, lambda circuit: provider_of(circuit) not in shut, random.random)

    usable = [route for route in ROUTES if route.provider not in shut]
    first = [route for route in usable if route.provider == preferred]
    assert chosen == first + [route for route in usable if route.provider != preferred]


def weighted(weights, preferred=None, shut="", dice=random.random):
    """The providers of a model whose routes have `weights` by provider, as they would be asked."""
    routes = tuple(Route(provider=name, model=name, weight=weight) for name, weight in weights.items())
    model = Model(name="m", routes=routes, strategy=Strategy.WEIGHTED)
    chosen = select_routes(model, preferred, lambda circuit: provider_of(circuit) not in shut, dice)
    return "".join(route.provider for route in chosen)


def test_a_weight_is_the_share_of_requests_that_a_route_is_asked_first():
    """And among the rest, the share of being next."""
    dice = random.Random(1).random
    orders = Counter(weighted({"a": 6, "b": 3, "c": 1}, dice=dice) for _ in range(20_000))
    expected = {"abc": 0.6 * 3 / 4, "acb": 0.6 / 4, "bac": 0.3 * 6 / 7, "bca": 0.3 / 7, "cab": 0.1 * 2 / 3}

    for order, share in expected.items():
        assert orders[order] / 20_000 == pytest.approx(share, abs=0.015)


def test_weighed_routes_too_leave_open_circuits_out_and_let_the_preferred_provider_lead():
    """Chance decides between the rest."""
    orders = {weighted({"a": 1, "b": 1, "c": 1000, "d": 1000}, preferred="a", shut="b") for _ in range(200)}

    assert orders == {"acd", "adc"}


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_any_number_of_the_dice_gives_an_order(number):
    """Also the first and the last that there can be."""
    assert sorted(weighted({"a": 1, "b": 1_000_000}, dice=lambda: number)) == ["a", "b"]


def test_no_route_left_is_all_providers_down():
    """Each with its reason."""
    with pytest.raises(AllProvidersDown) as refused:
        select_routes(MODEL, "a", lambda _: False, random.random)

    assert refused.value.attempts == tuple(
        Attempt(route.provider, route.model, "its circuit is open") for route in ROUTES
    )


def test_a_routes_price_is_by_the_million_tokens_each_way():
    """Read and written tokens have prices of their own."""
    route = Route(provider="a", model="a-1", usd_per_mtok_in=0.15, usd_per_mtok_out=0.6)

    assert route.cost_usd(2_000_000, 500_000) == pytest.approx(0.6)
