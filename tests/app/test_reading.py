"""Request bodies on their way in: what they may hold of the memory together."""

import asyncio

import pytest

from app.errors import BodiesTakeAllMemory, Draining, RequestTimeout, TooManyBodies
from app.reading import DRAIN_S, Bodies
from domain.errors import RequestTooLarge
from tests.loops import run, settle

MAX_BYTES = 100
ROOM_BYTES = 400
SCOPE = {"headers": []}


class Sender:
    """A client whose body comes when it is told to send it."""

    def __init__(self, bodies, user="ann"):
        self._pieces = asyncio.Queue()
        self._is_let_in = asyncio.Event()
        self.task = asyncio.create_task(self._exchange(bodies, user))

    async def send(self, size, *, is_last=False):
        self._pieces.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": not is_last})
        await settle()

    async def let_in(self):
        self._is_let_in.set()
        return await self.task

    @property
    def refusal(self):
        return type(self.task.exception()) if self.task.done() else None

    async def _exchange(self, bodies, user):
        async with bodies.whole(SCOPE, self._pieces.get, user) as raw:
            await self._is_let_in.wait()
            return len(raw)


def bodies():
    return Bodies(MAX_BYTES, timeout_s=64.0, room_bytes=ROOM_BYTES)


async def sender(room, user, *sizes):
    """A client that has sent so much, and has more to send."""
    client = Sender(room, user)
    for size in sizes:
        await client.send(size)
    return client


def test_what_is_held_is_given_back_however_it_ends():
    """Let in, refused, too large, gone, too late."""

    async def all_ends():
        room = bodies()
        whole = await sender(room, "ann", 30)
        await whole.send(20, is_last=True)
        large, late = await sender(room, "bob", 90, 20), await sender(room, "cy", 50)
        gone = await sender(room, "dan", 40)
        assert room.held_bytes == 140
        gone._pieces.put_nowait({"type": "http.disconnect"})
        await asyncio.sleep(64.0)
        assert (large.refusal, late.refusal) == (RequestTooLarge, RequestTimeout)
        assert room.held_bytes == 50
        assert await whole.let_in() == 50
        return room

    room = run(all_ends())

    assert (room.held_bytes, room._users, room._oldest_first) == (0, {}, {})


def test_one_user_s_bodies_hold_a_quarter_at_most():
    """Others' have the rest; what waits for a slot counts as what is still being read."""

    async def much():
        room = bodies()
        waiting = await sender(room, "ann")
        await waiting.send(60, is_last=True)
        second, third = await sender(room, "ann", 40), await sender(room, "ann", 1)
        other = await sender(room, "bob", 99)
        assert (second.refusal, third.refusal, other.refusal) == (None, TooManyBodies, None)
        await waiting.let_in()
        assert (await sender(room, "ann", 60)).refusal is None
        return room.held_bytes

    assert run(much()) == 99 + 40 + 60


def test_when_there_is_no_more_room_whoever_holds_most_gives_up_what_it_began_last():
    """However many there are of the greedy, a small body of somebody else gets through."""

    async def full():
        room = bodies()
        greedy = [await sender(room, f"greedy{number}", 50, 49) for number in range(4)]
        small = await sender(room, "ann", 2, 2, 2)
        await small.send(1, is_last=True)
        assert await small.let_in() == 7
        return [each.refusal for each in greedy], room.held_bytes

    refusals, held_bytes = run(full())

    assert sorted(map(str, refusals)) == sorted(map(str, [BodiesTakeAllMemory, None, None, None]))
    assert held_bytes == 3 * 99


def test_a_body_is_refused_when_no_other_can_be_given_up():
    """What has come whole and waits for a slot is not taken from it."""

    async def full():
        room = bodies()
        for number in range(4):
            await (await sender(room, f"user{number}")).send(99, is_last=True)
        late = await sender(room, "ann", 5)
        return late.refusal, room.held_bytes

    assert run(full()) == (BodiesTakeAllMemory, 4 * 99)


def test_a_process_that_is_about_to_end_waits_for_no_body():
    """Neither for those that are coming, nor for others; what has come whole is answered."""

    async def ending():
        room = bodies()
        whole = await sender(room, "ann")
        await whole.send(10, is_last=True)
        coming = await sender(room, "bob", 10)
        room.drain()
        late = await sender(room, "dan")
        await late.send(5, is_last=True)
        await asyncio.sleep(DRAIN_S)
        after = await sender(room, "cy")
        await settle()
        assert (await whole.let_in(), await late.let_in()) == (10, 5)
        return coming.refusal, after.refusal, room.held_bytes

    assert run(ending()) == (Draining, Draining, 0)


@pytest.mark.parametrize("users", [1, 20_000])
def test_however_many_send_memory_is_bounded(users):
    """A body each, which never ends."""

    async def flood():
        room = Bodies(MAX_BYTES, timeout_s=64.0, room_bytes=ROOM_BYTES)
        for number in range(20_000 // 100):
            clients = [Sender(room, f"address:{(number * 100 + each) % users}") for each in range(100)]
            for client in clients:
                client._pieces.put_nowait({"type": "http.request", "body": b"x" * 90, "more_body": True})
            await settle()
            assert room.held_bytes <= ROOM_BYTES
            for client in clients:
                client.task.cancel()
            await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        return len(room._users), room.held_bytes

    assert run(flood()) == (0, 0)
