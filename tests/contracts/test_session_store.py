"""The contract of domain.ports.SessionStore, in memory, on one Redis and on a cluster."""

import asyncio
from contextlib import asynccontextmanager
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.chat import Turn
from domain.errors import SessionUnavailable, UnknownSession
from domain.events import SessionFailed
from domain.sessions import SessionBounds
from infrastructure.memory.session_store import MemorySessionStore
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.session_store import RedisSessionStore
from infrastructure.turns import encode_turn
from tests.fakes import FakeClock, RememberedEvents
from tests.loops import settle
from tests.redis_servers import RedisServer

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]

ANN, BOB = "acme/ann", "acme/bob"
S = f"{ANN}/s"
KEY, INDEX = "weir:session:{acme/ann}/s", "weir:sessions:{acme/ann}"
BEGUN_S = 16.0
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


class InMemory:
    """A store in memory, whose time passes when told to."""

    def __init__(self, bounds=BOUNDS, max_sessions=1000):
        self.clock = FakeClock()
        self.store = MemorySessionStore(bounds=bounds, begun_s=BEGUN_S, max_sessions=max_sessions, unix_now=self.clock)


class InRedis:
    """A store in Redis."""

    def __init__(self, url, bounds, max_sessions=1000, **how):
        self.clock, self.events = FakeClock(), RememberedEvents()
        self.client = RedisClient(connect(url).commands, linger_s=0.0, publish=self.events.publish)
        self.store = RedisSessionStore(
            client=self.client,
            bounds=bounds,
            begun_s=BEGUN_S,
            max_sessions=max_sessions,
            publish=self.events.publish,
            unix_now=self.clock,
            **how,
        )


@asynccontextmanager
async def at_redis(url, bounds=BOUNDS, **how):
    """A store in that Redis, for the time of the context."""
    subject = InRedis(url, bounds, **how)
    try:
        yield subject
    finally:
        await subject.client.close()
        await settle()  # a connection that is closed gives its socket back a turn of the loop later


@pytest.fixture
async def in_redis(redis_server):
    async with at_redis(redis_server.url) as subject:
        yield subject


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def store(request):
    if request.param == "memory":
        yield InMemory().store
        return
    async with at_redis(request.getfixturevalue(request.param).url) as subject:
        yield subject.store


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def few(request):
    """A store that keeps three conversations of one owner, and another's."""
    if request.param == "memory":
        yield InMemory(max_sessions=4).store
        return
    async with at_redis(request.getfixturevalue(request.param).url, max_sessions=3) as subject:
        yield subject.store


async def begun(store, session_id=S):
    """The conversation, of which there is one now."""
    birth_id = await store.begin(session_id)
    conversation = await store.open(session_id)
    assert conversation.birth_id == birth_id
    return conversation


async def say(store, *names, session_id=S, size=0):
    """A turn of each name, one after the other; return what is kept then."""
    for name in names:
        await store.append(turn_in(await begun(store, session_id), turn(name, size), f"id-{name}"))
    return (await store.read(session_id)).messages


def turns(names):
    return tuple(message for name in names for message in turn(name))


async def test_turns_are_kept_in_the_order_in_which_they_came(store):
    """Each message as it was."""
    assert (await begun(store)).messages == ()
    assert await say(store, *"abc") == turns("abc")
    assert (await begun(store)).messages == turns("abc")


async def test_what_was_opened_does_not_change(store):
    """A request is answered from one moment of the conversation."""
    opened = await begun(store)
    await say(store, "a")

    assert opened.messages == ()


async def test_sessions_are_kept_apart(store):
    """By their owners, and by their names, which may look alike."""
    ids = [f"{owner}/{name}" for owner in (ANN, BOB) for name in ("s", "S", "s:", "s.1")]
    for session_id in ids:
        await say(store, session_id, session_id=session_id)
    for session_id in ids:
        assert (await store.read(session_id)).messages == turns([session_id])


async def test_what_nobody_began_can_neither_be_read_nor_forgotten(store):
    """Nor does opening it begin anything, for anybody: who is refused for another reason has taken nothing."""
    for use in (store.read, store.forget, store.read):
        opened = await store.open(S)
        assert (opened.birth_id, opened.turn_count, opened.messages) == ("", 0, ())
        with pytest.raises(UnknownSession):
            await use(S)
    await begun(store)


async def test_what_was_begun_twice_at_once_is_one_conversation(store):
    """Two first questions, neither of which knew of the other."""
    births = await asyncio.gather(*(store.begin(S) for _ in range(3)))

    assert len(set(births)) == 1
    assert births[0]


async def test_a_turn_of_what_has_not_begun_is_not_kept(store):
    """Only what will be answered begins."""
    await store.append(turn_in(await store.open(S), turn("a")))

    with pytest.raises(UnknownSession):
        await store.read(S)


async def test_who_begins_too_many_loses_its_own(few):
    """Those that went on least lately; nobody else's."""
    names = [f"{ANN}/{number}" for number in range(6)]
    await say(few, "b", session_id=f"{BOB}/s")
    for name in names[:2]:
        await say(few, "a", session_id=name)
    await say(few, "b", session_id=names[0])
    for name in names[2:]:
        await say(few, "a", session_id=name)
    left = [name for name in names if (await few.open(name)).turn_count]

    assert left == names[-3:]
    assert (await few.read(f"{BOB}/s")).messages == turns("b")


async def test_a_forgotten_conversation_is_gone(store):
    """And its id free."""
    await say(store, "a")
    await store.forget(S)

    with pytest.raises(UnknownSession):
        await store.read(S)
    assert (await begun(store)).messages == ()


async def test_a_turn_under_way_does_not_bring_back_what_was_forgotten(store):
    """Not even into a new conversation of the same id and owner."""
    before = await begun(store)
    await store.forget(S)
    await store.append(turn_in(before, turn("a"), "id-a"))
    with pytest.raises(UnknownSession):
        await store.read(S)
    await begun(store)
    await store.append(turn_in(before, turn("b"), "id-b"))

    assert (await store.read(S)).messages == ()


async def test_a_turn_is_kept_once_however_often_it_is_appended(store):
    """A command may be sent again, and two instances may see the same answer end."""
    opened = await begun(store)
    for _ in range(3):
        await store.append(turn_in(opened, turn("a")))

    assert (await store.read(S)).messages == turns("a")


async def test_a_turn_that_has_gone_does_not_come_back(store):
    """Whoever appends it again cannot know that it was there."""
    opened = await begun(store)
    await store.append(turn_in(opened, turn("a")))
    await say(store, *"bcd")
    await store.append(turn_in(opened, turn("a")))

    assert (await store.read(S)).messages == turns("bcd")


async def test_a_conversation_knows_how_many_turns_it_has_had(store):
    """Those that went among them."""
    await say(store, *"abcde")

    assert (await store.read(S)).turn_count == 5


async def test_turns_of_one_moment_are_all_kept_whole(store):
    """Two windows, one conversation."""
    opened = await asyncio.gather(*(begun(store) for _ in "abc"))
    await asyncio.gather(
        *(store.append(turn_in(each, turn(name), name)) for each, name in zip(opened, "abc", strict=True))
    )
    kept = (await store.read(S)).messages

    assert sorted(kept[at]["content"] for at in (0, 2, 4)) == ["a?", "b?", "c?"]
    assert all(kept[at]["content"][0] == kept[at + 1]["content"][0] for at in (0, 2, 4))


async def test_the_oldest_turns_go_first_by_number_of_messages(store):
    """Whole ones."""
    assert await say(store, *"abcd") == turns("bcd")
    opened = await begun(store)
    await store.append(turn_in(opened, (turn("e")[0], *turn("f"))))

    assert (await store.read(S)).messages == (*turns("d"), turn("e")[0], *turn("f"))


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


async def test_of_what_is_too_large_to_be_sent_in_time_nothing_is_sent(in_redis):
    """A store that is busy with it is away for everybody."""
    await say(in_redis.store, "a")
    conversation = await begun(in_redis.store)
    await in_redis.store.append(turn_in(conversation, turn("b", size=50_000_000), "id-b"))

    assert not in_redis.client.is_away
    assert await say(in_redis.store, "c") == turns("c")


async def test_text_of_any_language_is_kept_as_it_is(store):
    """And counted in bytes."""
    spoken = ({"role": "user", "content": "Was ist ein Wehr? 堰 \U0001f30a \x00"},)
    await store.append(turn_in(await begun(store), spoken))

    assert (await store.read(S)).messages == spoken


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


async def compare(stores, model, steps, session_id):
    for number, (step, message_count, size) in enumerate(steps):
        opened = [await begun(store, session_id) for store in stores]
        spoken = tuple({"role": "user", "content": f"{number}" + "x" * size * 100} for _ in range(message_count))
        for store, conversation in zip(stores, opened, strict=True):
            if step == "say":
                await store.append(turn_in(conversation, spoken, str(number)))
            else:
                await store.forget(session_id)
                await store.begin(session_id)
        if step == "say":
            model.say(spoken)
        else:
            model.turns.clear()
        expected = tuple(message for each in model.turns for message in each)
        assert [(await store.read(session_id)).messages for store in stores] == [expected] * 2


def test_both_stores_are_what_the_plainest_model_says(redis_server):
    """Whatever is said and forgotten."""
    numbers = count()

    async def compare_both(steps, bounds):
        async with at_redis(redis_server.url, bounds) as subject:
            await compare((InMemory(bounds).store, subject.store), Model(bounds), steps, f"{ANN}/s{next(numbers)}")

    @settings(deadline=None)  # another process answers
    @given(STEPS, st.integers(2, 8), st.integers(200, 1200))
    def agree(steps, max_messages, max_bytes):
        asyncio.run(compare_both(steps, SessionBounds(max_messages=max_messages, max_bytes=max_bytes, ttl_s=64.0)))

    agree()


# Time


async def test_in_memory_a_conversation_lasts_from_its_last_use():
    """Being read is no use: who looks every day does not keep it for ever."""
    subject = InMemory()
    await say(subject.store, "a")
    assert (await subject.store.read(S)).expires_at_s == subject.clock() + 64.0

    subject.clock.advance(63.5)
    await say(subject.store, "b")
    subject.clock.advance(63.5)
    assert (await subject.store.read(S)).messages == turns("ab")
    subject.clock.advance(0.5)

    with pytest.raises(UnknownSession):
        await subject.store.read(S)
    assert len(subject.store) == 0


async def test_in_memory_a_conversation_without_a_turn_lasts_for_an_answer():
    """Whatever was used before it and lasts longer; who is refused leaves nothing behind for long."""
    subject = InMemory()
    await say(subject.store, "a", session_id=f"{ANN}/long")
    await begun(subject.store)
    subject.clock.advance(BEGUN_S)

    with pytest.raises(UnknownSession):
        await subject.store.read(S)
    assert (await subject.store.open(S)).turn_count == 0
    assert (await subject.store.read(f"{ANN}/long")).messages == turns("a")


async def left_ms(in_redis):
    return await in_redis.client.submit("PTTL", KEY)


async def test_in_redis_a_conversation_without_a_turn_lasts_for_an_answer(in_redis):
    """Redis counts the time."""
    conversation = await begun(in_redis.store)
    assert 15_000 < await left_ms(in_redis) <= 16_000
    assert 15.0 < conversation.expires_at_s - in_redis.clock() <= 16.0
    await in_redis.client.submit("PEXPIRE", KEY, 10_000)
    await begun(in_redis.store)

    assert 15_000 < await left_ms(in_redis) <= 16_000


async def test_in_redis_a_conversation_lasts_from_its_last_use(in_redis):
    """Being read is none."""
    await say(in_redis.store, "a")
    assert 63.0 < (await in_redis.store.read(S)).expires_at_s - in_redis.clock() <= 64.0
    conversation = await begun(in_redis.store)
    for use in (lambda: in_redis.store.open(S), lambda: in_redis.store.append(turn_in(conversation, turn("b")))):
        await in_redis.client.submit("PEXPIRE", KEY, 10_000)
        await in_redis.store.read(S)
        assert await left_ms(in_redis) <= 10_000
        await use()
        assert await left_ms(in_redis) > 60_000


async def test_in_memory_everybody_s_are_bounded_together():
    """Whoever makes up ids: of whoever has most, the one used least lately goes."""
    subject = InMemory(max_sessions=3)
    for owner, name in ((BOB, "s"), (ANN, "s1"), (ANN, "s2"), (ANN, "s1"), (ANN, "s3"), (ANN, "s4")):
        await subject.store.begin(f"{owner}/{name}")

    assert list(subject.store._sessions) == [f"{BOB}/s", f"{ANN}/s3", f"{ANN}/s4"]


# Redis as it is


async def test_all_of_a_conversation_is_under_one_key(in_redis):
    """Beside the owner's list of them; and nothing of turns that went is left there."""
    await say(in_redis.store, *"abcdefgh")

    assert sorted(await in_redis.client.submit("KEYS", "*")) == [KEY.encode(), INDEX.encode()]
    assert await in_redis.client.submit("HLEN", KEY) == 6 + 3 * 4


async def test_in_redis_nothing_is_left_of_what_was_forgotten(in_redis):
    """Nor is it in the owner's list."""
    await say(in_redis.store, "a")
    assert await in_redis.client.submit("PTTL", INDEX) > 60_000
    await in_redis.store.forget(S)

    assert await in_redis.client.submit("KEYS", "*") == []


async def test_without_redis_nobody_can_tell():
    """And nobody waits for it."""
    lone = RedisServer()
    async with at_redis(lone.url) as subject:
        conversation = await begun(subject.store)
        lone.stop()
        for use in (subject.store.open, subject.store.read, subject.store.forget):
            with pytest.raises(SessionUnavailable, match="reached"):
                await use(S)
        await subject.store.append(turn_in(conversation, turn("a")))
    lone.close()


async def test_a_turn_that_redis_could_not_take_is_kept_when_it_is_back():
    """Once, though nobody knows whether it had taken it."""
    lone = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    async with at_redis(lone.url) as subject:
        await say(subject.store, "a")
        conversation = await begun(subject.store)
        lone.stop()
        for name in "ab":
            await subject.store.append(turn_in(conversation, turn(name), f"id-{name}"))
        back = asyncio.Event()
        subject.client.on_return.append(back.set)
        lone.start()
        await asyncio.wait_for(back.wait(), 10)

        assert (await subject.store.read(S)).messages == turns("ab")
    lone.close()


async def test_turns_that_wait_for_redis_take_bounded_memory():
    """The oldest go: their clients have had the answers."""
    lone = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    async with at_redis(lone.url, max_unwritten_bytes=2 * TURN_BYTES) as subject:
        conversation = await begun(subject.store)
        lone.stop()
        for name in "abcd":
            await subject.store.append(turn_in(conversation, turn(name), name))
        back = asyncio.Event()
        subject.client.on_return.append(back.set)
        lone.start()
        await asyncio.wait_for(back.wait(), 10)

        assert (await subject.store.read(S)).messages == turns("cd")
    lone.close()


# What is in Redis and cannot be


NOT_MESSAGES = {
    "nothing": b"",
    "garbage": b"garbage",
    "cut": encode_turn(turn("a"))[:-3],
    "of another shape": msgspec.msgpack.encode({"role": "user"}),
    "without a text": msgspec.msgpack.encode([{"role": "user"}]),
    "not text": b"\x91\x82\xa4role\xa4user\xa7content\xa2\xff\xfe",
    "a number": msgspec.msgpack.encode([{"role": "user", "content": 5}]),
}


async def check_unreadable(in_redis):
    """Its owner is told so, nothing changes until it is forgotten, and then it is as any other."""
    before = await in_redis.client.submit("HGETALL", KEY)
    for use in (in_redis.store.open, in_redis.store.read):
        with pytest.raises(SessionUnavailable, match="DELETE"):
            await use(S)
    assert await in_redis.client.submit("HGETALL", KEY) == before
    assert [event.session_id for event in in_redis.events.of(SessionFailed)] == [S] * 2
    await in_redis.store.forget(S)
    assert await say(in_redis.store, "c") == turns("c")


@pytest.mark.parametrize("garbage", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
async def test_a_turn_that_cannot_be_read_refuses_the_conversation(in_redis, garbage):
    """What is left of it would be another conversation."""
    await say(in_redis.store, *"abc")
    await in_redis.client.submit("HSET", KEY, "turn:1", garbage)

    await check_unreadable(in_redis)


@pytest.mark.parametrize("field", ["version", "birth", "first", "next", "messages", "bytes", "turn:0"])
async def test_a_field_that_misses_refuses_the_conversation(in_redis, field):
    """Somebody else has written it, or cut it."""
    await say(in_redis.store, "a")
    await in_redis.client.submit("HDEL", KEY, field)

    await check_unreadable(in_redis)


@pytest.mark.parametrize("garbage", [b"", b"x", b"-1", b"\xff", b"9" * 5000])
@pytest.mark.parametrize("field", ["first", "next", "messages", "bytes"])
async def test_a_number_that_is_none_refuses_the_conversation(in_redis, field, garbage):
    """Nothing is guessed."""
    await say(in_redis.store, "a")
    await in_redis.client.submit("HSET", KEY, field, garbage)

    await check_unreadable(in_redis)


@pytest.mark.parametrize("field", [("version", "2"), ("birth", b"\xff"), ("first", "2"), ("next", str(2**53))])
async def test_another_version_s_conversation_is_refused(in_redis, field):
    """During an update, an instance of that version can read it."""
    await say(in_redis.store, "a")
    await in_redis.client.submit("HSET", KEY, *field)

    await check_unreadable(in_redis)


DAMAGES = [
    ("HDEL", "version"),
    ("HSET", "version", "2"),
    ("HDEL", "first"),
    ("HDEL", "next"),
    ("HSET", "messages", "x"),
    ("HSET", "bytes", ""),
    ("HDEL", "turn:0"),
    ("HDEL", "count:1"),
    ("HDEL", "id:2"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=" ".join)
async def test_a_turn_changes_nothing_of_what_was_damaged_during_its_answer(in_redis, damage):
    """A script that fails half-way leaves what it has done: this one reads first, and then writes."""
    await say(in_redis.store, *"abc")
    conversation = await begun(in_redis.store)
    command, *field = damage
    await in_redis.client.submit(command, KEY, *field)
    before = await in_redis.client.submit("HGETALL", KEY)
    await in_redis.store.append(turn_in(conversation, turn("d") * 3, "d"))

    assert await in_redis.client.submit("HGETALL", KEY) == before


@pytest.mark.parametrize("command", [("SET", "garbage"), ("RPUSH", "garbage"), ("XADD", "*", "r", "garbage")], ids=str)
async def test_a_key_that_is_no_conversation_is_told_and_not_touched_until_it_is_forgotten(in_redis, command):
    """Its client can go on under the same id, and need not wait until it is gone by itself."""
    conversation = await begun(in_redis.store)
    await in_redis.client.submit("DEL", KEY)
    name, *garbage = command
    await in_redis.client.submit(name, KEY, *garbage)
    before = await in_redis.client.submit("DUMP", KEY)
    for use in (in_redis.store.open, in_redis.store.read, in_redis.store.begin):
        with pytest.raises(SessionUnavailable, match="DELETE"):
            await use(S)
    await in_redis.store.append(turn_in(conversation, turn("a")))
    assert await in_redis.client.submit("DUMP", KEY) == before
    assert len(in_redis.events.of(SessionFailed)) == 4

    await in_redis.store.forget(S)
    assert await say(in_redis.store, "c") == turns("c")
