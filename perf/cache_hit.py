"""A stored answer of 50 chunks, against a bare handler that returns the same bytes."""

import tempfile
import urllib.request
from collections.abc import Iterator
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
_FORMS = {"named events": targets.named_events, "completion chunks": targets.completion_chunks}


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
            yield from _compare(form, pair, rounds=2 if is_quick else 5, round_s=1.0 if is_quick else 2.0)


def _compare(form: str, pair: list[tuple[Server, Target]], *, rounds: int, round_s: float) -> Iterator[Figure]:
    runs = [[_run(server, target, round_s) for server, target in pair] for _ in range(rounds)]
    rate_ratio = median(ours[0] / theirs[0] for ours, theirs in runs)
    ours_cpu_us, theirs_cpu_us = (median(run[at][1] for run in runs) for at in (0, 1))
    yield Figure(scenario="cache_hit", name=f"{form}: rate, share of bare", value=rate_ratio, at_least=0.5)
    yield Figure(scenario="cache_hit", name=f"{form}: rate", value=median(run[0][0] for run in runs), unit="/s")
    yield Figure(scenario="cache_hit", name=f"{form}: CPU a request", value=ours_cpu_us, unit="µs")
    yield Figure(scenario="cache_hit", name=f"{form}: CPU a request, bare", value=theirs_cpu_us, unit="µs")


def _run(server: Server, target: Target, round_s: float) -> tuple[float, float]:
    """Answers a second, and CPU microseconds an answer."""
    before_s = server.cpu_s()
    answers = load(Closed(target=target, connections=_CONNECTIONS, limit_s=round_s))
    assert answers.fewest_tokens >= targets.CHUNK_COUNTS["fifty"]
    return answers.count / answers.wall_s, (server.cpu_s() - before_s) / answers.count * 1e6


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
