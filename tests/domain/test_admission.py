"""How many streams are carried at once, who waits, and who is next."""

import asyncio
from collections import deque
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.admission import Slots
from domain.errors import AtCapacity, TooManyConnections
from tests.fakes import FakeClock
from tests.loops import run, settle

pytestmark = pytest.mark.anyio
TIMEOUT_S = 8.0


def slots_of(limit, limit_per_user=0, queue_size=0):
    """Slots on the running loop's time."""
    return Slots(
        limit=limit,
        limit_per_user=limit_per_user,
        queue_size=queue_size,
        queue_timeout_s=TIMEOUT_S,
        clock=asyncio.get_running_loop().time,
    )


async def waiting(slots, *users):
    """A task for each user that waits for a slot, in that order."""
    tasks = [asyncio.create_task(slots.take(user)) for user in users]
    await settle()
    return tasks


def now(coroutine):
    """What a coroutine returns that never waits."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


class Model:
    """The plainest thing that does the same: lists, and no futures."""

    def __init__(self, limit, limit_per_user, queue_size):
        self.limit, self.limit_per_user, self.queue_size = limit, limit_per_user, queue_size
        self.taken, self.turns, self.told = {}, deque(), {}
        self.waiting = {}

    def ask(self, number, user, now_s):
        own = [number for number, (each, _) in self.waiting.items() if each == user]
        is_full = len(self.taken) == self.limit
        if is_full and (len(self.waiting) == self.queue_size or len(own) >= (self.queue_size + 1) // 2):
            self.told[number] = AtCapacity
        elif self.limit_per_user and len(own) + [*self.taken.values()].count(user) >= self.limit_per_user:
            self.told[number] = TooManyConnections
        elif is_full:
            self.waiting[number] = (user, now_s + TIMEOUT_S)
            if not own:
                self.turns.append(user)
        else:
            self.taken[number] = user

    def stop(self, number):
        if self.taken.pop(number, None) is not None and self.turns:
            user = self.turns.popleft()
            following = min(number for number, (each, _) in self.waiting.items() if each == user)
            self.taken[following] = self.waiting.pop(following)[0]
            self._keep_turn(user)
        elif number in self.waiting:
            user, _ = self.waiting.pop(number)
            if user not in [each for each, _ in self.waiting.values()]:
                self.turns.remove(user)

    def pass_time(self, now_s):
        for number in [number for number, (_, until_s) in self.waiting.items() if until_s <= now_s]:
            self.stop(number)
            self.told[number] = AtCapacity

    def _keep_turn(self, user):
        if user in [each for each, _ in self.waiting.values()]:
            self.turns.append(user)


class Requests:
    """Requests for slots, by number, each as a task."""

    def __init__(self, slots):
        self.slots, self.tasks = slots, []

    def ask(self, user):
        self.tasks.append(asyncio.create_task(self.slots.take(user)))

    def stop(self, number):
        """The client is served or gone, wherever it is."""
        task = self.tasks[number]
        if not task.done():
            task.cancel()
        elif not task.cancelled() and not task.exception():
            task.result().release()

    def taken(self):
        done = [(number, task) for number, task in enumerate(self.tasks) if task.done() and not task.cancelled()]
        return {number for number, task in done if not task.exception() and task.result()._is_taken}

    def told(self):
        done = [(number, task) for number, task in enumerate(self.tasks) if task.done() and not task.cancelled()]
        return {number: type(task.exception()) for number, task in done if task.exception()}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc")),
        st.tuples(st.just("stop"), st.integers(0, 40)),
        st.tuples(st.just("pass"), st.sampled_from([1.0, 4.0])),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 4), st.integers(0, 4), st.integers(0, 6))
def test_slots_are_what_the_plainest_model_says(steps, limit, limit_per_user, queue_size):
    """Whoever asks, is served, leaves or waits too long: never more than the limit, nobody lost, all in turn."""

    async def play():
        loop, model = asyncio.get_running_loop(), Model(limit, limit_per_user, queue_size)
        slots = slots_of(limit, limit_per_user, queue_size)
        requests = Requests(slots)
        for kind, what in steps:
            if kind == "ask":
                model.ask(len(requests.tasks), what, loop.time())
                requests.ask(what)
            elif kind == "pass":
                await asyncio.sleep(what)
                model.pass_time(loop.time())
            elif requests.tasks:
                number = what % len(requests.tasks)
                model.stop(number)
                requests.stop(number)
            await settle()
            assert requests.taken() == set(model.taken)
            assert requests.told() == model.told
            assert (slots.taken_count, slots.waiting_count) == (len(model.taken), len(model.waiting))
        await leave(requests)
        assert (slots.taken_count, slots.waiting_count, slots._counts) == (0, 0, {})

    run(play())


@given(STEPS, st.integers(1, 3), st.integers(0, 6))
def test_nothing_is_lost_when_all_of_it_happens_in_one_moment(steps, limit, queue_size):
    """No step waits for what the one before it has set off: a place may be given to who has just been cancelled."""

    async def play():
        slots = slots_of(limit, 2, queue_size)
        requests = Requests(slots)
        for kind, what in steps:
            if kind == "ask":
                requests.ask(what)
            elif kind == "pass":
                await asyncio.sleep(0)
            elif requests.tasks:
                requests.stop(what % len(requests.tasks))
            assert slots.taken_count <= limit
            assert slots.waiting_count <= queue_size
        await settle()
        assert slots.taken_count == limit or not slots.waiting_count
        assert slots.taken_count == len(requests.taken())
        await leave(requests)
        assert (slots.taken_count, slots.waiting_count, slots._counts) == (0, 0, {})

    run(play())


async def leave(requests):
    """Everybody has gone: those who wait first, so that nobody is served any more."""
    for is_done in (False, True):
        for number, task in enumerate(requests.tasks):
            if task.done() is is_done:
                requests.stop(number)
        await settle()


async def test_a_free_place_is_taken_without_waiting():
    """A stored answer does not pay for a queue."""
    slots = slots_of(2, queue_size=4)

    assert now(slots.take("a")).release()


async def test_users_are_served_in_turn():
    """Whoever asks for a thousand streams first is served once for everybody else's once."""
    slots = slots_of(1, queue_size=8)
    slot = await slots.take("z")
    tasks = dict(zip(("a1", "a2", "a3", "b1", "c1", "b2"), await waiting(slots, *"aaabcb"), strict=True))
    order = []
    while tasks:
        slot.release()
        await settle()
        name = next(name for name, task in tasks.items() if task.done())
        order.append(name)
        slot = tasks.pop(name).result()

    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_one_user_has_half_of_the_queue():
    """The rest is for others."""
    slots = slots_of(1, queue_size=4)
    await slots.take("z")
    tasks = await waiting(slots, "a", "a")

    with pytest.raises(AtCapacity):
        await slots.take("a")
    tasks += await waiting(slots, "b", "c")
    assert not any(task.done() for task in tasks)
    with pytest.raises(AtCapacity):
        await slots.take("d")
    for task in tasks:
        task.cancel()


async def test_who_waits_counts_as_its_users():
    """Or a user would have more than its own limit when the places come."""
    slots = slots_of(2, limit_per_user=2, queue_size=8)
    kept = [await slots.take("a"), await slots.take("b")]
    (second,) = await waiting(slots, "a")

    with pytest.raises(TooManyConnections):
        await slots.take("a")
    kept[1].release()
    assert (await second).release()


async def test_who_waits_too_long_is_told_so():
    """At the deadline, and not before; its place in the queue is free."""
    slots = slots_of(1, queue_size=1)
    slot, began_s = await slots.take("a"), asyncio.get_running_loop().time()

    with pytest.raises(AtCapacity, match="none has ended in 8 s"):
        await slots.take("b")
    assert asyncio.get_running_loop().time() - began_s == TIMEOUT_S
    assert (slots.waiting_count, slots.taken_count) == (0, 1)
    assert slot.release()
    assert slots.taken_count == 0


async def test_who_stops_waiting_gives_its_place_up():
    """Cancelled at any moment, also in the one in which it would have been served."""
    slots = slots_of(1, queue_size=4)
    slot = await slots.take("a")
    first, second, third = await waiting(slots, "b", "c", "d")
    first.cancel()
    await settle()
    assert slots.waiting_count == 2

    slot.release()
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    assert (await third).release()
    assert (slots.taken_count, slots.waiting_count, slots._counts) == (0, 0, {})


@pytest.mark.parametrize("moment", ["entering", "leaving"])
async def test_nothing_is_kept_by_who_is_not_present(moment):
    """Whether it is found to be gone before it waits or after it was served."""
    slots = slots_of(1, queue_size=4)
    slot = await slots.take("a")

    @asynccontextmanager
    async def gone():
        if moment == "entering":
            raise ConnectionError
        yield
        raise ConnectionError

    task = asyncio.create_task(slots.take("b", present=gone))
    await settle()
    slot.release()
    await asyncio.wait([task])

    assert isinstance(task.exception(), ConnectionError)
    assert (slots.taken_count, slots.waiting_count, slots._counts) == (0, 0, {})


async def test_the_stages_are_told_as_they_end():
    """The last one at the release, once."""
    slots, told = slots_of(1, queue_size=1), []
    slot = await slots.take("a", note=told.append)
    assert told == ["CP.1", "CP.2", "CP.3", "CP.4"]

    waits = []
    task = asyncio.create_task(slots.take("b", note=waits.append))
    await settle()
    assert waits == ["CP.1", "CP.2", "CP.3"]
    slot.release()
    slot.release()
    (await task).release()

    assert told[4:] == ["CP.5"]
    assert waits[3:] == ["CP.4", "CP.5"]


def refusals(slots):
    """How long the next one of a user with two streams, and of a new one, is told to wait."""
    with pytest.raises(TooManyConnections) as refused:
        now(slots.take("a"))
    slot = now(slots.take("b"))
    with pytest.raises(AtCapacity) as full:
        now(slots.take("c"))
    slot.release()
    return refused.value.retry_after_s, full.value.retry_after_s


def test_refusals_say_when_to_come_back():
    """At first a second; then by what streams have lasted that one is met by, not by stored answers in between."""
    clock = FakeClock()
    slots = Slots(limit=3, limit_per_user=2, clock=clock)
    for _ in range(2):
        now(slots.take("a"))
    assert refusals(slots) == (1.0, 1.0)

    for _ in range(20):
        slot = now(slots.take("d"))
        clock.advance(24.0)
        slot.release()
        for _ in range(10):
            now(slots.take("d")).release()
    assert refusals(slots) == (pytest.approx(6.0), pytest.approx(4.0))


def test_a_million_users_leave_nothing():
    """Every address on earth may ask once: who has no stream is not remembered."""
    slots = Slots(limit=10, limit_per_user=3, queue_size=10, clock=FakeClock())
    for number in range(1_000_000):
        now(slots.take(f"address:{number}")).release()

    assert slots._counts == {}
    assert slots._queue._waiting == {}
