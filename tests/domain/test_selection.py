"""Which routes are tried, and in what order."""

import itertools

import pytest

from domain.errors import AllProvidersDown, Attempt
from domain.selection import Model, Route, select_routes

ROUTES = tuple(Route(provider=name, model=f"{name}-{n}") for name, n in ["a1", "b1", "a2", "c1"])
MODEL = Model(name="m", routes=ROUTES)
SHUT = [shut for count in range(3) for shut in itertools.combinations("abc", count)]


@pytest.mark.parametrize("shut", SHUT, ids="".join)
@pytest.mark.parametrize("preferred", [None, "a", "b", "c"])
def test_open_circuits_are_left_out_and_the_preferred_provider_leads(preferred, shut):
    """The catalogue's order stands otherwise."""
    chosen = select_routes(MODEL, preferred, lambda provider: provider not in shut)

    usable = [route for route in ROUTES if route.provider not in shut]
    first = [route for route in usable if route.provider == preferred]
    assert chosen == first + [route for route in usable if route.provider != preferred]


def test_no_route_left_is_all_providers_down():
    """Each with its reason."""
    with pytest.raises(AllProvidersDown) as refused:
        select_routes(MODEL, "a", lambda _: False)

    assert refused.value.attempts == tuple(
        Attempt(route.provider, route.model, "its circuit is open") for route in ROUTES
    )


def test_a_routes_price_is_by_the_million_tokens_each_way():
    """Read and written tokens have prices of their own."""
    route = Route(provider="a", model="a-1", usd_per_mtok_in=0.15, usd_per_mtok_out=0.6)

    assert route.cost_usd(2_000_000, 500_000) == pytest.approx(0.6)
