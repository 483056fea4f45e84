"""A first route that is out of order: what it costs those who are answered by the second."""

import http.client
import json
import time
from collections.abc import Iterator
from itertools import count, pairwise
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from perf import targets
from perf.figures import Figure
from perf.load import Alternate, Closed
from perf.processes import Simulator, failed_attempts, load, simulator, weir

REQUESTS, CONCURRENCY = 500, 32
TIMEOUT_S = 1.0
NOTICED_LATE_MS = 250.0
_questions = count()


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """What is added once the circuit is open, and how late silences are noticed."""
    with simulator() as provider:
        for outage in ("refusing", "500", "silent"):
            yield from _outage(provider, outage, rounds=50 if is_quick else 300)
        yield from _silences(provider, rounds=3 if is_quick else 10)


def _outage(provider: Simulator, outage: str, rounds: int) -> Iterator[Figure]:
    """All answers are whole, or the load generator would say so.

    Wasted calls are counted where they arrive, and where they are made: one that is refused never arrives.
    """
    with weir(provider, WEIR_FIRST_TOKEN_TIMEOUT_S=str(TIMEOUT_S), WEIR_RETRY_BASE_S="0.05") as service:
        opening = targets.named_events(service.url, f"behind_{outage}", "Question {n}?")
        behind = targets.named_events(service.url, f"behind_{outage}", "Once more, question {n}?")
        alone = targets.named_events(service.url, "prompt", "Another question {n}?")
        answers = load(Closed(target=opening, connections=CONCURRENCY, limit=REQUESTS))
        yield Figure(
            scenario="failover", name=f"{outage}: whole answers of {REQUESTS}", value=answers.count, at_least=500
        )
        provider.wait_until_idle()
        calls, failures = provider.calls(), failed_attempts(service.url)
        by_turns = load(Alternate(targets=[behind, alone], rounds=rounds))
        behind_s, alone_s = map(median, by_turns.first_token_s)
        wasted = max(provider.calls() - calls - 2 * rounds, failed_attempts(service.url) - failures)
    yield Figure(scenario="failover", name=f"{outage}: calls until it is open", value=failures, at_least=5)
    added_ms = (behind_s - alone_s) * 1000
    yield Figure(scenario="failover", name=f"{outage}: added at the median", value=added_ms, unit="ms", at_most=2.0)
    yield Figure(scenario="failover", name=f"{outage}: calls wasted once it is open", value=wasted, at_most=1)


def _silences(provider: Simulator, rounds: int) -> Iterator[Figure]:
    """How much later than its deadline a silence ends with a token of the next route."""
    settings: dict[str, Any] = {"WEIR_FIRST_TOKEN_TIMEOUT_S": str(TIMEOUT_S), "WEIR_STALL_TIMEOUT_S": str(TIMEOUT_S)}
    never: dict[str, Any] = {"WEIR_BREAKER_FAILURES": "1000", "WEIR_BREAKER_WINDOW": "1000"}
    with weir(provider, **settings, **never) as service:
        for model, name in (("behind_silent", "silent first token"), ("behind_stalled", "stall")):
            late_ms = max(_longest_wait_s(service.url, model) - TIMEOUT_S for _ in range(rounds)) * 1000
            yield Figure(
                scenario="failover", name=f"{name}: noticed late by", value=late_ms, unit="ms", at_most=NOTICED_LATE_MS
            )


def _longest_wait_s(url: str, model: str) -> float:
    """For a token of one answer, from the one before or from the question."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    body = json.dumps({"model": model, "query": f"Question {next(_questions)} that stalls?"})
    moments_s = [time.monotonic()]
    connection.request("POST", "/v1/stream", body, {"content-type": "application/json"})
    with connection.getresponse() as response:
        moments_s += [time.monotonic() for line in response if line == b"event: chunk\n"]
    connection.close()
    return max(after - before for before, after in pairwise(moments_s))
