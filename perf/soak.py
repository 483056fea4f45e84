"""Random faults on all providers: every request ends whole or with one clear error."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict

from perf.figures import Figure
from tests.app.asking import connected
from tests.failover.asking import CATALOGUE
from tests.failover.soaking import SETTINGS, Left, Soaked, left, soak, tasks_at_rest
from tests.serving import Service, serving
from tests.simulation import Simulation

SEED = 5


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """How they ended."""
    count, simulation, began_s = 1_000 if is_quick else 10_000, Simulation(), time.monotonic()
    try:
        with serving(simulation, WEIR_CATALOGUE=CATALOGUE, **SETTINGS) as service:
            soaked, still_open = asyncio.run(_soak(simulation, service, count))
    finally:
        simulation.stop()
    yield Figure(scenario="soak", name="requests", value=sum(soaked.endings.values()), at_least=count)
    yield Figure(scenario="soak", name="neither whole nor one clear error", value=len(soaked.wrong), at_most=0)
    for what, number in asdict(still_open).items():
        yield Figure(scenario="soak", name=f"{what} left", value=number, at_most=0)
    for ending, times in soaked.endings.most_common():
        yield Figure(scenario="soak", name=ending, value=times)
    yield Figure(scenario="soak", name="took", value=time.monotonic() - began_s, unit="s")


async def _soak(simulation: Simulation, service: Service, count: int) -> tuple[Soaked, Left]:
    async with connected(service.url) as client:
        client.simulator = simulation
        tasks = await tasks_at_rest(client)
        soaked = await soak(client, SEED, count)
        return soaked, await left(client, service, tasks)
