"""The load generator: a process of its own, with hand-made HTTP/1.1 over protocols on uvloop.

One job comes in on stdin as JSON, its result leaves on stdout; a job that holds streams open says `open` and `held`
before it, each on a line, so that the one who measures can look at the server in between.
"""

import asyncio
import resource
import sys
from itertools import count
from time import perf_counter

import msgspec
import uvloop


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked where. `{n}` in the body becomes a number of its own for each request.

    `token` stands once in each chunk of the answer, `ending` somewhere in a whole one.
    """

    host: str
    port: int
    path: str
    body: str
    token: str
    ending: str


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
    """Open so many streams, `per_s` of them a second, and watch them for `hold_s` seconds; then leave."""

    target: Target
    streams: int
    per_s: float
    hold_s: float
    gap_s: float


Job = Closed | Alternate | Hold


class Answers(msgspec.Struct, kw_only=True):
    """What came back. `first_token_s` has a list for each target; lateness is that of the tokens of held streams."""

    count: int = 0
    wall_s: float = 0.0
    failures: list[str] = []
    fewest_tokens: int = 0
    first_token_s: list[list[float]] = []
    lateness_s: list[float] = []


class Reply:
    """One response as it arrives."""

    __slots__ = ("arrivals_s", "asked_s", "done", "expected", "pieces", "size")

    def __init__(self, asked_s: float) -> None:
        self.asked_s = asked_s
        self.arrivals_s: list[float] = []  # of tokens
        self.pieces: list[bytes] = []
        self.size = 0
        self.expected: int | None = None  # bytes in all; None while unknown, or when chunked
        self.done = asyncio.get_running_loop().create_future()


class Connection(asyncio.Protocol):
    """A kept-alive connection on which one question is asked at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._token = target.token.encode()
        self._ending = target.ending.encode()
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer x\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self.reply: Reply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport

    def ask(self, number: int) -> Reply:
        """Send the request; the reply is done when its last byte is here."""
        body = self._target.body.replace("{n}", str(number))
        self.reply = Reply(perf_counter())
        self.transport.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        return self.reply

    def data_received(self, data: bytes) -> None:
        reply = self.reply
        if reply is None:
            return
        if not reply.pieces:
            reply.expected = _length(data)
        reply.pieces.append(data)
        reply.size += len(data)
        if (tokens := data.count(self._token)) and reply.expected is None:
            reply.arrivals_s.extend([perf_counter()] * tokens)
        if reply.size == reply.expected or (reply.expected is None and self._is_last(reply, data)):
            reply.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.reply and not self.reply.done.done():
            self.reply.done.set_exception(ConnectionError(f"lost: {exc}"))

    def failure(self, reply: Reply) -> str | None:
        """What is wrong with a reply; None: nothing."""
        whole = b"".join(reply.pieces)
        if whole.startswith(b"HTTP/1.1 200") and self._ending in whole:
            return None
        return whole[:600].decode(errors="replace")

    def tokens(self, reply: Reply) -> int:
        """How many tokens a reply has."""
        return b"".join(reply.pieces).count(self._token)

    @staticmethod
    def _is_last(reply: Reply, data: bytes) -> bool:
        end = data if len(data) >= 5 else b"".join(reply.pieces[-2:])
        return end.endswith(b"0\r\n\r\n")


def _length(data: bytes) -> int | None:
    """The size of the whole response that begins with `data`, head included; None: chunked."""
    head, _, _ = data.partition(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"content-length:")
    return len(head) + 4 + int(rest.split(b"\r\n", 1)[0]) if found else None


async def connect(target: Target) -> Connection:
    """An open connection."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(target), target.host, target.port
    )
    return connection


async def closed(job: Closed) -> Answers:
    """See the job."""
    connections = [await connect(job.target) for _ in range(job.connections)]
    answers, numbers, token_counts = Answers(), count(), []
    began_s = perf_counter()

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
    answers.wall_s = perf_counter() - began_s
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
        connections[-1].ask(number)
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
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _run(job: Job) -> Answers:
    match job:
        case Closed():
            return await closed(job)
        case Alternate():
            return await alternate(job)
        case Hold():
            return await hold(job)


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
