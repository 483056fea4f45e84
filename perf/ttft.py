"""One question at a time: what the service adds to the time to the first token."""

from collections.abc import Iterator
from statistics import median, quantiles

from perf import bare, targets
from perf.figures import Figure
from perf.load import Alternate
from perf.processes import bare as bare_server
from perf.processes import load, simulator, weir


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """The difference to a raw client that asks the provider itself, by turns with the service and with a bare relay."""
    query = "Question {n}?"
    with (
        simulator() as provider,
        weir(provider) as service,
        bare_server("relay", {bare.PROVIDER: provider.openai}) as other,
    ):
        by_turns = [
            targets.named_events(service.url, "prompt", query),
            targets.relay(other.url, "prompt", query),
            targets.provider(provider.openai, "prompt", query),
        ]
        answers = load(Alternate(targets=by_turns, rounds=100 if is_quick else 500))
    ours_ms, relay_ms, direct_ms = ([each_s * 1000 for each_s in times_s] for times_s in answers.first_token_s)
    added_ms = median(ours_ms) - median(direct_ms)
    yield Figure(scenario="ttft", name="added at the median", value=added_ms, unit="ms", at_most=3.0)
    added_ms = _p99(ours_ms) - _p99(direct_ms)
    yield Figure(scenario="ttft", name="added at the 99th percentile", value=added_ms, unit="ms")
    added_ms = median(relay_ms) - median(direct_ms)
    yield Figure(scenario="ttft", name="added at the median, relay", value=added_ms, unit="ms")
    yield Figure(scenario="ttft", name="median, provider asked directly", value=median(direct_ms), unit="ms")


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]
