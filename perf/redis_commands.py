"""What Redis is asked for a hit, and for a chunk that many read."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from perf import targets
from perf.figures import Figure
from perf.load import Alternate, Hold
from perf.processes import Server, fleet, load, loading, milestone, simulator
from perf.redis_server import Redis, redis

_GAP_S = 0.05
_PER_S = 200.0


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """Round trips a hit, and commands a chunk while others read on an instance that does not lead.

    What instances say to Redis when nobody asks anything is taken off.
    """
    with redis() as server, simulator() as provider, fleet(provider, server.url, 2) as (leader, follower):
        idle_s = 2.0 if is_quick else 5.0
        before = server.work()
        time.sleep(idle_s)
        idle = server.work().since(before)
        quiet = _Quiet(server, idle.commands / idle_s, idle.reads / idle_s)
        yield from _hits(quiet, leader, follower, rounds=100 if is_quick else 500)
        for generations, readers in ((1, 1), (1, 10), (1, 100), (10, 10)):
            yield from _tail(quiet, (leader, follower), generations, readers, 2.0 if is_quick else 5.0)
            provider.wait_until_idle()


class _Quiet:
    """Redis without what it is always asked."""

    def __init__(self, server: Redis, commands_per_s: float, reads_per_s: float) -> None:
        self._server = server
        self._idle_per_s = (commands_per_s, reads_per_s)
        self.begin()

    def begin(self) -> None:
        """Count from now."""
        self._before, self._began_s = self._server.work(), time.monotonic()

    def counts(self) -> tuple[float, float]:
        """Commands and round trips since, beyond the usual ones."""
        work, elapsed_s = self._server.work().since(self._before), time.monotonic() - self._began_s
        commands, reads = (per_s * elapsed_s for per_s in self._idle_per_s)
        return work.commands - commands, work.reads - reads


def _hits(quiet: _Quiet, leader: Server, follower: Server, rounds: int) -> Iterator[Figure]:
    """The second instance has nothing of what the first was asked; a moment later it has all."""
    for name, server, at_most in (("a miss", leader, None), ("L2", follower, 3.0), ("L1", follower, 0.05)):
        quiet.begin()
        load(Alternate(targets=[targets.named_events(server.url, "ten", "Which is {n}?")], rounds=rounds))
        _, trips = quiet.counts()
        yield Figure(scenario="redis", name=f"round trips for {name}", value=trips / rounds, at_most=at_most)


def _tail(
    quiet: _Quiet, servers: tuple[Server, Server], generations: int, readers: int, hold_s: float
) -> Iterator[Figure]:
    """One asker leads each generation; so many others follow it on the other instance."""
    question = f"{generations} told to {readers}: {{n}}?"
    with ExitStack() as stack:
        for server, streams in zip(servers, (generations, generations * readers), strict=True):
            target = targets.named_events(server.url, "steady", question)
            job = Hold(
                target=target, streams=streams, per_s=_PER_S, hold_s=hold_s + 4, gap_s=_GAP_S, questions=generations
            )
            generator = stack.enter_context(loading(job))
            assert milestone(generator) == b"open\n"
        quiet.begin()
        time.sleep(hold_s)
        commands, trips = quiet.counts()
    chunks = hold_s / _GAP_S * generations
    name = (
        f"{generations} generation{'s' if generations > 1 else ''}, {readers} reader{'s' if readers > 1 else ''} each"
    )
    yield Figure(scenario="redis", name=f"commands a chunk, {name} elsewhere", value=commands / chunks)
    yield Figure(scenario="redis", name=f"round trips a chunk, {name} elsewhere", value=trips / chunks)
