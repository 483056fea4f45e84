"""Users who ask at moments that were chosen before, whatever the service is doing then."""

import asyncio
from time import perf_counter

import msgspec

from perf.connections import Target, connect


class Moments(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask at each of these times (`perf_counter`, which is the same in all processes of a machine).

    So many users do by turns, each from an address of its own on a connection that stays open; who has not been
    answered yet waits, and that counts.
    """

    target: Target
    at_s: list[float]
    users: int


async def moments(job: Moments) -> tuple[list[float], list[str]]:
    """How long after its moment each got its first token, and what was wrong.

    A user who asks late because its own process had no core is counted as if it had been waiting for the service.
    """
    users = [await connect(job.target, f"127.0.1.{number + 1}") for number in range(job.users)]

    async def ask(number: int, at_s: float) -> tuple[float, str | None]:
        await asyncio.sleep(at_s - perf_counter())
        user = users[number % job.users]
        while user.reply and not user.reply.done.done():
            await user.reply.done
        reply = user.ask(number)
        await reply.done
        return min(reply.arrivals_s, default=at_s) - at_s, user.failure(reply)

    told = await asyncio.gather(*(ask(number, at_s) for number, at_s in enumerate(job.at_s)))
    return [first_s for first_s, _ in told], [failure for _, failure in told if failure]
