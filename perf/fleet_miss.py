"""Distinct questions to an instance with Redis, and to one without: what the log, the claim and L2 cost."""

from collections.abc import Iterator
from statistics import linear_regression, median, quantiles

from perf import targets
from perf.figures import Figure
from perf.load import Alternate, Closed
from perf.processes import Server, load, simulator, weir
from perf.redis_server import Redis, redis

_CONNECTIONS = 20
_REQUESTS = {"ten": 400, "fifty": 300, "two_hundred": 100}


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """CPU a request as a multiple of the embedded default's, and what is added to the time to the first token."""
    with (
        redis() as server,
        simulator() as provider,
        weir(provider) as alone,
        weir(provider, server.url) as shared,
    ):
        yield from _costs(server, alone, shared, rounds=1 if is_quick else 5)
        yield from _times(alone, shared, rounds=100 if is_quick else 500)


def _costs(server: Redis, alone: Server, shared: Server, rounds: int) -> Iterator[Figure]:
    runs = []
    for number in range(rounds):
        before = server.work()
        pairs = {model: [_run(each, model, number) for each in (alone, shared)] for model in _REQUESTS}
        runs.append((pairs, server.work().since(before).cpu_s / sum(_REQUESTS.values()) * 1000))
    for model in ("fifty", "ten", "two_hundred"):
        ratios = [pairs[model][1] / pairs[model][0] for pairs, _ in runs]
        name = f"CPU a request of {targets.CHUNK_COUNTS[model]} chunks, times the embedded"
        at_most = 1.35 if model == "fifty" else None
        yield Figure(scenario="fleet_miss", name=name, value=median(ratios), at_most=at_most)
    for at, of in enumerate(("embedded", "with Redis")):
        cpu_ms = {model: median(pairs[model][at] for pairs, _ in runs) for model in _REQUESTS}
        chunk_ms, fixed_ms = linear_regression([targets.CHUNK_COUNTS[model] for model in cpu_ms], list(cpu_ms.values()))
        yield Figure(scenario="fleet_miss", name=f"fixed part, {of}", value=fixed_ms, unit="ms")
        yield Figure(scenario="fleet_miss", name=f"each chunk, {of}", value=chunk_ms * 1000, unit="µs")
    redis_ms = median(cpu_ms for _, cpu_ms in runs)
    yield Figure(scenario="fleet_miss", name="CPU of Redis itself a request", value=redis_ms, unit="ms")


def _run(server: Server, model: str, number: int) -> float:
    """CPU milliseconds a request."""
    asked = targets.named_events(server.url, model, f"Round {number}, question {{n}}?")
    before_s = server.cpu_s()
    answers = load(Closed(target=asked, connections=_CONNECTIONS, limit=_REQUESTS[model]))
    assert answers.fewest_tokens >= targets.CHUNK_COUNTS[model]
    return (server.cpu_s() - before_s) / answers.count * 1000


def _times(alone: Server, shared: Server, rounds: int) -> Iterator[Figure]:
    by_turns = [targets.named_events(each.url, "prompt", "Question {n}?") for each in (alone, shared)]
    answers = load(Alternate(targets=by_turns, rounds=rounds))
    alone_ms, shared_ms = ([each_s * 1000 for each_s in times_s] for times_s in answers.first_token_s)
    added_ms = median(shared_ms) - median(alone_ms)
    yield Figure(
        scenario="fleet_miss", name="added to the first token at the median", value=added_ms, unit="ms", at_most=2.0
    )
    added_ms = _p99(shared_ms) - _p99(alone_ms)
    yield Figure(scenario="fleet_miss", name="added at the 99th percentile", value=added_ms, unit="ms")


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]
