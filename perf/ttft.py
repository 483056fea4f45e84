"""One question at a time: what the service adds to the time to the first token."""

from collections.abc import Iterator
from statistics import median, quantiles

from perf import targets
from perf.figures import Figure
from perf.load import Alternate
from perf.processes import load, simulator, weir


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """The difference to a raw client that asks the provider itself, by turns with the service."""
    rounds = 100 if is_quick else 500
    query = "Question {n}?"
    with simulator() as provider, weir(provider) as service:
        pair = [targets.named_events(service.url, "prompt", query), targets.provider(provider.openai, "prompt", query)]
        ours_s, theirs_s = load(Alternate(targets=pair, rounds=rounds)).first_token_s
    added_s = median(ours_s) - median(theirs_s)
    yield Figure(scenario="ttft", name="added at the median", value=added_s * 1000, unit="ms", at_most=3.0)
    added_s = quantiles(ours_s, n=100)[98] - quantiles(theirs_s, n=100)[98]
    yield Figure(scenario="ttft", name="added at the 99th percentile", value=added_s * 1000, unit="ms")
    yield Figure(scenario="ttft", name="median, provider asked directly", value=median(theirs_s) * 1000, unit="ms")
