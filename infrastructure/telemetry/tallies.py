"""Counters and histograms of what happens with every request.

The library's own take a lock for each number that they add to, and ask first whether they may: together that takes as
long as finding a stored answer. These are added to and read by one thread, that of the event loop.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """It has grown by `amount`, which is not negative."""
        self.value += amount


class Counts(Collector):
    """A counter for each set of values of `labels`: `of` finds it."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._counts: dict[tuple[object, ...], Count] = {}
        self.of = cache(self._new)
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What has been counted."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric([str(value) for value in values], count.value)
        yield family

    def _new(self, *values: object) -> Count:
        count = self._counts[values] = Count()
        return count


class Spread:
    """How many of the values observed were at most each bound, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Spreads(Collector):
    """A histogram with these `bounds` for each set of values of `labels`: `of` finds it."""

    def __init__(
        self, name: str, text: str, bounds: tuple[float, ...], labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = bounds
        self._names = [*map(floatToGoString, bounds), "+Inf"]
        self._spreads: dict[tuple[object, ...], Spread] = {}
        self.of = cache(self._new)
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What has been observed."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, spread in self._spreads.items():
            buckets = [(name, float(count)) for name, count in zip(self._names, accumulate(spread.counts), strict=True)]
            family.add_metric([str(value) for value in values], buckets, spread.sum)
        yield family

    def _new(self, *values: object) -> Spread:
        spread = self._spreads[values] = Spread(self._bounds)
        return spread
