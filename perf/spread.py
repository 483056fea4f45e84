"""Questions spread over several instances, as a load balancer would spread them."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from time import perf_counter

import msgspec

from perf.connections import Connection, Reply, Target, connect

_COUNTED = 1000
_RECONNECT_S = 0.01
_LOOK_S = 1.0


class Spread(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask the questions of those numbers, in their order, from so many connections, which the targets have by turns.

    Each connection asks anew when it is answered, until there are no more questions, or for `limit_s` seconds over and
    over. One whose server is gone goes on with the next target, from the question that was not answered, and comes
    back.
    """

    targets: list[Target]
    connections: int
    questions: list[int]
    limit_s: float | None = None


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One answer: where it came from, and when it was asked for, begun and whole, in seconds of the job."""

    cache: str
    asked_s: float
    first_s: float
    last_s: float


class Tour:
    """A job under way. `seen` are the answers so far; `lost` counts questions that had to be asked elsewhere."""

    def __init__(self, job: Spread, say: Callable[[str], None]) -> None:
        self._job = job
        self._say = say
        self._questions = iter(job.questions) if job.limit_s is None else cycle(job.questions)
        self._half = len(job.questions) // 2
        self.seen: list[Seen] = []
        self.failures: list[str] = []
        self.token_counts: list[int] = []
        self.lost = 0

    async def run(self) -> float:
        """All have been answered; the seconds that it took."""
        homes = list(islice(cycle(self._job.targets), self._job.connections))
        connections = [await connect(home) for home in homes]
        self._began_s = perf_counter()
        await asyncio.gather(*map(self._ask_on, connections, homes))
        return perf_counter() - self._began_s

    async def _ask_on(self, connection: Connection, home: Target) -> None:
        limit_s, looked_s = self._job.limit_s, 0.0
        for question in self._questions:
            if connection.target != home and perf_counter() - looked_s > _LOOK_S:
                connection, looked_s = await _first_of([home, connection.target]), perf_counter()
            while True:
                try:
                    reply = connection.ask(question)
                    await reply.done
                    break
                except ConnectionError:
                    self.lost += 1
                    connection, looked_s = await self._elsewhere(connection.target), perf_counter()
            self._saw(connection, reply)
            if limit_s is not None and perf_counter() - self._began_s >= limit_s:
                return

    async def _elsewhere(self, gone: Target) -> Connection:
        """A connection to the first target after that one which can be reached."""
        at = self._job.targets.index(gone) + 1
        return await _first_of([*self._job.targets[at:], *self._job.targets[:at]])

    def _saw(self, connection: Connection, reply: Reply) -> None:
        if failure := connection.failure(reply):
            self.failures.append(failure)
            return
        if len(self.token_counts) < _COUNTED:
            self.token_counts.append(connection.tokens(reply))
        times_s = (reply.asked_s, reply.arrivals_s[0], perf_counter())
        self.seen.append(Seen(connection.cache(reply), *(time_s - self._began_s for time_s in times_s)))
        if len(self.seen) == self._half:
            self._say("half")


async def _first_of(targets: Sequence[Target]) -> Connection:
    """A connection to the first that can be reached."""
    for target in cycle(targets):
        try:
            return await connect(target)
        except OSError:
            await asyncio.sleep(_RECONNECT_S)
    raise ValueError("no target")
