"""The contract of domain.ports.CircuitBreakers, run against every implementation."""

import gc
import tracemalloc
from contextlib import suppress

import pytest

from domain.breaker import BreakerPolicy, Circuit, CircuitState
from domain.errors import CircuitOpen
from domain.events import CircuitChanged
from infrastructure.memory.circuit_breakers import PurgatoryCircuitBreakers
from infrastructure.redis.circuit_breakers import RedisCircuitBreakers
from tests.fakes import FakeCircuitBreakers, FakeClock, RememberedEvents
from tests.redis_instances import RedisInstance

pytestmark = pytest.mark.anyio

POLICY = BreakerPolicy(failures=3, window=5, open_s=32.0)
OWN_KINDS = {"purgatory": PurgatoryCircuitBreakers, "fake": FakeCircuitBreakers}


class Subject:
    """Circuit breakers and all that surrounds them."""

    def __init__(self, kind, policy=POLICY):
        self.clock = FakeClock()
        self.events = RememberedEvents()
        self.breakers = kind(policy=policy, publish=self.events.publish, clock=self.clock)

    async def acquire(self):
        return await self.breakers.acquire("p/m")

    async def fail(self, times=1):
        for _ in range(times):
            (await self.acquire()).failure()

    async def succeed(self, times=1):
        for _ in range(times):
            (await self.acquire()).success()

    async def trip(self):
        await self.fail(POLICY.failures)

    def rest(self):
        self.clock.advance(POLICY.open_s)

    async def refusal(self):
        with pytest.raises(CircuitOpen) as refused:
            await self.acquire()
        return refused.value

    async def is_closed(self):
        """Whether two calls may run at once."""
        permits = []
        try:
            permits = [await self.acquire(), await self.acquire()]
        except CircuitOpen:
            return False
        finally:
            for permit in permits:
                permit.abandon()
        return True

    @property
    def states(self):
        return [event.state for event in self.events.of(CircuitChanged)]


@pytest.fixture(params=["purgatory", "fake", "redis", "cluster"])
async def kind(request):
    """Builds circuit breakers; those over Redis start with an empty one."""
    if request.param in OWN_KINDS:
        yield OWN_KINDS[request.param]
        return
    server = request.getfixturevalue(f"redis_{request.param}" if request.param == "cluster" else "redis_server")
    async with RedisInstance(server.url, "i").running() as one:

        def over_redis(*, policy, publish, clock):
            return RedisCircuitBreakers(
                local=PurgatoryCircuitBreakers(policy=policy, publish=publish, clock=clock),
                client=one.client,
                events=one.fleet_events,
                circuits=["p/m", "p/other"],
                instance_id=one.name,
                probe_s=60.0,
                clock=clock,
                unix_now=clock,
            )

        yield over_redis


@pytest.fixture
def subject(kind):
    return Subject(kind)


async def test_trips_exactly_at_the_policys_count(subject):
    """One failure fewer is nothing; successes between do not forgive."""
    await subject.fail()
    await subject.succeed(2)
    await subject.fail()
    assert await subject.is_closed()

    await subject.fail()

    assert not subject.breakers.can_try("p/m")
    assert subject.states == [CircuitState.OPEN]


async def test_failures_that_have_left_the_window_do_not_count(subject):
    """Five calls are remembered: two old failures are gone after five successes."""
    await subject.fail(2)
    await subject.succeed(5)
    await subject.fail(2)

    assert await subject.is_closed()
    assert subject.states == []


async def test_circuits_of_different_routes_are_apart(subject):
    """One model's outage is no other's of the same provider."""
    await subject.trip()

    (await subject.breakers.acquire("p/other")).success()

    assert subject.breakers.can_try("p/other")
    assert not subject.breakers.can_try("p/m")


@pytest.mark.parametrize("waited_s", [0.0, 1.0, 31.5])
async def test_an_open_circuit_says_when_to_come_back(subject, waited_s):
    """The time that is told is the time until the next probe, to the moment."""
    await subject.trip()
    subject.clock.advance(waited_s)

    assert (await subject.refusal()).retry_after_s == POLICY.open_s - waited_s
    subject.clock.advance(POLICY.open_s - waited_s)
    assert subject.breakers.can_try("p/m")
    await subject.acquire()


async def test_one_probe_of_fifty_goes_through_when_half_open(subject):
    """A provider that is coming back is not met by everybody at once."""
    await subject.trip()
    subject.rest()
    permits, refusals = [], []

    for _ in range(50):
        try:
            permits.append(await subject.acquire())
        except CircuitOpen as refused:
            refusals.append(refused)

    assert (len(permits), len(refusals)) == (1, 49)
    assert all(refused.retry_after_s > 0 for refused in refusals)
    assert not subject.breakers.can_try("p/m")


async def test_asking_whether_a_call_is_worth_a_try_takes_no_probe(subject):
    """Selection looks at every route, and calls one."""
    await subject.trip()
    subject.rest()

    assert all(subject.breakers.can_try("p/m") for _ in range(3))
    assert subject.states == [CircuitState.OPEN]
    await subject.acquire()


async def test_a_probe_that_succeeds_closes_the_circuit(subject):
    """And what was counted before is forgotten."""
    await subject.trip()
    subject.rest()

    await subject.succeed()
    await subject.fail(POLICY.failures - 1)

    assert await subject.is_closed()
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


async def test_a_probe_that_fails_opens_the_circuit_for_the_whole_time_again(subject):
    """One failure is enough."""
    await subject.trip()
    subject.rest()

    await subject.fail()

    assert (await subject.refusal()).retry_after_s == POLICY.open_s
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.OPEN]


async def test_an_abandoned_call_counts_for_nothing_while_closed(subject):
    """A client that leaves says nothing of the provider."""
    await subject.fail(POLICY.failures - 1)
    for _ in range(20):
        (await subject.acquire()).abandon()
    await subject.fail()

    assert subject.states == [CircuitState.OPEN]


async def test_an_abandoned_call_from_before_changes_nothing_while_open(subject):
    """Nor does one that was begun before the circuit opened."""
    early = await subject.acquire()
    await subject.trip()

    early.abandon()

    assert (await subject.refusal()).retry_after_s == POLICY.open_s
    assert subject.states == [CircuitState.OPEN]


async def test_an_abandoned_probe_frees_its_place(subject):
    """Otherwise one lost client would keep a provider shut for ever."""
    await subject.trip()
    subject.rest()
    (await subject.acquire()).abandon()
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN]

    await subject.succeed()

    assert subject.states[-1] is CircuitState.CLOSED


async def test_abandoning_a_call_from_before_does_not_free_the_probes_place(subject):
    """Only the probe itself can give its place away."""
    early = await subject.acquire()
    await subject.trip()
    subject.rest()
    await subject.acquire()

    early.abandon()

    assert (await subject.refusal()).retry_after_s > 0


@pytest.mark.parametrize("outcome", ["success", "failure"])
@pytest.mark.parametrize("has_probe", [True, False])
async def test_late_news_of_calls_from_before_decides_nothing_while_half_open(subject, outcome, has_probe):
    """They tell how the provider was, not how it is."""
    early = [await subject.acquire() for _ in range(10)]
    await subject.trip()
    subject.rest()
    probe = await subject.acquire()
    if not has_probe:
        probe.abandon()

    for permit in early:
        getattr(permit, outcome)()

    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN]
    assert subject.breakers.can_try("p/m") is not has_probe


@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_late_news_of_calls_from_before_neither_closes_nor_prolongs_an_open_circuit(subject, outcome):
    """The time to rest runs from the moment of opening."""
    early = await subject.acquire()
    await subject.trip()
    subject.clock.advance(8.0)

    getattr(early, outcome)()

    assert (await subject.refusal()).retry_after_s == POLICY.open_s - 8.0
    assert subject.states == [CircuitState.OPEN]


@pytest.mark.parametrize("failures", [1, 3, 5])
async def test_a_failure_told_after_a_success_takes_its_place(kind, failures):
    """A provider that begins to answer and breaks off has failed, and has not also succeeded."""
    subject = Subject(kind, BreakerPolicy(failures=failures, window=5, open_s=32.0))
    for number in range(failures):
        assert subject.states == [], number
        permit = await subject.acquire()
        permit.success()
        permit.failure()
        permit.abandon()

    assert subject.states == [CircuitState.OPEN]


async def test_of_streams_that_break_no_success_is_left(subject):
    """Two calls that break, among five, are two failures and no successes beside."""
    permits = [await subject.acquire() for _ in range(2)]
    for permit in permits:
        permit.success()
    for permit in permits:
        permit.failure()
    await subject.succeed(3)
    await subject.fail()

    assert await subject.is_closed()
    await subject.fail()
    assert await subject.is_closed(), "the two are not among the last five any more"
    await subject.fail()
    assert subject.states == [CircuitState.OPEN]


@pytest.mark.parametrize("told", ["failure", "success", "abandon"])
async def test_a_call_that_has_failed_counts_once(subject, told):
    """Whatever is said of it afterwards."""
    for _ in range(POLICY.failures - 1):
        permit = await subject.acquire()
        permit.failure()
        getattr(permit, told)()

    assert await subject.is_closed()
    await subject.fail()
    assert subject.states == [CircuitState.OPEN]


async def test_many_streams_under_way_do_not_hide_that_they_all_break(kind):
    """Their beginnings have left the window before they end."""
    subject = Subject(kind, BreakerPolicy(failures=4, window=5, open_s=32.0))
    permits = []
    for _ in range(40):
        permits.append(await subject.acquire())
        permits[-1].success()
        if len(permits) > 20:
            permits.pop(0).failure()
        if not subject.breakers.can_try("p/m"):
            break

    assert subject.states == [CircuitState.OPEN]


async def test_a_probe_that_breaks_off_after_its_first_token_opens_the_circuit_again(subject):
    """It was closed on its word alone."""
    await subject.trip()
    subject.rest()
    probe = await subject.acquire()
    probe.success()
    assert subject.states[-1] is CircuitState.CLOSED
    await subject.succeed(2)

    probe.failure()
    probe.abandon()

    assert (await subject.refusal()).retry_after_s == POLICY.open_s
    assert subject.states[-1] is CircuitState.OPEN
    assert subject.breakers.circuit("p/m").state is CircuitState.OPEN


async def test_a_probe_that_breaks_off_when_many_others_have_succeeded_is_one_failure(subject):
    """By then the circuit is closed on their word."""
    await subject.trip()
    subject.rest()
    probe = await subject.acquire()
    probe.success()
    await subject.succeed(100)

    probe.failure()

    assert await subject.is_closed()
    await subject.fail(POLICY.failures - 1)
    assert subject.states[-1] is CircuitState.OPEN


async def test_late_failures_of_calls_from_before_count_nothing_once_it_is_closed_again(subject):
    """They tell how the provider was."""
    early = [await subject.acquire() for _ in range(10)]
    for permit in early[:5]:
        permit.success()
    await subject.trip()
    subject.rest()
    await subject.succeed()

    for permit in early:
        permit.failure()

    assert subject.states[-1] is CircuitState.CLOSED


async def test_with_a_limit_of_one_every_failure_opens(kind):
    """The smallest policy there is."""
    subject = Subject(kind, BreakerPolicy(failures=1, window=1, open_s=1.0))

    await subject.fail()

    assert (await subject.refusal()).retry_after_s == 1.0


async def test_a_thousand_rejections_leave_nothing_behind(subject):
    """A rejection must not keep the frames of those before it alive."""
    await subject.trip()
    for _ in range(10):
        await subject.refusal()

    async def rejections(count):
        gc.collect()
        tracemalloc.start()
        before = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            with suppress(CircuitOpen):
                await subject.acquire()
        gc.collect()
        after = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after[0] - before[0], after[1] - before[1]

    objects, size_bytes = await rejections(1000)

    assert objects < 50
    assert size_bytes < 20_000
    assert subject.states == [CircuitState.OPEN]


@pytest.mark.parametrize("rested", [True, False])
async def test_an_operator_s_word_closes_an_open_circuit(subject, rested):
    """Who knows that the provider is well again need not wait."""
    await subject.trip()
    if rested:
        subject.rest()
        await subject.acquire()

    subject.breakers.reset("p/m")

    assert subject.states[-1] is CircuitState.CLOSED
    assert await subject.is_closed()


async def test_a_reset_forgets_the_failures_of_a_closed_circuit(subject):
    """As if the provider had not been called yet."""
    await subject.fail(POLICY.failures - 1)

    subject.breakers.reset("p/m")
    await subject.fail(POLICY.failures - 1)

    assert subject.states == []


async def test_how_a_circuit_stands_can_be_asked(subject):
    """With the time until the next call can be made."""
    assert subject.breakers.circuit("p/m") == Circuit(name="p/m", state=CircuitState.CLOSED, wait_s=0.0)
    await subject.trip()
    subject.clock.advance(8.0)

    assert subject.breakers.circuit("p/m") == Circuit(name="p/m", state=CircuitState.OPEN, wait_s=POLICY.open_s - 8.0)


async def test_what_has_closed_again_carries_few_calls_at_first_and_soon_any_number(subject):
    """What comes back is not met by everybody at once: twice as many from round to round."""
    await subject.trip()
    subject.rest()
    await subject.succeed()
    rounds = []

    while len(rounds) < 8:
        permits = []
        while subject.breakers.can_try("p/m") and len(permits) < 100:
            permits.append(await subject.acquire())
        rounds.append(len(permits))
        for permit in permits:
            permit.success()

    assert rounds == [2, 4, 8, 16, 32, 64, 100, 100]


@pytest.mark.parametrize("outcome", ["failure", "abandon"])
async def test_a_call_that_does_not_succeed_lets_no_more_through(subject, outcome):
    """Nor fewer: whether the circuit opens again is the window's matter."""
    await subject.trip()
    subject.rest()
    await subject.succeed()

    getattr(await subject.acquire(), outcome)()
    permits = [await subject.acquire(), await subject.acquire()]

    assert (await subject.refusal()).retry_after_s > 0
    assert len(permits) == 2


async def test_a_call_that_is_told_twice_frees_one_place(subject):
    """A success, then a failure, then the end of the call are one call."""
    await subject.trip()
    subject.rest()
    await subject.succeed()
    first = await subject.acquire()
    for told in ("success", "failure", "abandon"):
        getattr(first, told)()

    permits = [await subject.acquire() for _ in range(3)]

    assert not subject.breakers.can_try("p/m")
    assert len(permits) == 3


async def test_a_route_that_asks_for_rest_has_it(subject):
    """It has not failed: its circuit stays closed, and nothing is counted."""
    subject.breakers.rest("p/m", 8.0)

    assert not subject.breakers.can_try("p/m")
    refusal = await subject.refusal()
    assert (refusal.retry_after_s, refusal.is_resting, refusal.reason) == (8.0, True, "has asked for a rest")
    resting = Circuit(name="p/m", state=CircuitState.CLOSED, wait_s=8.0, is_resting=True)
    assert subject.breakers.circuit("p/m") == resting
    subject.clock.advance(8.0)
    assert await subject.is_closed()
    assert subject.states == []


async def test_a_shorter_rest_does_not_end_a_longer_one(subject):
    """What is asked for last is not asked for instead."""
    subject.breakers.rest("p/m", 8.0)
    subject.breakers.rest("p/m", 1.0)

    assert subject.breakers.circuit("p/m").wait_s == 8.0


async def test_what_is_open_is_not_resting_even_if_it_has_asked_for_a_rest(subject):
    """To wait for the rest alone would be in vain."""
    subject.breakers.rest("p/m", 1.0)
    subject.clock.advance(1.0)
    await subject.trip()
    subject.breakers.rest("p/m", 1.0)

    assert not subject.breakers.circuit("p/m").is_resting
    assert not (await subject.refusal()).is_resting


async def test_a_reset_ends_a_rest(subject):
    """An operator knows better."""
    subject.breakers.rest("p/m", 3600.0)

    subject.breakers.reset("p/m")

    assert await subject.is_closed()
