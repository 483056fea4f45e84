"""As many streams as the service carries, as many again that it refuses, and one user who wants all of them."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from statistics import median

from domain.admission import Slots
from perf import greedy, targets
from perf.crowd import Crowd, Crowded
from perf.figures import Figure
from perf.processes import Server, finished, loading, milestone, simulator, weir

_QUESTIONS = 100
_open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """What a slot costs, what a full service does, and what one user's thousand connections cost another."""
    yield Figure(
        scenario="slots", name="10,000 slots taken and released, each", value=_slot_us(), unit="µs", at_most=10
    )
    yield from _full(1000 if is_quick else 10_000, per_s=400.0)
    yield from greedy.once(bursts=8 if is_quick else 20)
    yield from greedy.again_and_again(rounds=300 if is_quick else 1000)


def _slot_us() -> float:
    return min(asyncio.run(_taken_and_released(10_000)) for _ in range(5)) * 1e6


async def _taken_and_released(count: int) -> float:
    slots = Slots(limit=count, limit_per_user=3, queue_size=100, clock=time.monotonic)
    users = [f"address:{number // 3}" for number in range(count)]
    began_s = time.perf_counter()
    taken = [await slots.take(user) for user in users]
    for slot in taken:
        slot.release()
    return (time.perf_counter() - began_s) / count


def _full(streams: int, per_s: float) -> Iterator[Figure]:
    """Twice as many connections as there are slots."""
    with simulator() as provider, weir(provider, WEIR_MAX_CONNECTIONS=str(streams)) as service:
        target = targets.named_events(service.url, "lasting", "Stream {n}?")
        job = Crowd(target=target, connections=2 * streams, per_s=per_s, hold_s=8.0, questions=_QUESTIONS)
        with loading(job) as generator:
            assert milestone(generator) == b"open\n"
            probe_ms = max(_answered_ms(service, "/health/live") for _ in range(20))
            metrics_ms = max(_answered_ms(service, "/metrics") for _ in range(20))
            active = _active(service)
            answers = finished(generator)
    told = answers.crowd or Crowded()
    name = f"{2 * streams:,} connections, {streams:,} slots"
    yield Figure(scenario="slots", name=f"{name}: live to the end", value=told.live, at_least=streams)
    yield Figure(scenario="slots", name="sse_active_connections then", value=active)
    yield Figure(scenario="slots", name="told 503", value=told.statuses.get("503", 0), at_least=streams)
    yield Figure(scenario="slots", name="neither live nor told", value=len(told.lost), at_most=0)
    late_s = max(told.refused_s)
    yield Figure(scenario="slots", name="the slowest 503", value=late_s * 1000, unit="ms", at_most=1000)
    yield Figure(scenario="slots", name="503, median", value=median(told.refused_s) * 1000, unit="ms")
    yield Figure(scenario="slots", name="/health/live when full, slowest of 20", value=probe_ms, unit="ms")
    yield Figure(scenario="slots", name="/metrics when full, slowest of 20", value=metrics_ms, unit="ms")


def _answered_ms(service: Server, path: str) -> float:
    began_s = time.perf_counter()
    with _open_url(service.url + path, timeout=10) as response:
        response.read()
    return (time.perf_counter() - began_s) * 1000


def _active(service: Server) -> float:
    with _open_url(f"{service.url}/metrics", timeout=10) as response:
        found = re.search(rb"^sse_active_connections (\S+)$", response.read(), re.MULTILINE)
    return float(found[1]) if found else 0.0
