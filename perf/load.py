"""The load generator: a process of its own, on uvloop.

One job comes in on stdin as JSON, its result leaves on stdout; a job that holds streams open says `open` and `held`
before it, each on a line, so that the one who measures can look at the server in between.
"""

import asyncio
import os
import resource
import sys
from itertools import count
from time import perf_counter, process_time

import msgspec
import uvloop

from perf.connections import Connection, Reply, Target, connect
from perf.crowd import Burst, Bursts, Crowd, Crowded, bursts, crowd, crowded
from perf.idlers import Idlers, idlers
from perf.moments import Moments, moments
from perf.spread import Seen, Spread, Tour


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask from so many connections, each anew when it is answered, until `limit` answers or `limit_s` seconds."""

    target: Target
    connections: int
    limit: int = 1_000_000
    limit_s: float = 60.0


class Alternate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask the targets by turns, `rounds` times each, one request at a time."""

    targets: list[Target]
    rounds: int


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Open so many streams, `per_s` of them a second, and watch them for `hold_s` seconds; then leave.

    They ask so many distinct questions, by turns; None: each its own.
    """

    target: Target
    streams: int
    per_s: float
    hold_s: float
    gap_s: float
    questions: int | None = None


Job = Closed | Alternate | Hold | Spread | Crowd | Bursts | Moments | Idlers


class Answers(msgspec.Struct, kw_only=True):
    """What came back. `first_token_s` has a list for each target; lateness is that of the tokens of held streams.

    `cpu_s` is what asking until then took. `crowd` is what became of a crowd. `seen` are the answers to spread
    questions, of which `lost` had to be asked elsewhere, their server being gone.
    """

    count: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    failures: list[str] = []
    fewest_tokens: int = 0
    first_token_s: list[list[float]] = []
    lateness_s: list[float] = []
    seen: list[Seen] = []
    lost: int = 0
    crowd: Crowded | None = None
    bursts: list[Burst] = []


async def closed(job: Closed) -> Answers:
    """See the job."""
    connections = [await connect(job.target) for _ in range(job.connections)]
    answers, numbers, token_counts = Answers(), count(), []
    began_s, began_cpu_s = perf_counter(), process_time()

    async def ask_again_and_again(connection: Connection) -> None:
        while (number := next(numbers)) < job.limit and perf_counter() - began_s < job.limit_s:
            reply = connection.ask(number)
            await reply.done
            answers.count += 1
            if number < 1000:
                token_counts.append(connection.tokens(reply))
            if failure := connection.failure(reply):
                answers.failures.append(failure)

    await asyncio.gather(*map(ask_again_and_again, connections))
    answers.wall_s, answers.cpu_s = perf_counter() - began_s, process_time() - began_cpu_s
    answers.fewest_tokens = min(token_counts)
    return answers


async def alternate(job: Alternate) -> Answers:
    """See the job."""
    connections = [await connect(target) for target in job.targets]
    answers = Answers(first_token_s=[[] for _ in connections])
    for number in range(job.rounds):
        for connection, first_token_s in zip(connections, answers.first_token_s, strict=True):
            reply = connection.ask(number)
            await reply.done
            answers.count += 1
            if failure := connection.failure(reply):
                answers.failures.append(failure)
            first_token_s.append(reply.arrivals_s[0] - reply.asked_s)
    return answers


async def hold(job: Hold) -> Answers:
    """See the job."""
    began_s = perf_counter()
    connections = []
    for number in range(job.streams):
        await asyncio.sleep(began_s + number / job.per_s - perf_counter())
        connections.append(await connect(job.target))
        connections[-1].ask(number % (job.questions or job.streams))
    await asyncio.sleep(2 * job.gap_s)
    _say("open")
    opened_s = perf_counter()
    await asyncio.sleep(job.hold_s)
    _say("held")
    held_s = perf_counter()
    replies = [connection.reply for connection in connections if connection.reply]
    lateness_s = [late for reply in replies for late in _lateness_s(reply, job.gap_s, opened_s, held_s)]
    failures = [_held_failure(reply) for reply in replies if reply.done.done() or not reply.arrivals_s]
    return Answers(count=len(lateness_s), wall_s=held_s - opened_s, failures=failures, lateness_s=lateness_s)


async def spread(job: Spread) -> Answers:
    """See the job."""
    tour = Tour(job, _say)
    wall_s = await tour.run()
    return Answers(
        count=len(tour.seen),
        wall_s=wall_s,
        failures=tour.failures,
        fewest_tokens=min(tour.token_counts, default=0),
        seen=tour.seen,
        lost=tour.lost,
    )


async def stay(job: Crowd) -> Answers:
    """See the job."""
    guests, wall_s = await crowd(job)
    _say("open")
    await asyncio.sleep(job.hold_s)
    _say("held")
    return Answers(count=len(guests), wall_s=wall_s, crowd=crowded(guests))


def _held_failure(reply: Reply) -> str:
    if reply.done.done() and reply.done.exception():
        return str(reply.done.exception())
    return b"".join(reply.pieces)[-300:].decode(errors="replace") or "no answer"


def _lateness_s(reply: Reply, gap_s: float, from_s: float, to_s: float) -> list[float]:
    """How late the stream's tokens between two times were, by the schedule of its most punctual one."""
    behind_s = [arrival_s - number * gap_s for number, arrival_s in enumerate(reply.arrivals_s)]
    best_s = min(behind_s, default=0.0)
    pairs = zip(reply.arrivals_s, behind_s, strict=True)
    return [behind - best_s for arrival_s, behind in pairs if from_s <= arrival_s <= to_s]


def _say(text: str) -> None:
    """The line has been written whole: what a full pipe takes of it, and then the rest."""
    rest = memoryview(text.encode() + b"\n")
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


async def _come(job: Bursts) -> Answers:
    return Answers(bursts=await bursts(job))


async def _ask(job: Moments) -> Answers:
    first_s, failures = await moments(job)
    return Answers(count=len(first_s), failures=failures, first_token_s=[first_s])


async def _idle(job: Idlers) -> Answers:
    return Answers(count=await idlers(job))


async def _run(job: Job) -> Answers:
    match job:
        case Closed():
            doing = closed(job)
        case Alternate():
            doing = alternate(job)
        case Hold():
            doing = hold(job)
        case Crowd():
            doing = stay(job)
        case Bursts():
            doing = _come(job)
        case Moments():
            doing = _ask(job)
        case Idlers():
            doing = _idle(job)
        case Spread():
            doing = spread(job)
    return await doing


def main() -> None:
    """Do the job on stdin."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(_run(job))
    _say(msgspec.json.encode(answers).decode())


if __name__ == "__main__":
    main()
