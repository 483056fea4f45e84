"""A stored answer of 50 chunks, against a bare handler that returns the same bytes."""

import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from perf import bare, targets
from perf.connections import Target
from perf.figures import Figure
from perf.load import Closed
from perf.processes import Server, load, simulator, weir
from perf.processes import bare as bare_server

_CONNECTIONS = 16
_QUESTION = "What is a weir?"
_ROUND_S = 1.0


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Requests a second and CPU a request, both as shares of the bare server's."""
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator() as provider,
        weir(provider) as service,
        bare_server("answer", _stored_answers(service, Path(folder))) as other,
    ):
        for form, target in _FORMS.items():
            pair = [(server, target(server.url, "fifty", _QUESTION)) for server in (service, other)]
            yield from _compare(form, pair, rounds=3 if is_quick else 11)


def _no_two_alike(url: str, model: str, query: str) -> Target:
    """The same question in another body each time, none of which the service knows."""
    return targets.named_events(url, model, query, thread_id="t{n}")


_FORMS = {
    "named events": targets.named_events,
    "completion chunks": targets.completion_chunks,
    "named events, no two bodies alike": _no_two_alike,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What a server did in one round, and what that took: CPU of its processes, and of the load generator."""

    per_s: float
    cpu_us: float
    asking_us: float


def _compare(form: str, pair: list[tuple[Server, Target]], *, rounds: int) -> Iterator[Figure]:
    runs = [[_round(server, target) for server, target in pair] for _ in range(rounds)]
    ours, bare_ones = zip(*runs, strict=True)
    rate_ratio = median(one.per_s / bare_one.per_s for one, bare_one in runs)
    yield _figure(f"{form}: rate, share of bare", rate_ratio, at_least=0.5)
    yield _figure(f"{form}: rate", median(each.per_s for each in ours), "/s")
    yield _figure(f"{form}: CPU a request", median(each.cpu_us for each in ours), "µs")
    yield _figure(f"{form}: CPU a request, bare", median(each.cpu_us for each in bare_ones), "µs")
    yield _figure(f"{form}: CPU a request, load generator", median(each.asking_us for each in bare_ones), "µs")


def _figure(name: str, value: float, unit: str = "", at_least: float | None = None) -> Figure:
    return Figure(scenario="cache_hit", name=name, value=value, unit=unit, at_least=at_least)


def _round(server: Server, target: Target) -> _Round:
    before_s = server.cpu_s()
    answers = load(Closed(target=target, connections=_CONNECTIONS, limit_s=_ROUND_S))
    assert answers.fewest_tokens >= targets.CHUNK_COUNTS["fifty"]
    return _Round(
        per_s=answers.count / answers.wall_s,
        cpu_us=(server.cpu_s() - before_s) / answers.count * 1e6,
        asking_us=answers.cpu_s / answers.count * 1e6,
    )


def _stored_answers(service: Server, folder: Path) -> dict[str, str]:
    """The environment of a bare server that answers as the service does; the question is stored from now on."""
    files = {bare.NAMED_EVENTS: targets.named_events, bare.CHUNKS: targets.completion_chunks}
    for name, target in files.items():
        asked = target(service.url, "fifty", _QUESTION)
        _answer(service.url, asked)
        (folder / name).write_bytes(_answer(service.url, asked))
    return {name: str(folder / name) for name in files}


def _answer(url: str, target: Target) -> bytes:
    request = urllib.request.Request(url + target.path, target.body.encode(), {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        whole: bytes = response.read()
        return whole
