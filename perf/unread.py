"""A thousand clients that do not read what they asked for, and what that costs those who do."""

from collections.abc import Iterator
from statistics import quantiles

from perf import targets
from perf.connections import Target
from perf.figures import Figure
from perf.idlers import Idlers
from perf.load import Answers, Hold
from perf.processes import Server, finished, loading, milestone, simulator, weir

_STREAMS = 200
_STAY_S = 2.0
_LATER_MS = 50
_GROWN_KIB = 48 * 1024


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Lateness of others' tokens, alone and beside them, and by how much memory has grown when all have gone."""
    times = 200 if is_quick else 1000
    hold_s = 12.0
    with simulator() as provider, weir(provider, WEIR_GRACE_S="1") as service:
        _held(service, "Warm-up {n}?", 2.0)
        alone = _held(service, "Alone {n}?", hold_s)
        provider.wait_until_idle()
        before_bytes = sum(service.rss_bytes())
        crowd = Idlers(
            target=_target(service, "Nobody reads {n}?"), times=times, at_once=200, stay_s=_STAY_S, questions=50
        )
        beside = _held(service, "Beside {n}?", hold_s, crowd)
        provider.wait_until_idle()
        grown_kib = (sum(service.rss_bytes()) - before_bytes) / 1024
    count = f"{times:,} clients that do not read"
    yield Figure(scenario="unread", name="others' lateness, alone, p99", value=_p99_ms(alone), unit="ms")
    later_ms = _p99_ms(beside) - _p99_ms(alone)
    yield Figure(scenario="unread", name=f"beside {count}: later, p99", value=later_ms, unit="ms", at_most=_LATER_MS)
    yield Figure(
        scenario="unread", name=f"memory after {count}: grown by", value=grown_kib, unit="KiB", at_most=_GROWN_KIB
    )


def _held(service: Server, query: str, hold_s: float, crowd: Idlers | None = None) -> Answers:
    """What readers saw of their streams while the crowd came and went, if there is one."""
    job = Hold(target=_target(service, query), streams=_STREAMS, per_s=100.0, hold_s=hold_s, gap_s=1.0)
    with loading(job) as reading:
        assert milestone(reading) == b"open\n"
        if crowd:
            with loading(crowd) as idling:
                assert finished(idling).count == crowd.times
        return finished(reading)


def _target(service: Server, query: str) -> Target:
    return targets.named_events(service.url, "slow", query)


def _p99_ms(answers: Answers) -> float:
    return quantiles(answers.lateness_s, n=100)[98] * 1000
