"""The contract of domain.ports.SessionStore, in memory and in Redis."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import Turn
from domain.errors import SessionUnavailable, UnknownSession
from domain.events import EntryUnreadable, StoreFailed
from domain.sessions import SessionBounds
from infrastructure.memory.session_store import MemorySessionStore
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.session_store import RedisSessionStore
from infrastructure.turns import encode_turn
from tests.fakes import FakeClock, RememberedEvents
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

ANN, BOB = "acme\nann", "acme\nbob"
BOUNDS = SessionBounds(max_messages=6, max_bytes=4096, ttl_s=64.0)


def turn_in(conversation, messages, turn_id="id"):
    """What is said in a conversation after it was opened."""
    return Turn(
        session_id=conversation.session_id,
        birth_id=conversation.birth_id,
        turn_id=turn_id,
        place=conversation.turn_count,
        messages=tuple(messages),
    )


def turn(name, size=0):
    """A question and its answer."""
    return ({"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": f"{name}!" + "x" * size})


TURN_BYTES = len(encode_turn(turn("a")))


@pytest.fixture(scope="module")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


class InMemory:
    """A store in memory, whose time passes when told to."""

    def __init__(self, bounds=BOUNDS, max_sessions=1000):
        self.clock = FakeClock()
        self.store = MemorySessionStore(bounds=bounds, max_sessions=max_sessions, unix_now=self.clock)


class InRedis:
    """A store in Redis."""

    def __init__(self, url, bounds=BOUNDS):
        self.clock, self.events = FakeClock(), RememberedEvents()
        self.client = RedisClient(connect(url).commands, linger_s=0.0, publish=self.events.publish)
        self.store = RedisSessionStore(
            client=self.client, bounds=bounds, publish=self.events.publish, unix_now=self.clock
        )

    async def close(self):
        await self.client.submit("FLUSHALL")
        await self.client.close()


@pytest.fixture
async def in_redis(redis_server):
    subject = InRedis(redis_server.url)
    yield subject
    await subject.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request, redis_server):
    if request.param == "memory":
        yield InMemory().store
    else:
        subject = InRedis(redis_server.url)
        yield subject.store
        await subject.close()


async def say(store, *names, session_id="s", owner=ANN, size=0):
    """A turn of each name, one after the other; return what is kept then."""
    for name in names:
        await store.append(turn_in(await store.open(session_id, owner), turn(name, size), f"id-{name}"))
    return (await store.read(session_id, owner)).messages


def turns(names):
    return tuple(message for name in names for message in turn(name))


async def test_turns_are_kept_in_the_order_in_which_they_came(store):
    """Each message as it was."""
    assert (await store.open("s", ANN)).messages == ()
    assert await say(store, *"abc") == turns("abc")
    assert (await store.open("s", ANN)).messages == turns("abc")


async def test_what_was_opened_does_not_change(store):
    """A request is answered from one moment of the conversation."""
    opened = await store.open("s", ANN)
    await say(store, "a")

    assert opened.messages == ()


async def test_sessions_are_kept_apart(store):
    """By their ids, which may look alike."""
    for session_id in ("s", "S", "s:", "s.1"):
        await say(store, session_id, session_id=session_id)
    for session_id in ("s", "S", "s:", "s.1"):
        assert (await store.read(session_id, ANN)).messages == turns([session_id])


async def test_an_id_belongs_to_the_first_who_used_it(store):
    """Even before anything is kept under it; for all others it is as if there was none."""
    opened = await store.open("s", ANN)
    for use in (store.open, store.read, store.forget):
        with pytest.raises(UnknownSession):
            await use("s", BOB)
    await store.append(turn_in(opened, turn("a")))

    assert (await store.read("s", ANN)).messages == turns("a")


async def test_what_nobody_opened_can_neither_be_read_nor_forgotten(store):
    """Reading begins nothing."""
    for use in (store.read, store.forget, store.read):
        with pytest.raises(UnknownSession):
            await use("s", ANN)
    await store.open("s", BOB)


async def test_a_forgotten_conversation_is_gone(store):
    """And its id free."""
    await say(store, "a")
    await store.forget("s", ANN)

    with pytest.raises(UnknownSession):
        await store.read("s", ANN)
    assert (await store.open("s", BOB)).messages == ()


async def test_a_turn_under_way_does_not_bring_back_what_was_forgotten(store):
    """Not even into a new conversation of the same id and owner."""
    before = await store.open("s", ANN)
    await store.forget("s", ANN)
    await store.append(turn_in(before, turn("a"), "id-a"))
    with pytest.raises(UnknownSession):
        await store.read("s", ANN)
    await store.open("s", ANN)
    await store.append(turn_in(before, turn("b"), "id-b"))

    assert (await store.read("s", ANN)).messages == ()


async def test_a_turn_is_kept_once_however_often_it_is_appended(store):
    """A command may be sent again, and two instances may see the same answer end."""
    opened = await store.open("s", ANN)
    for _ in range(3):
        await store.append(turn_in(opened, turn("a")))

    assert (await store.read("s", ANN)).messages == turns("a")


async def test_a_turn_that_has_gone_does_not_come_back(store):
    """Whoever appends it again cannot know that it was there."""
    opened = await store.open("s", ANN)
    await store.append(turn_in(opened, turn("a")))
    await say(store, *"bcd")
    await store.append(turn_in(opened, turn("a")))

    assert (await store.read("s", ANN)).messages == turns("bcd")


async def test_a_conversation_knows_how_many_turns_it_has_had(store):
    """Those that went among them."""
    await say(store, *"abcde")

    assert (await store.read("s", ANN)).turn_count == 5


async def test_turns_of_one_moment_are_all_kept_whole(store):
    """Two windows, one conversation."""
    opened = await asyncio.gather(*(store.open("s", ANN) for _ in "abc"))
    await asyncio.gather(
        *(store.append(turn_in(each, turn(name), name)) for each, name in zip(opened, "abc", strict=True))
    )
    kept = (await store.read("s", ANN)).messages

    assert sorted(kept[at]["content"] for at in (0, 2, 4)) == ["a?", "b?", "c?"]
    assert all(kept[at]["content"][0] == kept[at + 1]["content"][0] for at in (0, 2, 4))


async def test_the_oldest_turns_go_first_by_number_of_messages(store):
    """Whole ones."""
    assert await say(store, *"abcd") == turns("bcd")
    opened = await store.open("s", ANN)
    await store.append(turn_in(opened, (turn("e")[0], *turn("f"))))

    assert (await store.read("s", ANN)).messages == (*turns("d"), turn("e")[0], *turn("f"))


async def test_the_oldest_turns_go_first_by_bytes(store):
    """As many as it takes."""
    size = 4096 // 2 - TURN_BYTES - 16

    assert len(await say(store, *"ab", size=size)) == 4
    assert await say(store, "c") == (*turn("b", size), *turn("c"))


async def test_of_a_turn_that_is_too_large_nothing_is_kept(store):
    """Nor of what was before it: the conversation would have a hole."""
    await say(store, *"ab")
    assert await say(store, "c", size=5000) == ()
    assert await say(store, "d") == turns("d")


async def test_text_of_any_language_is_kept_as_it_is(store):
    """And counted in bytes."""
    spoken = ({"role": "user", "content": "Was ist ein Wehr? 堰 \U0001f30a \x00"},)
    await store.append(turn_in(await store.open("s", ANN), spoken))

    assert (await store.read("s", ANN)).messages == spoken


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 4), st.integers(0, 3)),
        st.tuples(st.just("forget"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


class Model:
    """The same, by a list of turns."""

    def __init__(self, bounds):
        self.bounds, self.turns = bounds, []

    def say(self, spoken):
        self.turns.append(spoken)
        while (
            sum(map(len, self.turns)) > self.bounds.max_messages
            or sum(len(encode_turn(each)) for each in self.turns) > self.bounds.max_bytes
        ):
            self.turns.pop(0)


async def compare(steps, bounds, url):
    subject, model = InRedis(url, bounds), Model(bounds)
    stores = (InMemory(bounds).store, subject.store)
    for number, (step, count, size) in enumerate(steps):
        opened = [await store.open("s", ANN) for store in stores]
        spoken = tuple({"role": "user", "content": f"{number}" + "x" * size * 100} for _ in range(count))
        for store, conversation in zip(stores, opened, strict=True):
            if step == "say":
                await store.append(turn_in(conversation, spoken, str(number)))
            else:
                await store.forget("s", ANN)
                await store.open("s", ANN)
        if step == "say":
            model.say(spoken)
        else:
            model.turns.clear()
        expected = tuple(message for each in model.turns for message in each)
        assert [(await store.read("s", ANN)).messages for store in stores] == [expected] * 2
    await subject.close()


def test_both_stores_are_what_the_plainest_model_says(redis_server):
    """Whatever is said and forgotten."""

    @given(STEPS, st.integers(2, 8), st.integers(200, 1200))
    def agree(steps, max_messages, max_bytes):
        bounds = SessionBounds(max_messages=max_messages, max_bytes=max_bytes, ttl_s=64.0)
        asyncio.run(compare(steps, bounds, redis_server.url))

    agree()


# Time


async def test_in_memory_a_conversation_lasts_from_its_last_use():
    """Being read is no use: who looks every day does not keep it for ever."""
    subject = InMemory()
    await say(subject.store, "a")
    assert (await subject.store.read("s", ANN)).expires_at_s == subject.clock() + 64.0

    subject.clock.advance(63.5)
    await say(subject.store, "b")
    subject.clock.advance(63.5)
    assert (await subject.store.read("s", ANN)).messages == turns("ab")
    subject.clock.advance(0.5)

    with pytest.raises(UnknownSession):
        await subject.store.read("s", ANN)
    assert len(subject.store) == 0


async def test_in_redis_a_conversation_lasts_from_its_last_use(in_redis):
    """Redis counts the time."""
    conversation = await in_redis.store.open("s", ANN)
    assert 63.0 < conversation.expires_at_s - in_redis.clock() <= 64.0

    for use in (lambda: in_redis.store.open("s", ANN), lambda: in_redis.store.append(turn_in(conversation, turn("a")))):
        await in_redis.client.submit("PEXPIRE", "weir:session:{s}", 10_000)
        await in_redis.store.read("s", ANN)
        assert await in_redis.client.submit("PTTL", "weir:session:{s}") <= 10_000
        await use()
        assert await in_redis.client.submit("PTTL", "weir:session:{s}") > 60_000


async def test_in_memory_the_conversation_used_least_lately_goes_for_a_new_one():
    """Memory is bounded, whoever makes up ids."""
    subject = InMemory(max_sessions=3)
    for session_id in ("s1", "s2", "s3", "s1", "s4"):
        await subject.store.open(session_id, ANN)

    assert list(subject.store._sessions) == ["s3", "s1", "s4"]


# Redis as it is


async def test_all_of_a_conversation_is_under_one_key(in_redis):
    """And nothing of turns that went is left there."""
    await say(in_redis.store, *"abcdefgh")

    assert await in_redis.client.submit("KEYS", "*") == [b"weir:session:{s}"]
    assert await in_redis.client.submit("HLEN", "weir:session:{s}") == 6 + 3 * 4


async def test_without_redis_nobody_can_tell(redis_server):
    """And nobody waits for it."""
    lone = RedisServer()
    subject = InRedis(lone.url)
    conversation = await subject.store.open("s", ANN)
    lone.stop()
    for use in (subject.store.open, subject.store.read, subject.store.forget):
        with pytest.raises(SessionUnavailable):
            await use("s", ANN)
    await subject.store.append(turn_in(conversation, turn("a")))
    await subject.client.close()
    lone.close()


async def test_a_turn_that_redis_could_not_take_is_kept_when_it_is_back(tmp_path):
    """Once, though nobody knows whether it had taken it."""
    lone = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    subject = InRedis(lone.url)
    await say(subject.store, "a")
    conversation = await subject.store.open("s", ANN)
    lone.stop()
    for name in "ab":
        await subject.store.append(turn_in(conversation, turn(name), f"id-{name}"))
    back = asyncio.Event()
    subject.client.on_return.append(back.set)
    lone.start()
    await asyncio.wait_for(back.wait(), 10)

    assert (await subject.store.read("s", ANN)).messages == turns("ab")
    await subject.client.close()
    lone.close()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x93\x01", encode_turn(turn("a"))[:-3]])
async def test_a_turn_that_cannot_be_read_is_told_and_no_error(in_redis, garbage):
    """Another version may have written it; the conversation begins anew behind it."""
    await say(in_redis.store, "a", "b")
    await in_redis.client.submit("HSET", "weir:session:{s}", "turn:1", garbage)

    assert (await in_redis.store.open("s", ANN)).messages == ()
    assert [event.fingerprint for event in in_redis.events.of(EntryUnreadable)] == ["s"]
    assert await say(in_redis.store, "c") == turns("c")


@pytest.mark.parametrize("field", ["owner", "birth", "first", "next", "messages", "bytes"])
@pytest.mark.parametrize("garbage", [None, b"", b"x", b"-1", b"\xff"])
async def test_a_conversation_that_is_damaged_is_no_defect(in_redis, field, garbage):
    """Whatever of it: what can be read of it is told, or that it is unknown or cannot be reached."""
    await say(in_redis.store, "a")
    change = ("HDEL", "weir:session:{s}", field) if garbage is None else ("HSET", "weir:session:{s}", field, garbage)
    await in_redis.client.submit(*change)
    with suppress(UnknownSession, SessionUnavailable):
        conversation = await in_redis.store.open("s", ANN)
        await in_redis.store.append(turn_in(conversation, turn("b"), "id-b"))
        assert (await in_redis.store.read("s", ANN)).messages in [turns(names) for names in ("", "a", "b", "ab")]


async def test_a_key_that_is_no_conversation_is_told_and_not_touched(in_redis):
    """Whatever it is, it is not ours to delete."""
    conversation = await in_redis.store.open("s", ANN)
    await in_redis.client.submit("SET", "weir:session:{s}", "garbage")
    for use in (in_redis.store.open, in_redis.store.read, in_redis.store.forget):
        with pytest.raises(SessionUnavailable):
            await use("s", ANN)
    await in_redis.store.append(turn_in(conversation, turn("a")))

    assert await in_redis.client.submit("GET", "weir:session:{s}") == b"garbage"
    assert len(in_redis.events.of(StoreFailed)) == 4
