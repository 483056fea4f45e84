"""Clients that do not read what they ask for: some leave at once, some never read, some read a little at a time."""

import asyncio
import socket
from itertools import cycle

import msgspec

from perf.connections import Connection, Target

_TAKEN_BYTES = 4096
"""What the system takes in for a client that does not read: no more than a few events."""

_SIPS = 10
"""So often a slow one reads while it stays."""


class Idlers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """So many ask, `at_once` of them at any time, and stay for `stay_s` seconds, but for those that leave at once.

    They ask so many distinct questions, by turns.
    """

    target: Target
    times: int
    at_once: int
    stay_s: float
    questions: int


async def idlers(job: Idlers) -> int:
    """All have come and gone; return how many."""
    room = asyncio.Semaphore(job.at_once)

    async def one(number: int, what_it_does: str) -> None:
        async with room:
            connection = await _connect(job.target)
            reply = connection.ask(number % job.questions)
            if what_it_does != "leave":
                await _stay(connection, job.stay_s, sips=_SIPS if what_it_does == "sip" else 1)
            reply.done.cancel()
            connection.transport.abort()

    kinds = zip(range(job.times), cycle(("leave", "never read", "sip")), strict=False)
    await asyncio.gather(*(one(number, kind) for number, kind in kinds))
    return job.times


async def _stay(connection: Connection, stay_s: float, *, sips: int) -> None:
    """It does not read, but for a moment before each sip but the first."""
    for number in range(sips):
        if number:
            connection.transport.resume_reading()
            await asyncio.sleep(0)
        connection.transport.pause_reading()
        await asyncio.sleep(stay_s / sips)


async def _connect(target: Target) -> Connection:
    own = socket.socket()
    own.setblocking(False)  # noqa: FBT003  # the library's
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TAKEN_BYTES)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(own, (target.host, target.port))
    _, connection = await loop.create_connection(lambda: Connection(target), sock=own)
    return connection
