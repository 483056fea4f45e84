"""The contract of domain.ports.CircuitBreakers, run against every implementation."""

import gc
import tracemalloc
from contextlib import suppress

import pytest

from domain.breaker import BreakerPolicy, CircuitState
from domain.errors import CircuitOpen
from domain.events import CircuitChanged
from infrastructure.memory.circuit_breakers import PurgatoryCircuitBreakers
from tests.fakes import FakeCircuitBreakers, FakeClock, RememberedEvents

POLICY = BreakerPolicy(failures=3, window=5, open_s=32.0)


class Subject:
    """Circuit breakers and all that surrounds them."""

    def __init__(self, kind, policy=POLICY):
        self.clock = FakeClock()
        self.events = RememberedEvents()
        self.breakers = kind(policy=policy, publish=self.events.publish, clock=self.clock)

    def acquire(self):
        return self.breakers.acquire("p")

    def fail(self, times=1):
        for _ in range(times):
            self.acquire().failure()

    def succeed(self, times=1):
        for _ in range(times):
            self.acquire().success()

    def trip(self):
        self.fail(POLICY.failures)

    def rest(self):
        self.clock.advance(POLICY.open_s)

    def refusal(self):
        with pytest.raises(CircuitOpen) as refused:
            self.acquire()
        return refused.value

    @property
    def is_closed(self):
        """Whether two calls may run at once."""
        permits = []
        try:
            permits = [self.acquire(), self.acquire()]
        except CircuitOpen:
            return False
        finally:
            for permit in permits:
                permit.abandon()
        return True

    @property
    def states(self):
        return [event.state for event in self.events.of(CircuitChanged)]


KINDS = [PurgatoryCircuitBreakers, FakeCircuitBreakers]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def subject(kind):
    return Subject(kind)


def test_trips_exactly_at_the_policys_count(subject):
    """One failure fewer is nothing; successes between do not forgive."""
    subject.fail()
    subject.succeed(2)
    subject.fail()
    assert subject.is_closed

    subject.fail()

    assert not subject.breakers.can_try("p")
    assert subject.states == [CircuitState.OPEN]


def test_failures_that_have_left_the_window_do_not_count(subject):
    """Five calls are remembered: two old failures are gone after five successes."""
    subject.fail(2)
    subject.succeed(5)
    subject.fail(2)

    assert subject.is_closed
    assert subject.states == []


def test_circuits_of_different_providers_are_apart(subject):
    """One provider's outage is no other's."""
    subject.trip()

    subject.breakers.acquire("other").success()

    assert subject.breakers.can_try("other")
    assert not subject.breakers.can_try("p")


@pytest.mark.parametrize("waited_s", [0.0, 1.0, 31.5])
def test_an_open_circuit_says_when_to_come_back(subject, waited_s):
    """The time that is told is the time until the next probe, to the moment."""
    subject.trip()
    subject.clock.advance(waited_s)

    assert subject.refusal().retry_after_s == POLICY.open_s - waited_s
    subject.clock.advance(POLICY.open_s - waited_s)
    assert subject.breakers.can_try("p")
    subject.acquire()


def test_one_probe_of_fifty_goes_through_when_half_open(subject):
    """A provider that is coming back is not met by everybody at once."""
    subject.trip()
    subject.rest()
    permits, refusals = [], []

    for _ in range(50):
        try:
            permits.append(subject.acquire())
        except CircuitOpen as refused:
            refusals.append(refused)

    assert (len(permits), len(refusals)) == (1, 49)
    assert all(refused.retry_after_s > 0 for refused in refusals)
    assert not subject.breakers.can_try("p")


def test_asking_whether_a_call_is_worth_a_try_takes_no_probe(subject):
    """Selection looks at every route, and calls one."""
    subject.trip()
    subject.rest()

    assert all(subject.breakers.can_try("p") for _ in range(3))
    assert subject.states == [CircuitState.OPEN]
    subject.acquire()


def test_a_probe_that_succeeds_closes_the_circuit(subject):
    """And what was counted before is forgotten."""
    subject.trip()
    subject.rest()

    subject.succeed()
    subject.fail(POLICY.failures - 1)

    assert subject.is_closed
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


def test_a_probe_that_fails_opens_the_circuit_for_the_whole_time_again(subject):
    """One failure is enough."""
    subject.trip()
    subject.rest()

    subject.fail()

    assert subject.refusal().retry_after_s == POLICY.open_s
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.OPEN]


def test_an_abandoned_call_counts_for_nothing_while_closed(subject):
    """A client that leaves says nothing of the provider."""
    subject.fail(POLICY.failures - 1)
    for _ in range(20):
        subject.acquire().abandon()
    subject.fail()

    assert subject.states == [CircuitState.OPEN]


def test_an_abandoned_call_from_before_changes_nothing_while_open(subject):
    """Nor does one that was begun before the circuit opened."""
    early = subject.acquire()
    subject.trip()

    early.abandon()

    assert subject.refusal().retry_after_s == POLICY.open_s
    assert subject.states == [CircuitState.OPEN]


def test_an_abandoned_probe_frees_its_place(subject):
    """Otherwise one lost client would keep a provider shut for ever."""
    subject.trip()
    subject.rest()
    subject.acquire().abandon()
    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN]

    subject.succeed()

    assert subject.states[-1] is CircuitState.CLOSED


def test_abandoning_a_call_from_before_does_not_free_the_probes_place(subject):
    """Only the probe itself can give its place away."""
    early = subject.acquire()
    subject.trip()
    subject.rest()
    subject.acquire()

    early.abandon()

    assert subject.refusal().retry_after_s > 0


@pytest.mark.parametrize("outcome", ["success", "failure"])
@pytest.mark.parametrize("has_probe", [True, False])
def test_late_news_of_calls_from_before_decides_nothing_while_half_open(subject, outcome, has_probe):
    """They tell how the provider was, not how it is."""
    early = [subject.acquire() for _ in range(10)]
    subject.trip()
    subject.rest()
    probe = subject.acquire()
    if not has_probe:
        probe.abandon()

    for permit in early:
        getattr(permit, outcome)()

    assert subject.states == [CircuitState.OPEN, CircuitState.HALF_OPEN]
    assert subject.breakers.can_try("p") is not has_probe


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_late_news_of_calls_from_before_neither_closes_nor_prolongs_an_open_circuit(subject, outcome):
    """The time to rest runs from the moment of opening."""
    early = subject.acquire()
    subject.trip()
    subject.clock.advance(8.0)

    getattr(early, outcome)()

    assert subject.refusal().retry_after_s == POLICY.open_s - 8.0
    assert subject.states == [CircuitState.OPEN]


def test_a_failure_told_after_a_success_counts(subject):
    """A provider that begins to answer and breaks off has failed."""
    for _ in range(POLICY.failures):
        permit = subject.acquire()
        permit.success()
        permit.failure()
        permit.abandon()

    assert subject.states == [CircuitState.OPEN]


def test_a_probe_that_breaks_off_after_its_first_token_counts_in_the_new_window(subject):
    """It has closed the circuit, and is the first failure after."""
    subject.trip()
    subject.rest()
    probe = subject.acquire()
    probe.success()
    probe.failure()
    assert subject.states[-1] is CircuitState.CLOSED

    subject.fail(POLICY.failures - 1)

    assert subject.states[-1] is CircuitState.OPEN


def test_with_a_limit_of_one_every_failure_opens(kind):
    """The smallest policy there is."""
    subject = Subject(kind, BreakerPolicy(failures=1, window=1, open_s=1.0))

    subject.fail()

    assert subject.refusal().retry_after_s == 1.0


def test_a_thousand_rejections_leave_nothing_behind(subject):
    """A rejection must not keep the frames of those before it alive."""
    subject.trip()
    for _ in range(10):
        subject.refusal()

    def rejections(count):
        gc.collect()
        tracemalloc.start()
        before = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            with suppress(CircuitOpen):
                subject.acquire()
        gc.collect()
        after = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after[0] - before[0], after[1] - before[1]

    objects, size_bytes = rejections(1000)

    assert objects < 50
    assert size_bytes < 20_000
    assert subject.states == [CircuitState.OPEN]
