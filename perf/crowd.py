"""More clients than there is room for, all of whom want to stay."""

import asyncio
from time import perf_counter

import msgspec

from perf.connections import Connection, Reply, Target


class Crowd(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Open so many connections from `address`, `per_s` of them a second, ask on each, and stay for `hold_s` seconds.

    They ask so many distinct questions, by turns.
    """

    target: Target
    connections: int
    per_s: float
    hold_s: float
    questions: int
    address: str = "127.0.0.1"


class Crowded(msgspec.Struct, kw_only=True):
    """What became of them: how many are live at the end, after how long the others were refused, and with what status.

    `lost` are neither.
    """

    live: int = 0
    refused_s: list[float] = []
    statuses: dict[str, int] = {}
    lost: list[str] = []


class Bursts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """At each of these times (`perf_counter`) the crowd comes, is told, and leaves."""

    crowd: Crowd
    at_s: list[float]


class Burst(msgspec.Struct, kw_only=True):
    """One of them: after how long the last one had asked, and after how long the last one was told; what they were."""

    asked_s: float
    told_s: float
    crowd: Crowded


async def bursts(job: Bursts) -> list[Burst]:
    """All have come, one after the other."""
    return [await _burst(job.crowd, at_s) for at_s in job.at_s]


async def _burst(job: Crowd, at_s: float) -> Burst:
    await asyncio.sleep(at_s - perf_counter())
    guests, _ = await crowd(job)
    told_s = perf_counter() - at_s
    told = crowded(guests)
    for guest in guests:
        guest.leave()
    return Burst(asked_s=max(guest.asked_s for guest in guests) - at_s, told_s=told_s, crowd=told)


async def crowd(job: Crowd) -> tuple[list["_Guest"], float]:
    """All have asked, and have been told; the second is when the last one was."""
    began_s = perf_counter()
    guests: list[asyncio.Task[_Guest]] = []
    for number in range(job.connections):
        await asyncio.sleep(began_s + number / job.per_s - perf_counter())
        guests.append(asyncio.create_task(_ask(job, number)))
    return await asyncio.gather(*guests), perf_counter() - began_s


def crowded(guests: list["_Guest"]) -> Crowded:
    """What is to be told of all of them."""
    told = Crowded(live=sum(guest.is_live for guest in guests))
    for guest in guests:
        if guest.refused_s is not None:
            told.refused_s.append(guest.refused_s)
            told.statuses[guest.status] = told.statuses.get(guest.status, 0) + 1
        elif not guest.is_live:
            told.lost.append(guest.text)
    return told


class _Guest(Connection):
    """One of the crowd; who is refused leaves."""

    refused_s: float | None = None
    told: asyncio.Future[None]

    def ask(self, number: int) -> Reply:
        self.told = asyncio.get_running_loop().create_future()
        return super().ask(number)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        reply = self.reply
        if reply is None or self.told.done():
            return
        if reply.expected is not None and reply.done.done():
            self.refused_s = perf_counter() - reply.asked_s
            self.transport.abort()
        if reply.arrivals_s or self.refused_s is not None:
            self.told.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.told.done():
            self.told.set_result(None)

    def leave(self) -> None:
        """Whatever is under way is of no interest any more."""
        if self.reply:
            self.reply.done.cancel()
        self.transport.abort()

    @property
    def asked_s(self) -> float:
        return self.reply.asked_s if self.reply else 0.0

    @property
    def status(self) -> str:
        return self.text[9:12]

    @property
    def text(self) -> str:
        return b"".join(self.reply.pieces)[:300].decode(errors="replace") if self.reply else ""

    @property
    def is_live(self) -> bool:
        return self.reply is not None and bool(self.reply.arrivals_s) and not self.reply.done.done()


async def _ask(job: Crowd, number: int) -> _Guest:
    _, guest = await asyncio.get_running_loop().create_connection(
        lambda: _Guest(job.target), job.target.host, job.target.port, local_addr=(job.address, 0)
    )
    guest.ask(number % job.questions)
    await guest.told
    return guest
