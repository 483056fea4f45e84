"""The first provider is down for a minute and up for a minute, again and again, under steady load."""

import asyncio
import time
from collections.abc import Iterator

from perf.figures import Figure
from tests.app.asking import Client, connected, question
from tests.failover.asking import CATALOGUE, ask, expected
from tests.serving import serving
from tests.simulation import Simulation

PER_S = 20.0
BACK_WITHIN_S = 30.0


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Nobody's answer fails, and the first provider is asked again soon after it is back."""
    simulation = Simulation()
    try:
        with serving(simulation, WEIR_CATALOGUE=CATALOGUE, WEIR_BREAKER_OPEN_S="3" if is_quick else "15") as service:
            load = _Load(simulation)
            asyncio.run(load.run(service.url, phase_s=6.0 if is_quick else 60.0, phases=5))
    finally:
        simulation.stop()
    yield Figure(scenario="flapping", name="requests", value=load.count)
    yield Figure(scenario="flapping", name="failed requests", value=load.failed, at_most=0)
    back_s = max(load.back_s)
    yield Figure(scenario="flapping", name="back on the first after", value=back_s, unit="s", at_most=BACK_WITHIN_S)


class _Load:
    """A request every so often, whoever answers; `back_s` is how long each recovery took to be noticed."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.count = self.failed = 0
        self.back_s: list[float] = []

    async def run(self, url: str, phase_s: float, phases: int) -> None:
        async with connected(url) as client, asyncio.TaskGroup() as running:
            for phase in range(phases):
                is_up = bool(phase % 2)
                self._simulation.control("POST", f"/providers/openai/{'on' if is_up else 'off'}")
                finished = self._finished()
                back_s = await self._ask_for(client, running, phase_s, finished)
                if is_up:
                    self.back_s.append(back_s)

    async def _ask_for(self, client: Client, running: asyncio.TaskGroup, phase_s: float, finished: int) -> float:
        """Ask for so long; the seconds until the first provider has finished an answer."""
        began_s, back_s = time.monotonic(), phase_s
        while (spent_s := time.monotonic() - began_s) < phase_s:
            running.create_task(self._ask(client))
            if back_s == phase_s and self._finished() > finished:
                back_s = spent_s
            await asyncio.sleep(1 / PER_S)
        return back_s

    async def _ask(self, client: Client) -> None:
        query = question()
        told = await ask(client, "openai", "named", query)
        self.count += 1
        self.failed += (told.code, told.text) != (None, expected(query)) or not told.is_ended_well

    def _finished(self) -> int:
        return self._simulation.counters("openai")["finished"]
