"""What is told is what the library's own counters and histograms would tell."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from infrastructure.telemetry.tallies import Counts, Spreads

BOUNDS = (0.01, 0.5, 2.0)
VALUES = st.sampled_from([*BOUNDS, 0.0, 0.3, 7.5]) | st.floats(0.0, 10.0)


def told(collector) -> list[bytes]:
    """The lines of Prometheus' text format, but for when each began."""
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([200, 404]), VALUES)))
def test_counts_are_told_as_by_the_library(counted):
    """With their labels, whatever type those were given in."""
    ours = Counts("requests_total", "Requests", ("method", "status"))
    theirs = Counter("requests_total", "Requests", ("method", "status"), registry=None)
    for method, status, amount in counted:
        ours.of(method, status).inc(amount)
        theirs.labels(method, status).inc(amount)

    assert told(ours) == told(theirs)


def test_a_count_without_labels_is_told_before_anything_happened():
    """A rate needs the zero it began with."""
    assert told(Counts("misses_total", "Misses", ())) == told(Counter("misses_total", "Misses", registry=None))


@given(st.lists(st.tuples(st.sampled_from(["1", "2"]), VALUES)))
def test_spreads_are_told_as_by_the_library(seen):
    """A value on a bound is below it."""
    ours = Spreads("stage_seconds", "Of stages", BOUNDS, ("stage",))
    theirs = Histogram("stage_seconds", "Of stages", ("stage",), buckets=BOUNDS, registry=None)
    for stage, value in seen:
        ours.of(stage).observe(value)
        theirs.labels(stage).observe(value)

    assert told(ours) == told(theirs)
