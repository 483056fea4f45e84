"""The answers used most lately are known to the fleet, and in L1 of an instance that starts."""

import signal

import pytest

from domain.caching import Purge, Purges
from domain.chat import Chunk
from domain.events import CacheHit
from domain.generation import Generation, Opened, Sealed, State
from domain.ports import Recording
from infrastructure.memory.response_cache import MemoryResponseCache
from infrastructure.redis.popularity import FADED, KEPT, POPULAR, Popularity
from infrastructure.redis.response_cache import RedisResponseCache
from tests.fakes import FakeClock
from tests.redis_instances import TTL_S, RedisInstance, until

pytestmark = pytest.mark.anyio


class Subject:
    """An instance's popularity between its two caches; `entries` is L1's size."""

    def __init__(self, one, entries=3):
        self.client, self.events, clock = one.client, one.events, FakeClock()
        self.purges = Purges(TTL_S)
        kept = {"ttl_s": TTL_S, "purges": self.purges, "unix_now": clock}
        self.l1 = MemoryResponseCache(**kept, max_entries=entries, max_bytes=10**6)
        self.l2 = RedisResponseCache(**kept, client=one.client, publish=one.events.publish)
        self.popularity = Popularity(
            client=one.client,
            events=one.events,
            near=self.l1,
            far=self.l2,
            near_entries=entries,
            ttl_s=TTL_S,
        )

    async def store(self, *names, model="m"):
        for name in names:
            opened = Opened(
                generation_id=name, fingerprint=name, created_at_s=0.0, thread_id="t", user="u", scope="", model=model
            )
            generation = Generation(opened)
            generation.append(0, Chunk("x", "stop"))
            generation.append(0, Sealed(state=State.DONE, finish_reason="stop"))
            await self.l2.put(name, Recording(generation, 1024.0))

    def hit(self, **times):
        for name, count in times.items():
            for _ in range(count):
                self.events.publish(CacheHit(thread_id="t", tier="l1", fingerprint=name))

    @property
    def in_l1(self):
        return list(self.l1._recordings)


@pytest.fixture(params=["redis_server", "redis_cluster"])
def server(request):
    """One Redis, and a cluster of three."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def subject(server):
    async with RedisInstance(server.url, "i").running() as one:
        yield Subject(one)


async def test_the_answers_used_most_are_in_l1_after_a_start(subject, server):
    """As many as fit, and the most popular one is the last to make room."""
    await subject.store(*"abcd")
    subject.hit(a=1, b=4, c=3, d=2)
    await subject.popularity.flush()
    async with RedisInstance(server.url, "j").running() as other:
        restarted = Subject(other)
        restarted.popularity.start()

        await until(lambda: restarted.in_l1 == ["d", "c", "b"])
        await restarted.popularity.close()


async def test_hits_on_all_instances_add_up(subject, server):
    """An answer that is used a little everywhere is used a lot."""
    await subject.store(*"ab")
    async with RedisInstance(server.url, "j").running() as other:
        second = Subject(other, entries=1)
        subject.hit(a=3, b=2)
        second.hit(b=2)
        await subject.popularity.flush()
        await second.popularity.flush()

        assert await second.popularity.fill() == 1
        assert second.in_l1 == ["b"]


async def test_what_was_counted_last_is_told_on_closing(subject):
    """A rolling update does not forget."""
    subject.popularity.start()
    subject.hit(a=1)

    await subject.popularity.close()

    assert await subject.client.submit("ZSCORE", POPULAR, "a") is not None


async def test_what_is_purged_or_gone_is_not_filled_in(subject):
    """It would only be in the way."""
    await subject.store("a", model="old")
    await subject.store("b")
    subject.hit(a=3, b=2, gone=1)
    await subject.popularity.flush()
    subject.purges.add(Purge(at_s=1024.0, model="old"))

    await subject.popularity.fill()

    assert subject.in_l1 == ["b"]


async def test_old_popularity_fades(subject):
    """Once in a while, whichever instance is the first to think of it."""
    subject.hit(a=8)
    await subject.popularity.flush()
    subject.hit(b=4)
    await subject.popularity.flush()
    assert [float(await subject.client.submit("ZSCORE", POPULAR, name)) for name in "ab"] == [4.0, 4.0]

    await subject.client.submit("DEL", FADED)
    subject.hit(b=2)
    await subject.popularity.flush()

    assert [float(await subject.client.submit("ZSCORE", POPULAR, name)) for name in "ab"] == [2.0, 3.0]


async def test_the_set_is_bounded_and_lapses(subject):
    """However many questions there are."""
    for part in range(2):
        subject.hit(**{f"{part}-{number}": 1 + part for number in range(KEPT)})
        await subject.popularity.flush()

    assert await subject.client.submit("ZCARD", POPULAR) == KEPT
    assert 0 < await subject.client.submit("PTTL", POPULAR) <= TTL_S * 1000


async def test_without_redis_nothing_is_filled_nor_told_and_nothing_breaks():
    """The start goes on."""
    one = RedisInstance("redis://127.0.0.1:1", "i")
    alone = Subject(one)
    alone.popularity.start()
    alone.hit(a=1)
    await until(lambda: one.client.is_away)

    await alone.popularity.close()
    await one.client.close()

    assert alone.in_l1 == []


async def test_l1_is_filled_when_redis_comes_later_than_the_start(own_redis):
    """An instance that had to start without Redis is as well off as the others from then on."""
    async with RedisInstance(own_redis.url, "i").running() as one:
        before = Subject(one)
        await before.store("a")
        before.hit(a=1)
        await before.popularity.flush()
    one = RedisInstance(own_redis.url, "j")
    later = Subject(one)
    own_redis.process.send_signal(signal.SIGSTOP)
    later.popularity.start()
    await until(lambda: one.client.is_away)
    own_redis.process.send_signal(signal.SIGCONT)

    await until(lambda: later.in_l1 == ["a"])

    await later.popularity.close()
    await one.client.close()
