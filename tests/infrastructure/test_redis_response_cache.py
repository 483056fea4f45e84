"""The second tier: answers in Redis, and what else may be found there."""

import zlib

import msgspec
import pytest

from domain.chat import Chunk
from domain.events import EntryUnreadable
from domain.generation import Generation, Opened, Sealed, State
from domain.ports import Recording
from infrastructure.redis.keys import response_key
from infrastructure.redis.response_cache import MAX_VALUE_BYTES, VERSION, WRONG, _recording, _value
from tests.fakes import FakeClock
from tests.redis_instances import TTL_S, RedisInstance
from tests.redis_servers import net_output_bytes

pytestmark = pytest.mark.anyio


def recording(text="x", now_s=1024.0, state=State.DONE):
    generation = Generation(
        Opened(generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope="", model="m")
    )
    for record in (Chunk(text), Chunk(finish_reason="stop"), Sealed(state=state, finish_reason="stop")):
        generation.append(0, record)
    return Recording(generation, now_s)


WHOLE = _value(recording("x" * 5000))
BOMB = bytes((VERSION, 1)) + zlib.compress(bytes(64 * 1024 * 1024), 9)


def plain(body):
    """A value with that body, which nobody has changed since."""
    return bytes((VERSION, 0)) + zlib.crc32(body).to_bytes(4) + body


NESTED = plain(b"\x92" * 100_000)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def instance(redis_server, clock):
    async with RedisInstance(redis_server.url, "one", unix_now=clock).running() as each:
        yield each


async def test_what_only_one_instance_has_told_is_not_put(instance):
    """Nor later: under its id others have told something else."""
    alone, missed = recording(), []
    alone.generation.is_alone = True
    instance.cache.on_missed = lambda *what: missed.append(what)
    await instance.cache.put("f", alone)
    instance.client.is_away = True
    await instance.cache.put("f", alone)
    instance.client.is_away = False

    assert (await instance.cache.get("f"), missed) == (None, [])


@pytest.mark.parametrize("text", ["short", "long " * 1000])
async def test_what_was_put_is_got_until_its_time_has_passed(instance, clock, text):
    """Compressed or not."""
    kept = recording(text)
    await instance.cache.put("f", kept)

    got = await instance.cache.get("f")
    clock.advance(TTL_S)

    assert got.generation.records == kept.generation.records
    assert (got.generation.state, got.sealed_at_s) == (State.DONE, kept.sealed_at_s)
    assert await instance.cache.get("f") is None


@pytest.mark.parametrize(
    "value",
    [
        b"\x01",
        b"garbage",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:2],
        bytes((VERSION + 1,)) + WHOLE[1:],
        bytes((VERSION, 7)) + WHOLE[2:],
        BOMB,
        NESTED,
        plain(b"\xdd\xff\xff\xff\xff"),
        plain(msgspec.msgpack.encode((1.0, []))),
        plain(msgspec.msgpack.encode((1.0, [b"no record"]))),
        _value(recording(state=State.FAILED)),
    ],
    ids=range(13),
)
async def test_what_cannot_be_read_is_a_miss(instance, value):
    """It is said that it was there, and nobody gets an error."""
    await instance.client.submit("SET", response_key("f"), value)

    assert await instance.cache.get("f") is None
    assert [event.fingerprint for event in instance.events.of(EntryUnreadable)] == ["f"]


@pytest.mark.parametrize("text", ["short", "long " * 500])
def test_no_bit_of_it_can_change_unseen(text):
    """An answer with another word in it would be served for as long as it is kept."""
    value = _value(recording(text))
    _recording(value)
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 1 << position % 8
        with pytest.raises(WRONG):
            _recording(bytes(changed))


async def test_a_value_that_is_too_large_is_not_read_but_removed(instance, redis_server):
    """To read it takes longer than a living Redis may: all else that is asked with it would fail, again and again."""
    await instance.client.submit("SETRANGE", response_key("f"), 10 * MAX_VALUE_BYTES, "x")
    sent_bytes = net_output_bytes(redis_server)

    assert await instance.cache.get("f") is None
    assert net_output_bytes(redis_server) - sent_bytes < 1.1 * MAX_VALUE_BYTES
    assert not instance.client.is_away
    assert [event.fingerprint for event in instance.events.of(EntryUnreadable)] == ["f"]
    assert await instance.client.submit("EXISTS", response_key("f")) == 0


async def test_the_largest_answer_that_is_put_can_be_got(instance):
    """What is written and what is read have one bound."""
    kept = recording("x" * 3_300_000)
    assert kept.generation.size_bytes < 16 * 1024 * 1024
    await instance.cache.put("f", kept)

    assert (await instance.cache.get("f")).generation.records == kept.generation.records


async def test_an_empty_value_is_a_miss(instance):
    """There is nothing to be read."""
    await instance.client.submit("SET", response_key("f"), "")

    assert await instance.cache.get("f") is None


async def test_another_kind_of_value_is_a_miss(instance):
    """As when somebody else uses the key."""
    await instance.client.submit("LPUSH", response_key("f"), "x")

    assert await instance.cache.get("f") is None


async def test_without_redis_everything_is_a_miss(instance, redis_server):
    """And nothing fails."""
    instance.client.is_away = True

    await instance.cache.put("f", recording())

    assert await instance.cache.get("f") is None
