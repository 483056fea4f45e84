"""Thousands of streams open at once, a token a second each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import quantiles

from perf import bare, targets
from perf.connections import Target
from perf.figures import Figure
from perf.load import Answers, Hold
from perf.processes import Server, finished, load, loading, milestone, simulator, weir
from perf.processes import bare as bare_server

_PER_S = 150.0
_GAP_S = 1.0


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Lateness, memory a stream and CPU a token, beside those of a bare relay."""
    streams, hold_s = (400, 5.0) if is_quick else (2000, 12.0)
    with (
        simulator() as provider,
        weir(provider) as service,
        bare_server("relay", {bare.PROVIDER: provider.openai}) as other,
    ):
        direct = load(_hold(targets.provider(provider.openai, "slow", "Stream {n}?"), streams, hold_s))
        ours = _held(service, targets.named_events, streams, hold_s)
        theirs = _held(other, targets.relay, streams, hold_s)
    rate_per_s = ours.answers.count / ours.answers.wall_s
    yield Figure(scenario="streams", name=f"tokens with {streams} streams open", value=rate_per_s, unit="/s")
    yield from ours.figures("", lateness_at_most_ms=250.0, memory_at_most_kib=60.0)
    yield from theirs.figures(", relay")
    yield Figure(scenario="streams", name="lateness, provider asked directly", value=_p99_ms(direct), unit="ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What the generator saw, the server's bytes a stream, and the CPU seconds it took while all were open."""

    answers: Answers
    bytes_each: float
    cpu_s: float

    def figures(
        self, of: str, lateness_at_most_ms: float | None = None, memory_at_most_kib: float | None = None
    ) -> Iterator[Figure]:
        late_ms, memory_kib = _p99_ms(self.answers), self.bytes_each / 1024
        cpu_us = self.cpu_s / self.answers.count * 1e6
        yield Figure(
            scenario="streams",
            name=f"lateness, 99th percentile{of}",
            value=late_ms,
            unit="ms",
            at_most=lateness_at_most_ms,
        )
        yield Figure(
            scenario="streams", name=f"memory a stream{of}", value=memory_kib, unit="KiB", at_most=memory_at_most_kib
        )
        yield Figure(scenario="streams", name=f"CPU a token{of}", value=cpu_us, unit="µs")


def _hold(target: Target, streams: int, hold_s: float) -> Hold:
    return Hold(target=target, streams=streams, per_s=_PER_S, hold_s=hold_s, gap_s=_GAP_S)


def _held(server: Server, target: Callable[[str, str, str], Target], streams: int, hold_s: float) -> _Held:
    """The streams have been open all at once; some came and went before, so that what the first load is not theirs."""
    load(_hold(target(server.url, "slow", "Warm-up {n}?"), 20, 1.0))
    before_bytes = sum(server.rss_bytes())
    with loading(_hold(target(server.url, "slow", "Stream {n}?"), streams, hold_s)) as generator:
        assert milestone(generator) == b"open\n"
        before_s = server.cpu_s()
        bytes_each = (sum(server.rss_bytes()) - before_bytes) / streams
        assert milestone(generator) == b"held\n"
        cpu_s = server.cpu_s() - before_s
        return _Held(answers=finished(generator), bytes_each=bytes_each, cpu_s=cpu_s)


def _p99_ms(answers: Answers) -> float:
    return quantiles(answers.lateness_s, n=100)[98] * 1000
