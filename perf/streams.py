"""Thousands of streams open at once, a token a second each."""

from collections.abc import Iterator
from statistics import quantiles

from perf import targets
from perf.figures import Figure
from perf.load import Answers, Hold, Target
from perf.processes import Server, finished, load, loading, simulator, weir

_PER_S = 125.0
_GAP_S = 1.0


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Lateness beside that of a raw client of the provider, memory a stream, CPU a token."""
    streams, hold_s = (400, 5.0) if is_quick else (2000, 15.0)
    query = "Stream {n}?"
    with simulator() as provider, weir(provider) as service:
        direct = load(_hold(targets.provider(provider.openai, "slow", query), streams, hold_s))
        _warm_up(service)
        target = targets.named_events(service.url, "slow", query)
        answers, bytes_each, cpu_s = _held(service, _hold(target, streams, hold_s), streams)
    yield Figure(scenario="streams", name=f"tokens a second, {streams} open", value=answers.count / answers.wall_s)
    late_ms = _p99_ms(answers)
    yield Figure(scenario="streams", name="lateness, 99th percentile", value=late_ms, unit="ms", at_most=250.0)
    yield Figure(scenario="streams", name="lateness, provider asked directly", value=_p99_ms(direct), unit="ms")
    yield Figure(scenario="streams", name="memory a stream", value=bytes_each / 1024, unit="KiB", at_most=60.0)
    yield Figure(scenario="streams", name="CPU a token", value=cpu_s / answers.count * 1e6, unit="µs")


def _hold(target: Target, streams: int, hold_s: float) -> Hold:
    return Hold(target=target, streams=streams, per_s=_PER_S, hold_s=hold_s, gap_s=_GAP_S)


def _held(service: Server, job: Hold, streams: int) -> tuple[Answers, float, float]:
    """What the generator saw, the service's bytes a stream, and the CPU seconds it took while all were open."""
    before_bytes = sum(service.rss_bytes())
    with loading(job) as generator:
        assert generator.stdout.readline() == b"open\n"
        began_s = service.cpu_s()
        bytes_each = (sum(service.rss_bytes()) - before_bytes) / streams
        assert generator.stdout.readline() == b"held\n"
        cpu_s = service.cpu_s() - began_s
        return finished(generator), bytes_each, cpu_s


def _warm_up(service: Server) -> None:
    """Some streams have come and gone, so that what the first ones load is not counted as theirs."""
    target = targets.named_events(service.url, "slow", "Warm-up {n}?")
    load(Hold(target=target, streams=20, per_s=_PER_S, hold_s=1.0, gap_s=_GAP_S))


def _p99_ms(answers: Answers) -> float:
    return quantiles(answers.lateness_s, n=100)[98] * 1000
