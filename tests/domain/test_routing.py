"""What an instance knows of routes, and how many calls it has open."""

import pytest

from domain.breaker import BreakerPolicy
from domain.chat import ChatRequest, Chunk
from domain.concurrency import ProviderSlots
from domain.errors import AllProvidersDown, Attempt, ProviderFull
from domain.events import AttemptEnded
from domain.routing import Routing
from domain.selection import Model, Route, Strategy
from tests.domain.failing import STOP, WHOLE, Subject
from tests.domain.service import Service
from tests.fakes import FakeCircuitBreakers, FakeClock

pytestmark = pytest.mark.anyio

ASKED = ChatRequest(model="m", messages=({"role": "user", "content": "x" * 350},))
DEAR_TO_READ = Route(provider="a", model="a-1", usd_per_mtok_in=10, usd_per_mtok_out=1)
DEAR_TO_WRITE = Route(provider="b", model="b-1", usd_per_mtok_in=1, usd_per_mtok_out=10)


class Known:
    """A routing over a and b, and its circuits."""

    def __init__(self, wish_max_s=0.0, **limits):
        clock = FakeClock()
        policy = BreakerPolicy(failures=1, window=1, open_s=64.0)
        self.breakers = FakeCircuitBreakers(policy=policy, publish=lambda _: None, clock=clock)
        self.slots = ProviderSlots(limits)
        self.routing = Routing(breakers=self.breakers, slots=self.slots, random=lambda: 0.5, wish_max_s=wish_max_s)

    def order(self, strategy, request=ASKED):
        model = Model(name="m", routes=(DEAR_TO_READ, DEAR_TO_WRITE), strategy=strategy)
        return "".join(route.provider for route in self.routing.select(model, request))


@pytest.mark.parametrize(
    ("chars", "options", "order"),
    [(350, {}, "ab"), (350, {"max_tokens": 10}, "ba"), (35_000, {}, "ba"), (35_000, {"max_tokens": 10**6}, "ba")],
)
def test_the_cheapest_route_is_that_for_this_very_request(chars, options, order):
    """A long question and a short answer are cheap where reading is, and the other way round."""
    request = ChatRequest(model="m", messages=({"role": "user", "content": "x" * chars},), options=options)

    assert Known().order(Strategy.CHEAPEST, request) == order


def test_the_fastest_route_is_the_one_that_has_been_so_lately():
    """One slow answer is not enough to be the slower; some are."""
    known = Known()
    known.routing.took(DEAR_TO_READ, 0.2)
    assert known.order(Strategy.FASTEST) == "ba", "what is not known yet is tried"
    known.routing.took(DEAR_TO_WRITE, 0.4)
    assert known.order(Strategy.FASTEST) == "ab"

    known.routing.took(DEAR_TO_READ, 0.9)
    assert known.order(Strategy.FASTEST) == "ab"
    known.routing.took(DEAR_TO_READ, 0.9)
    assert known.order(Strategy.FASTEST) == "ba"


def test_a_route_that_is_not_known_leads_until_it_was_tried():
    """One that has no first token to show is behind those that have."""
    known = Known()
    known.routing.took(DEAR_TO_READ, 0.2)

    assert [known.order(Strategy.FASTEST) for _ in range(3)] == ["ba", "ab", "ab"]
    known.routing.failed(DEAR_TO_WRITE)
    assert known.order(Strategy.FASTEST) == "ab"
    known.routing.took(DEAR_TO_WRITE, 0.1)
    assert known.order(Strategy.FASTEST) == "ba"


def test_a_route_that_fails_is_no_fast_one():
    """Each failure since its last first token doubles what is expected of it, however fast it was to fail."""
    known = Known()
    known.routing.took(DEAR_TO_READ, 0.3)
    known.routing.took(DEAR_TO_WRITE, 0.8)
    known.routing.failed(DEAR_TO_READ)
    assert known.order(Strategy.FASTEST) == "ab", "0.6 s"
    known.routing.failed(DEAR_TO_READ)
    assert known.order(Strategy.FASTEST) == "ba", "1.2 s"

    for _ in range(2000):
        known.routing.failed(DEAR_TO_READ)
    known.routing.took(DEAR_TO_READ, 0.3)

    assert known.order(Strategy.FASTEST) == "ab", "one first token, and it is forgiven"


def test_a_route_that_was_ended_for_being_slow_is_known_to_be():
    """One that was ended before it could be slow is not known to be fast."""
    known = Known()
    known.routing.took(DEAR_TO_READ, 0.3)
    known.routing.took(DEAR_TO_WRITE, 0.4)
    known.routing.lost(DEAR_TO_WRITE, 0.01)
    assert known.order(Strategy.FASTEST) == "ab"

    known.routing.lost(DEAR_TO_READ, 3.0)

    assert known.order(Strategy.FASTEST) == "ba"


@pytest.mark.parametrize(("rest_s", "order"), [(2.0, "ba"), (2.5, "b")])
def test_a_route_that_rests_for_a_short_while_is_the_last_resort(rest_s, order):
    """Where there is none that can be called, it is waited for."""
    known = Known(wish_max_s=2.0)
    known.breakers.rest("a/a-1", rest_s)
    assert known.order(Strategy.PRIORITY) == order

    known.breakers.rest("b/b-1", 1.0)

    assert known.order(Strategy.PRIORITY) == order


def test_each_route_leads_in_turn():
    """For each model by itself."""
    known = Known()

    assert [known.order(Strategy.ROUND_ROBIN) for _ in range(3)] == ["ab", "ba", "ab"]


def test_a_full_provider_is_passed_over():
    """Until a call has ended."""
    known = Known(a=1)
    known.slots.take("a")
    assert known.order(Strategy.PRIORITY) == "b"

    known.slots.give_back("a")
    assert known.order(Strategy.PRIORITY) == "ab"


async def test_it_is_known_when_to_come_back():
    """In a second where a call may end; when the circuit says where that is open."""
    known = Known(a=1)
    known.slots.take("a")
    (await known.breakers.acquire("b/b-1")).failure()

    with pytest.raises(AllProvidersDown) as down:
        known.order(Strategy.PRIORITY)

    assert down.value.retry_after_s == 1.0
    assert [attempt.reason for attempt in down.value.attempts] == [
        "has as many calls open as it may",
        "its circuit is open",
    ]


def test_no_more_calls_are_open_than_there_may_be():
    """Each provider has its own number."""
    slots = ProviderSlots({"a": 2, "b": None})
    for name in ("a", "a", "b", "b", "b", "c"):
        slots.take(name)

    with pytest.raises(ProviderFull):
        slots.take("a")
    slots.give_back("a")
    slots.take("a")


@pytest.mark.parametrize("script", [WHOLE, (Chunk("x"),), (ProviderFull(),)], ids=["whole", "cut", "failed"])
async def test_a_call_that_has_ended_leaves_its_place(script):
    """However it has ended."""
    subject = Subject(script, WHOLE, limits={"a": 1, "b": 1}, continues=True)
    await subject.answer()

    assert all(map(subject.slots.has_room, "ab"))


async def test_a_full_provider_counts_nothing_and_is_not_called():
    """Neither is it asked again: the next one is."""
    subject = Subject(WHOLE, (Chunk("y"), STOP), limits={"a": 1})
    subject.slots.take("a")

    await subject.answer()

    assert subject.text == "y"
    assert subject.calls == {"a": 0, "b": 1}
    assert subject.breakers.told["a"] == []
    assert [event.provider for event in subject.events.of(AttemptEnded)] == ["b"]
    assert subject.progress.attempts == [Attempt("a", "a-1", "has as many calls open as it may")]


async def test_who_finds_all_providers_full_may_come_back_in_a_second():
    """As a refusal, before anything is begun; and nothing is spent."""
    service = Service(max_concurrency=1)
    service.provider_slots.take("a")
    service.provider_slots.take("b")

    with pytest.raises(AllProvidersDown) as down:
        await service.ask()

    assert down.value.retry_after_s == 1.0
    assert await service.is_at_rest()
