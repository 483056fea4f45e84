"""A provider's models have circuits of their own; a provider is told of as its worst one, and used by its best."""

import time

import pytest

from domain.admission import Slots
from domain.breaker import CircuitState
from domain.concurrency import ProviderSlots
from domain.events import AttemptEnded, CircuitChanged, Events
from infrastructure.telemetry.health import Health
from infrastructure.telemetry.metrics import PrometheusMetrics

CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN


class Seen:
    """What metrics and health make of the circuits of the providers p and q; those of `shut` give no permit."""

    def __init__(self):
        self.events = Events()
        self.shut = set()
        slots = Slots(limit=1, limit_per_user=1, queue_size=0, queue_timeout_s=1.0, clock=time.monotonic)
        self.metrics = PrometheusMetrics(
            events=self.events,
            providers=["p", "q"],
            slots=slots,
            calls=ProviderSlots({}),
            task_count=lambda: 0,
            version="1",
        )
        self.health = Health(
            events=self.events,
            providers=["p", "q"],
            can_try=lambda circuit: circuit not in self.shut,
            cache_size=dict,
        )

    def changed(self, model, state):
        self.events.publish(CircuitChanged(provider="p", model=model, state=state))

    def called(self, provider, model):
        self.events.publish(
            AttemptEnded(thread_id="t", provider=provider, model=model, outcome="unavailable", reason="is down")
        )

    @property
    def level(self):
        return next(
            float(line.split()[1])
            for line in self.metrics.text().decode().splitlines()
            if line.startswith('sse_circuit_state{provider="p"}')
        )


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ([], 0.0, "closed"),
        ([("a", OPEN)], 2.0, "open"),
        ([("a", OPEN), ("b", CLOSED)], 2.0, "open"),
        ([("a", OPEN), ("b", HALF_OPEN), ("a", CLOSED)], 1.0, "half_open"),
        ([("a", OPEN), ("a", CLOSED)], 0.0, "closed"),
    ],
)
def test_a_provider_is_shown_as_its_worst_model(changes, level, word):
    """That is the one that somebody has to look at."""
    seen = Seen()
    for change in changes:
        seen.changed(*change)

    assert (seen.level, seen.health.checks()["providers"]["p"]["circuit"]) == (level, word)


def test_a_provider_is_usable_while_a_model_is_that_has_been_called():
    """Models that nobody has called say nothing; of a provider that was not called at all nothing is known."""
    seen = Seen()
    for provider in "pq":
        seen.called(provider, "a")
        seen.shut.add(f"{provider}/a")
    assert not seen.health.is_ready

    seen.called("q", "b")

    assert seen.health.is_ready
    statuses = {name: check["status"] for name, check in seen.health.checks()["providers"].items()}
    assert statuses == {"p": "unhealthy", "q": "healthy"}
