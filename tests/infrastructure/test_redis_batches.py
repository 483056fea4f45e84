"""Batches of commands: each answer is its command's, whatever happens to a connection or to this process."""

import asyncio
import time

import pytest
from redis.exceptions import ResponseError

from infrastructure.redis.connection import TIMEOUT_S, connect
from tests.loops import settle
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def batches(redis_server):
    commands = connect(redis_server.url).commands
    yield commands
    await commands.aclose()
    await settle()


async def run(batches, *commands):
    """What is answered to each."""
    batch = batches.pipeline()
    for command in commands:
        batch.execute_command(*command)
    return await batch.execute()


async def test_each_answer_is_its_commands(batches):
    """An error is one answer among the others; what the library makes of an answer is made of it here."""
    commands = [("SET", "k", "v"), ("XADD", "k", "*", "f", 1), ("GET", "k"), ("XRANGE", "x", "-", "+")]

    assert await run(batches, *commands) == [True, AnyWrongType(), b"v", []]


class AnyWrongType:
    """Equal to what the server says of a value of another type."""

    def __eq__(self, other):
        return isinstance(other, ResponseError) and "WRONGTYPE" in str(other)

    __hash__ = None


async def test_many_batches_at_once_share_the_connections(batches):
    """More of them than connections; none waits for one that is kept for others."""
    batches_at_once = (run(batches, ("ECHO", str(number)), ("ECHO", "x")) for number in range(200))

    assert await asyncio.gather(*batches_at_once) == [[str(number).encode(), b"x"] for number in range(200)]


async def test_a_connection_that_the_server_has_closed_is_replaced(batches, redis_server):
    """As after CLIENT KILL, or a time in which nothing was asked."""
    for _ in range(3):
        await asyncio.gather(*(run(batches, ("PING",)) for _ in range(4)))
        redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert await run(batches, ("ECHO", "x")) == [b"x"]


async def test_a_batch_that_is_cancelled_leaves_its_answers_to_nobody(batches):
    """The connection on which they will come is not used again."""
    await run(batches, ("PING",))
    cancelled = asyncio.ensure_future(run(batches, *[("ECHO", "old")] * 1000))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    assert await run(batches, ("ECHO", "new")) == [b"new"]


async def test_a_process_that_had_no_time_does_not_take_the_server_for_away(batches):
    """Its timer is up before it has looked whether there is an answer; on a busy machine that is often so."""
    await run(batches, ("PING",))
    asked = asyncio.ensure_future(run(batches, ("ECHO", "x")))
    await asyncio.sleep(0)
    until_s = time.monotonic() + 2 * TIMEOUT_S
    while time.monotonic() < until_s:
        pass

    assert await asked == [b"x"]


async def test_nor_does_one_whose_turns_are_all_long(batches):
    """To connect takes a dozen of them: what counts is how often it could have seen an answer."""
    async with asyncio.TaskGroup() as group:
        burning = group.create_task(burn(TIMEOUT_S * 0.4))
        answers = await run(batches, ("ECHO", "x"))
        burning.cancel()

    assert answers == [b"x"]


async def burn(turn_s):
    """Every turn of the loop takes so long."""
    while True:
        until_s = time.monotonic() + turn_s
        while time.monotonic() < until_s:
            pass
        await asyncio.sleep(0)


async def test_a_server_that_does_not_answer_is_waited_for_twice():
    """Its connections are accepted by the system, which is no answer."""
    server = RedisServer()
    batches = connect(server.url).commands
    try:
        await run(batches, ("PING",))
        server.ask("CLIENT", "PAUSE", "10000")
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            await run(batches, ("ECHO", "x"))
        assert time.monotonic() - began_s < 8 * TIMEOUT_S
    finally:
        await batches.aclose()
        await settle()
        server.close()
