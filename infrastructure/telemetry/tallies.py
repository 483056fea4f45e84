"""Counters and histograms that are added up when they are asked for.

The library's own take a lock and three calls to count one thing: a tenth of what a stored answer costs. Whoever counts
here does so on one event loop, where no lock is needed.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """How often something has happened, or how much of it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """It has happened again."""
        self.value += amount


class Spread:
    """How often a value was seen up to each of `bounds` and beyond, and the sum of them."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """It was seen again."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counts(Collector):
    """A counter for each set of values of `labels`."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._about = name, text, labels
        self._counts: dict[tuple[str, ...], Count] = {}
        if not labels:
            self.of()

    def of(self, *values: object) -> Count:
        """The counter for these values of the labels."""
        return self._counts.setdefault(tuple(map(str, values)), Count())

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What has been counted."""
        name, text, labels = self._about
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in self._counts.items():
            family.add_metric(values, count.value)
        yield family


class Spreads(Collector):
    """A histogram for each set of values of `labels`."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...]) -> None:
        self._about = name, text, labels
        self._bounds = bounds
        self._edges = [*map(floatToGoString, (*bounds, inf))]
        self._spreads: dict[tuple[str, ...], Spread] = {}

    def of(self, *values: object) -> Spread:
        """The histogram for these values of the labels."""
        return self._spreads.setdefault(tuple(map(str, values)), Spread(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What has been seen."""
        name, text, labels = self._about
        family = HistogramMetricFamily(name, text, labels=labels)
        for values, spread in self._spreads.items():
            below = zip(self._edges, accumulate(spread.counts), strict=True)
            family.add_metric(values, [*below], spread.total)
        yield family
