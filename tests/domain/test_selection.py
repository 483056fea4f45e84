"""Which routes are tried, and in what order."""

import itertools
import random
from collections import Counter

import pytest

from domain.errors import AllProvidersDown, Attempt
from domain.selection import EXPLORED_RATIO, Facts, Model, Route, Strategy, select_routes

ROUTES = tuple(Route(provider=name, model=f"{name}-{n}") for name, n in ["a1", "b1", "a2", "c1"])
MODEL = Model(name="m", routes=ROUTES)
SHUT = [shut for count in range(3) for shut in itertools.combinations("abc", count)]


def facts(shut="", dice=random.random, turn=0, first_token_s=None, cost_usd=None, *, rest_s=None):
    """What is known: providers that are `shut`, and numbers by provider."""
    return Facts(
        obstacle=lambda route: "is shut" if route.provider in shut else None,
        rest_s=lambda route: (rest_s or {}).get(route.provider),
        random=dice,
        turn=turn,
        first_token_s=lambda route: (first_token_s or {}).get(route.provider),
        cost_usd=lambda route: (cost_usd or {})[route.provider],
    )


def chosen(strategy, known, preferred=None, providers="abcd", **route):
    """The providers of a model under `strategy`, as they would be asked."""
    routes = tuple(
        Route(provider=name, model=name, **{key: value[name] for key, value in route.items()}) for name in providers
    )
    model = Model(name="m", routes=routes, strategy=strategy)
    return "".join(route.provider for route in select_routes(model, preferred, known))


@pytest.mark.parametrize("shut", SHUT, ids="".join)
@pytest.mark.parametrize("preferred", [None, "a", "b", "c"])
def test_what_cannot_be_called_is_left_out_and_the_preferred_provider_leads(preferred, shut):
    """The catalogue's order stands otherwise."""
    selected = select_routes(MODEL, preferred, facts(shut))

    usable = [route for route in ROUTES if route.provider not in shut]
    first = [route for route in usable if route.provider == preferred]
    assert selected == first + [route for route in usable if route.provider != preferred]


def test_a_weight_is_the_share_of_requests_that_a_route_is_asked_first():
    """And among the rest, the share of being next."""
    known = facts(dice=random.Random(1).random)
    weights = {"a": 6, "b": 3, "c": 1}
    orders = Counter(chosen(Strategy.WEIGHTED, known, providers="abc", weight=weights) for _ in range(20_000))
    expected = {"abc": 0.6 * 3 / 4, "acb": 0.6 / 4, "bac": 0.3 * 6 / 7, "bca": 0.3 / 7, "cab": 0.1 * 2 / 3}

    for order, share in expected.items():
        assert orders[order] / 20_000 == pytest.approx(share, abs=0.015)


NUMBERS = {"first_token_s": {"a": 0.4, "b": 0.1, "d": 0.2}, "cost_usd": {"a": 4, "b": 1, "c": 3, "d": 2}}


@pytest.mark.parametrize(
    ("strategy", "turn", "order"),
    [
        (Strategy.PRIORITY, 0, "abcd"),
        (Strategy.CHEAPEST, 0, "bdca"),
        (Strategy.FASTEST, 0, "cbda"),
        (Strategy.ROUND_ROBIN, 0, "abcd"),
        (Strategy.ROUND_ROBIN, 2, "cdab"),
        (Strategy.ROUND_ROBIN, 7, "dabc"),
    ],
)
@pytest.mark.parametrize("preferred", [None, "d"])
@pytest.mark.parametrize("shut", ["", "c"])
def test_each_strategy_has_its_order(strategy, turn, order, preferred, shut):
    """Whatever it is, open circuits are left out of it and the preferred provider leads."""
    known = facts(shut, dice=lambda: 0.5, turn=turn, **NUMBERS)
    if shut and strategy is Strategy.ROUND_ROBIN:
        order = {0: "abd", 2: "dab", 7: "bda"}[turn]
    expected = order.replace(shut, "")

    if preferred:
        expected = preferred + expected.replace(preferred, "")
    assert chosen(strategy, known, preferred) == expected


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_any_number_of_the_dice_gives_an_order(strategy, number):
    """Also the first and the last that there can be."""
    weight = {"a": 1, "b": 1_000_000, "c": 3, "d": 1}

    assert sorted(chosen(strategy, facts(dice=lambda: number, **NUMBERS), weight=weight)) == list("abcd")


def test_the_slowest_route_is_asked_first_now_and_then():
    """It may have become the fastest."""
    known = facts(dice=random.Random(1).random, first_token_s={"a": 9.0, "b": 0.1, "c": 0.2, "d": 0.3})
    firsts = Counter(chosen(Strategy.FASTEST, known)[0] for _ in range(20_000))

    assert firsts["a"] / 20_000 == pytest.approx(EXPLORED_RATIO / 4, abs=0.004)
    assert firsts["b"] / 20_000 == pytest.approx(1 - EXPLORED_RATIO * 3 / 4, abs=0.01)


def test_no_route_left_is_all_providers_down():
    """Each with its reason."""
    with pytest.raises(AllProvidersDown) as refused:
        select_routes(MODEL, "a", facts("abc"))

    assert refused.value.attempts == tuple(Attempt(route.provider, route.model, "is shut") for route in ROUTES)


def test_a_routes_price_is_by_the_million_tokens_each_way():
    """Read and written tokens have prices of their own."""
    route = Route(provider="a", model="a-1", usd_per_mtok_in=0.15, usd_per_mtok_out=0.6)

    assert route.cost_usd(2_000_000, 500_000) == pytest.approx(0.6)


@pytest.mark.parametrize("strategy", Strategy)
def test_routes_that_rest_stand_behind_all_others_the_soonest_first(strategy):
    """Whatever the strategy; and alone where there are no others."""
    known = {"first_token_s": {}, "cost_usd": dict.fromkeys("abcd", 1), "rest_s": {"c": 2.0, "b": 1.0}}

    assert chosen(strategy, facts("bc", **known))[2:] == "bc"
    assert chosen(strategy, facts("abcd", **known)) == "bc"
