"""What WEIR_LOG_LINGER_MS gives and takes: Redis' work for a chunk, and when the last chunk comes."""

from collections.abc import Iterator
from statistics import median

from perf import targets
from perf.figures import Figure
from perf.processes import Server, load, simulator, weir
from perf.redis_server import Redis, redis
from perf.spread import Spread

_STREAMS = 50
_LINGERS_MS = (0, 5, 20)


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Three settings by turns, and none of Redis."""
    rounds = 2 if is_quick else 5
    with (
        redis() as server,
        simulator() as provider,
        weir(provider) as alone,
        weir(provider, server.url, WEIR_LOG_LINGER_MS="0") as first,
        weir(provider, server.url, WEIR_LOG_LINGER_MS="5") as second,
        weir(provider, server.url, WEIR_LOG_LINGER_MS="20") as third,
    ):
        servers = (alone, first, second, third)
        runs = [
            [_run(server, each, f"Round {number}.{at}") for at, each in enumerate(servers)] for number in range(rounds)
        ]
    for at, linger_ms in enumerate(_LINGERS_MS, start=1):
        late_ms = median(run[at][0] - run[0][0] for run in runs)
        trips, cpu_us = (median(run[at][column] for run in runs) for column in (1, 2))
        yield Figure(scenario="linger", name=f"{linger_ms} ms: last chunk comes later by", value=late_ms, unit="ms")
        yield Figure(scenario="linger", name=f"{linger_ms} ms: round trips a chunk", value=trips)
        yield Figure(scenario="linger", name=f"{linger_ms} ms: CPU a chunk", value=cpu_us, unit="µs")
    cpu_us = median(run[0][2] for run in runs)
    yield Figure(scenario="linger", name="without Redis: CPU a chunk", value=cpu_us, unit="µs")


def _run(redis_server: Redis, server: Server, name: str) -> tuple[float, float, float]:
    """The median time to the last chunk in ms, round trips a chunk, and CPU microseconds a chunk."""
    target = targets.named_events(server.url, "brisk", f"{name}, question {{n}}?")
    before, before_s = redis_server.work(), server.cpu_s()
    answers = load(Spread(targets=[target], connections=_STREAMS, questions=list(range(4 * _STREAMS))))
    chunks = answers.count * targets.CHUNK_COUNTS["brisk"]
    trips = redis_server.work().since(before).reads
    last_ms = median(seen.last_s - seen.asked_s for seen in answers.seen) * 1000
    return last_ms, trips / chunks, (server.cpu_s() - before_s) / chunks * 1e6
