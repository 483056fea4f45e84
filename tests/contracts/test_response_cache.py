"""The contract of domain.ports.ResponseCache, in memory, on one Redis and on a cluster."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.caching import Purges
from domain.chat import Chunk
from domain.generation import COPIES, RECORD_OVERHEAD_BYTES, Generation, Opened, Sealed, State
from domain.ports import Recording
from infrastructure.memory.response_cache import MemoryResponseCache
from tests.fakes import FakeClock
from tests.redis_instances import TTL_S, RedisInstance

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]


def recording(units, now_s):
    """A recording of `units` times the size of three bare records."""
    generation = Generation(
        Opened(generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope="", model="m")
    )
    epoch = generation.claim()
    generation.append(epoch, Chunk("x" * ((units - 1) * 3 * RECORD_OVERHEAD_BYTES // COPIES)))
    generation.append(epoch, Sealed(state=State.DONE))
    return Recording(generation, now_s)


UNIT_BYTES = recording(1, 0.0).generation.size_bytes


class Subject:
    """A cache, and the clock that it looks at."""

    def __init__(self, cache, clock):
        self.cache, self.clock = cache, clock

    async def put(self, key, units=1):
        kept = recording(units, self.clock())
        await self.cache.put(key, kept)
        return kept

    async def has(self, key, kept):
        got = await self.cache.get(key)
        return got and (got.generation.records, got.sealed_at_s) == (kept.generation.records, kept.sealed_at_s)


class InMemory(Subject):
    def __init__(self, max_entries=3, max_units=6):
        clock = FakeClock()
        self.purges = Purges(TTL_S)
        cache = MemoryResponseCache(
            max_entries=max_entries,
            max_bytes=max_units * UNIT_BYTES,
            ttl_s=TTL_S,
            purges=self.purges,
            unix_now=clock,
        )
        super().__init__(cache, clock)

    async def keys(self):
        return "".join(sorted(self.cache._recordings))


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def subject(request):
    if request.param == "memory":
        yield InMemory()
        return
    clock = FakeClock()
    server = request.getfixturevalue(request.param)
    async with RedisInstance(server.url, "one", unix_now=clock).running() as instance:
        yield Subject(instance.cache, clock)


@pytest.fixture
def memory():
    return InMemory()


async def test_what_was_put_is_got_until_its_time_has_passed(subject):
    """And then it is gone, not stale."""
    kept = await subject.put("a")
    subject.clock.advance(TTL_S - 0.5)
    assert await subject.has("a", kept)

    subject.clock.advance(0.5)

    assert await subject.cache.get("a") is None


async def test_what_is_past_its_time_takes_no_memory(memory):
    """From when it is asked for."""
    await memory.put("a")
    memory.clock.advance(TTL_S)
    await memory.cache.get("a")

    assert (len(memory.cache), memory.cache.size_bytes) == (0, 0)


async def test_being_read_makes_nothing_younger(subject):
    """A popular answer expires too."""
    await subject.put("a")
    subject.clock.advance(TTL_S / 2)
    await subject.cache.get("a")
    subject.clock.advance(TTL_S / 2)

    assert await subject.cache.get("a") is None


async def test_what_nobody_put_is_not_there(subject):
    """An unknown question is a miss."""
    assert await subject.cache.get("a") is None


async def test_the_least_recently_used_goes_first_by_number(memory):
    """Reading counts as use."""
    for key in "abc":
        await memory.put(key)
    await memory.cache.get("a")

    await memory.put("d")

    assert await memory.keys() == "acd"


async def test_the_least_recently_used_go_first_by_size(memory):
    """As many as it takes."""
    for key in "abc":
        await memory.put(key, units=2)
    await memory.cache.get("a")

    await memory.put("d", units=4)

    assert await memory.keys() == "ad"
    assert memory.cache.size_bytes == 6 * UNIT_BYTES


async def test_a_newer_answer_takes_the_place_of_the_older(subject):
    """There is one answer to a question."""
    await subject.put("a", units=5)
    newer = await subject.put("a", units=1)

    assert await subject.has("a", newer)


async def test_the_older_answer_takes_no_memory(memory):
    """Only the newer counts."""
    await memory.put("a", units=5)
    await memory.put("a", units=1)

    assert (len(memory.cache), memory.cache.size_bytes) == (1, UNIT_BYTES)


async def test_what_was_put_is_what_is_got_for_each_question(subject):
    """Whatever slot its key is in."""
    kept = {f"q{at}": await subject.put(f"q{at}", units=at) for at in (1, 2, 3)}

    assert all([await subject.has(key, each) for key, each in kept.items()])


async def test_one_that_is_larger_than_all_is_not_kept_and_drives_no_other_out(memory):
    """The one it would replace is older than it, and goes."""
    await memory.put("a")
    await memory.put("b")

    await memory.put("a", units=7)

    assert await memory.keys() == "b"
    assert memory.cache.size_bytes == UNIT_BYTES


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcde"), st.integers(1, 8)),
        st.tuples(st.just("get"), st.sampled_from("abcde"), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from([1, 31, 32, 33, 64])),
    ),
    max_size=50,
)


class Model:
    """The same, by a list of (key, units, sealed_at_s), the least recently used first."""

    def __init__(self, max_entries, max_units):
        self.max_entries, self.max_units, self.entries = max_entries, max_units, []

    def put(self, key, units, now_s):
        self.entries = [entry for entry in self.entries if entry[0] != key]
        if units > self.max_units:
            return
        self.entries.append((key, units, now_s))
        while len(self.entries) > self.max_entries or sum(units for _, units, _ in self.entries) > self.max_units:
            self.entries.pop(0)

    def get(self, key, now_s):
        found = next((entry for entry in self.entries if entry[0] == key), None)
        if found:
            self.entries.remove(found)
            if now_s - found[2] < TTL_S:
                self.entries.append(found)
                return found[2]
        return None


async def compare(steps, max_entries, max_units):
    subject, model = InMemory(max_entries, max_units), Model(max_entries, max_units)
    for step, key, number in steps:
        now_s = subject.clock()
        if step == "put":
            await subject.put(key, number)
            model.put(key, number, now_s)
        elif step == "get":
            got = await subject.cache.get(key)
            assert (got and got.sealed_at_s) == model.get(key, now_s)
        else:
            subject.clock.advance(number)
        assert list(subject.cache._recordings) == [entry[0] for entry in model.entries]
        assert subject.cache.size_bytes == UNIT_BYTES * sum(units for _, units, _ in model.entries)


@given(STEPS, st.integers(0, 4), st.integers(1, 8))
def test_the_cache_is_what_the_plainest_model_says(steps, max_entries, max_units):
    """Whatever is put, got and waited for."""
    asyncio.run(compare(steps, max_entries, max_units))
