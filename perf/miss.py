"""Distinct questions, each of which goes upstream: what an answer costs, and what each of its chunks adds."""

from collections.abc import Callable, Iterator
from statistics import linear_regression, median

from perf import bare, targets
from perf.connections import Target
from perf.figures import Figure
from perf.load import Closed
from perf.processes import Server, load, simulator, weir
from perf.processes import bare as bare_server

_CONNECTIONS = 20
_REQUESTS = {"ten": 400, "fifty": 300, "two_hundred": 100}


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """CPU a request: its fixed part and each chunk's, beside those of a relay that reads nothing."""
    rounds = 1 if is_quick else 3
    with (
        simulator() as provider,
        weir(provider) as service,
        bare_server("relay", {bare.PROVIDER: provider.openai}) as other,
    ):
        pair: list[tuple[Server, Callable[[str, str, str], Target]]] = [
            (service, targets.named_events),
            (other, targets.relay),
        ]
        runs = [
            {model: [_run(server, target, model, number) for server, target in pair] for model in _REQUESTS}
            for number in range(rounds)
        ]
    ours_ms, theirs_ms = ({model: median(run[model][at] for run in runs) for model in _REQUESTS} for at in (0, 1))
    yield Figure(scenario="miss", name="CPU a request of 50 chunks", value=ours_ms["fifty"], unit="ms", at_most=6.0)
    yield from _parts("", ours_ms, fixed_at_most_ms=2.0, chunk_at_most_us=80.0)
    yield Figure(scenario="miss", name="CPU a request of 50 chunks, relay", value=theirs_ms["fifty"], unit="ms")
    yield from _parts(", relay", theirs_ms)
    ratio = median(run["fifty"][0] / run["fifty"][1] for run in runs)
    yield Figure(scenario="miss", name="CPU a request of 50 chunks, times the relay's", value=ratio)


def _parts(
    of: str, cpu_ms: dict[str, float], fixed_at_most_ms: float | None = None, chunk_at_most_us: float | None = None
) -> Iterator[Figure]:
    chunk_counts = [targets.CHUNK_COUNTS[model] for model in cpu_ms]
    chunk_ms, fixed_ms = linear_regression(chunk_counts, list(cpu_ms.values()))
    yield Figure(scenario="miss", name=f"fixed part{of}", value=fixed_ms, unit="ms", at_most=fixed_at_most_ms)
    yield Figure(scenario="miss", name=f"each chunk{of}", value=chunk_ms * 1000, unit="µs", at_most=chunk_at_most_us)


def _run(server: Server, target: Callable[[str, str, str], Target], model: str, number: int) -> float:
    """CPU milliseconds a request."""
    asked = target(server.url, model, f"Round {number}, question {{n}}?")
    before_s = server.cpu_s()
    answers = load(Closed(target=asked, connections=_CONNECTIONS, limit=_REQUESTS[model]))
    assert answers.fewest_tokens >= targets.CHUNK_COUNTS[model]
    return (server.cpu_s() - before_s) / answers.count * 1000
