"""One user who opens a thousand connections at once, and what that costs others: once, and without end."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median, quantiles
from typing import NamedTuple

from perf import targets
from perf.connections import Target
from perf.crowd import Burst, Bursts, Crowd, Crowded
from perf.figures import Figure
from perf.load import Alternate
from perf.moments import Moments
from perf.processes import Server, finished, load, loading, simulator, weir

_USERS = 16
_WITHIN_S = 1.0
_PERIOD_S = 1.6
_STARTING_S = 3.0
_LIMIT_MS = 50


class _Asked(NamedTuple):
    """One question: how long after the beginning of its period, beside which crowd if any, and how late its answer."""

    since_s: float
    burst: Burst | None
    first_ms: float


def once(bursts: int) -> Iterator[Figure]:
    """Others ask at random in the second from when one user opens a thousand connections; and in one without that."""
    since_s = [random.uniform(0, _WITHIN_S) for _ in range(2 * bursts * _USERS)]
    with simulator() as provider, weir(provider, WEIR_MAX_CONNECTIONS_PER_USER="3") as service:
        load(Moments(target=_prompt(service, "First"), at_s=[time.perf_counter()] * _USERS, users=_USERS))
        begin_s = time.perf_counter() + _STARTING_S
        at_s = [begin_s + number // _USERS * _PERIOD_S + each_s for number, each_s in enumerate(since_s)]
        crowds_at_s = [begin_s + number * _PERIOD_S for number in range(-1, 2 * bursts, 2)]
        with (
            loading(Moments(target=_prompt(service, "Question"), at_s=at_s, users=_USERS)) as others,
            loading(Bursts(crowd=_crowd(service), at_s=crowds_at_s)) as greedy,
        ):
            first_s = finished(others).first_token_s[0]
            came = finished(greedy).bursts[1:]
    periods = [burst for each in came for burst in (None, each)]
    asked = [
        _Asked(since_s, periods[number // _USERS], late_s * 1000)
        for number, (since_s, late_s) in enumerate(zip(since_s, first_s, strict=True))
    ]
    yield from _told(came)
    yield from _later(asked)


def _told(came: Sequence[Burst]) -> Iterator[Figure]:
    fewest = min(burst.crowd.statuses.get("429", 0) for burst in came)
    asked_s, told_s = (median(times) for times in zip(*((each.asked_s, each.told_s) for each in came), strict=True))
    yield Figure(scenario="slots", name="one user's 1,000 connections: told 429", value=fewest, at_least=997)
    yield Figure(scenario="slots", name="all of them have asked after", value=asked_s * 1000, unit="ms")
    yield Figure(scenario="slots", name="all of them are told after", value=told_s * 1000, unit="ms")


def _later(asked: Sequence[_Asked]) -> Iterator[Figure]:
    """What others were told later than without the crowd: who asked in that second, and who while it was answered."""
    alone = [each.first_ms for each in asked if each.burst is None]
    beside = [each.first_ms for each in asked if each.burst]
    amid = [each.first_ms for each in asked if each.burst and each.since_s < each.burst.told_s]
    for which, measured in _MEASURES.items():
        yield Figure(scenario="slots", name=f"another's first chunk, alone: {which}", value=measured(alone), unit="ms")
    for when, times in (("within a second of them", beside), ("before they all are told", amid)):
        for which, measured in _MEASURES.items():
            name = f"another's first chunk, asked {when}: later, {which}"
            value = measured(times) - measured(alone)
            yield Figure(scenario="slots", name=name, value=value, unit="ms", at_most=_LIMIT_MS)


def again_and_again(rounds: int) -> Iterator[Figure]:
    """One user's first chunks, alone and while another opens a thousand connections again and again."""
    with simulator() as provider, weir(provider, WEIR_MAX_CONNECTIONS_PER_USER="3") as service:
        alone_ms = _first_ms(load(Alternate(targets=[_prompt(service, "Question")], rounds=rounds)).first_token_s[0])
        with loading(Alternate(targets=[_prompt(service, "Another")], rounds=rounds)) as generator:
            told = [load(_crowd(service)).crowd or Crowded()]
            while generator.poll() is None and len(told) < 50:
                told.append(load(_crowd(service)).crowd or Crowded())
            beside_ms = _first_ms(finished(generator).first_token_s[0])
    refused = sum(each.statuses.get("429", 0) for each in told) / len(told)
    name = "another's first chunk, the 1,000 coming again and again: later, p99"
    yield Figure(scenario="slots", name="those that come again and again: told 429", value=refused, at_least=997)
    yield Figure(scenario="slots", name=name, value=_p99(beside_ms) - _p99(alone_ms), unit="ms", at_most=_LIMIT_MS)


def _prompt(service: Server, word: str) -> Target:
    return targets.named_events(service.url, "prompt", word + " {n}?")


def _crowd(service: Server) -> Crowd:
    target = targets.named_events(service.url, "lasting", "All of them {n}?")
    return Crowd(target=target, connections=1000, per_s=1e9, hold_s=0.1, questions=100, address="127.0.0.2")


def _first_ms(times_s: list[float]) -> list[float]:
    return [each_s * 1000 for each_s in times_s]


def _p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[98]


_MEASURES: dict[str, Callable[[Sequence[float]], float]] = {"p50": median, "p99": _p99, "slowest": max}
