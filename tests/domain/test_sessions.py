"""Conversations: what is asked goes on with what was said, and what is answered whole is kept."""

import asyncio

import pytest

from domain.answer import CacheStatus
from domain.chat import Caller, Chunk, Turn
from domain.errors import (
    ProviderUnavailable,
    RateLimited,
    SessionUnavailable,
    UnknownModel,
    UnknownSession,
    UnknownStream,
)
from domain.events import DefectFound
from domain.fingerprint import CacheScope
from domain.generation import Seen
from domain.ports import Conversation
from domain.sessions import LOOK_AGAIN_S
from tests.domain.service import ANN, GRACE_S, ONE_A_MINUTE, QUESTION, STOP, TTL_S, WHOLE, Service, read
from tests.loops import settle

pytestmark = pytest.mark.anyio

BOB = Caller(user="bob", tenant="acme", tier="standard")
[ASKED] = QUESTION.messages
ANSWERED = {"role": "assistant", "content": "xy"}


def said(text):
    return {"role": "user", "content": text}


async def kept(service, session_id="s", caller=ANN):
    """The messages of the conversation."""
    await settle()
    return (await service.conversations.read(session_id, caller)).messages


async def test_the_next_question_is_asked_behind_what_was_said():
    """The provider gets the whole conversation."""
    service = Service(WHOLE, (Chunk("z"), STOP))
    await service.asked(session_id="s")
    await service.asked(session_id="s", messages=(said("again?"),))

    assert service.provider.requests[1].messages == (ASKED, ANSWERED, said("again?"))
    assert await kept(service) == (*service.provider.requests[1].messages, {"role": "assistant", "content": "z"})


async def test_without_a_session_nothing_is_kept():
    """Nor is a store asked."""
    service = Service()
    await service.asked()

    assert len(service.sessions) == 0


async def test_the_turn_is_kept_before_the_client_is_told_that_it_is_whole():
    """Whoever reads `complete` may ask the next question at once, on any instance."""
    service = Service()
    answer = await service.ask(session_id="s")
    while answer.generation.sealed is None:
        await answer.reader.read(1024.0)
    await answer.kept()

    assert await service.sessions.read("ann/s")
    assert (await service.conversations.read("s", ANN)).messages == (ASKED, ANSWERED)
    answer.close()


async def test_a_stored_answer_is_a_turn_as_well():
    """By the time that it is there."""
    service = Service()
    await service.asked()
    answer = await service.ask(session_id="s")

    assert answer.cache is CacheStatus.L1
    assert (await service.conversations.read("s", ANN)).messages == (ASKED, ANSWERED)
    answer.close()


async def test_a_followed_answer_is_a_turn_of_each_conversation():
    """One call, two conversations."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    answers = [await service.ask(session_id="s"), await service.ask(BOB, session_id="b")]
    gate.set()
    for answer in answers:
        await read(answer)

    assert [answer.cache for answer in answers] == [CacheStatus.MISS, CacheStatus.COALESCED]
    assert await kept(service) == await kept(service, "b", BOB) == (ASKED, ANSWERED)
    assert service.call_count == 1


async def test_equal_conversations_share_answers():
    """All that was said counts, not the session's id."""
    service = Service()
    for session_id in ("s1", "s2"):
        await service.asked(session_id=session_id)
        await service.asked(session_id=session_id, messages=(said("again?"),))
    await service.asked(session_id="s3", messages=(said("again?"),))

    assert service.call_count == 3


async def test_two_turns_at_once_are_both_kept_whole():
    """In the order in which they ended."""
    gates = asyncio.Event(), asyncio.Event()
    service = Service(*((Chunk(name), gate, STOP) for name, gate in zip("xy", gates, strict=True)))
    first = await service.ask(session_id="s", messages=(said("first?"),))
    await settle()
    second = await service.ask(session_id="s", messages=(said("second?"),))
    for gate, answer in ((gates[1], second), (gates[0], first)):
        gate.set()
        await read(answer)

    assert [message["content"] for message in await kept(service)] == ["second?", "y", "first?", "x"]


@pytest.mark.parametrize(
    "script",
    [
        (Chunk("x"), Chunk(finish_reason="content_filter")),
        (ProviderUnavailable("gone"),),
        (Chunk("x"), ProviderUnavailable("gone")),
    ],
    ids=["filtered", "failed", "cut"],
)
async def test_an_answer_that_is_not_whole_is_no_turn(script):
    """The next question goes on from what was whole."""
    service = Service(script)
    service.spare.scripts = (script,)
    await service.asked(session_id="s")

    assert await kept(service) == ()
    assert await service.is_at_rest()


async def test_a_stopped_answer_is_no_turn():
    """Its asker did not want it."""
    service = Service((Chunk("x"), asyncio.Event()))
    answer = await service.ask(session_id="s")
    await settle()
    await service.lifecycle.stop(answer.stream_id, ANN)
    await read(answer)

    assert await kept(service) == ()


async def test_what_ends_whole_after_its_client_left_is_a_turn():
    """A client whose network drops has the answer when it comes back."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    (await service.ask(session_id="s")).close()
    await settle()
    gate.set()

    assert await kept(service) == (ASKED, ANSWERED)
    assert await service.is_at_rest()


async def test_keeping_a_turn_does_not_keep_an_answer_alive():
    """Nobody reads it, so nobody pays for the rest."""
    service = Service((Chunk("x"), asyncio.Event()))
    answer = await service.ask(session_id="s")
    answer.close()
    await asyncio.sleep(GRACE_S + LOOK_AGAIN_S)

    assert await kept(service) == ()
    assert await service.is_at_rest()


async def test_who_comes_back_elsewhere_has_the_turn_kept_once():
    """The instance that it asked may be gone, and may be not."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    answer = await service.ask(session_id="s")
    await settle()
    for keeping in tuple(service.conversations._keeping):
        keeping.cancel()
    back = [await service.lifecycle.join(answer.stream_id, ANN, None, Seen(0)) for _ in range(2)]
    gate.set()
    for each in back:
        await read(each)
    (await service.lifecycle.join(answer.stream_id, ANN, None, None)).close()
    answer.close()

    assert await kept(service) == (ASKED, ANSWERED)


async def test_somebody_else_who_joins_a_stream_has_no_part_in_the_conversation():
    """It is its asker's."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    answer = await service.ask(session_id="s")
    joined = await service.lifecycle.join(answer.stream_id, BOB, None, None)

    assert (answer.keeping is None, joined.keeping) == (False, None)
    gate.set()
    await read(answer)
    await read(joined)


OTHERS = {
    "of the same tenant": BOB,
    "of another": Caller(user="evil/ann", tenant="evil"),
    "of none": Caller(user="bob"),
    "an address": Caller(user="address:192.0.2.1"),
    "a network": Caller(user="address:2001:db8:1:2::/64"),
}


@pytest.mark.parametrize("scope", CacheScope)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_nobody_else_is_told_that_an_id_is_taken(other, scope):
    """Everybody has its own conversation under the same id, however widely answers are shared."""
    service = Service(scope=scope)
    await service.asked(session_id="s")
    for use in (service.conversations.read, service.conversations.forget):
        with pytest.raises(UnknownSession, match="no session 's'"):
            await use("s", other)
    await service.asked(caller=other, session_id="s", messages=(said("mine"),))

    assert await kept(service) == (ASKED, ANSWERED)
    assert await kept(service, caller=other) == (said("mine"), ANSWERED)


async def test_a_request_that_is_refused_before_begins_no_conversation():
    """The id stays free."""
    service = Service()
    with pytest.raises(UnknownModel):
        await service.ask(session_id="s", model="gpt-9")

    with pytest.raises(UnknownSession):
        await kept(service)


async def test_a_request_that_is_refused_for_its_rate_begins_no_conversation():
    """However many ids it makes up; what is stored is free, and is a turn."""
    service = Service(rate=ONE_A_MINUTE)
    await service.asked(caller=BOB, session_id="theirs")
    await service.asked(session_id="s", messages=(said("mine?"),))
    for number in range(200):
        with pytest.raises(RateLimited):
            await service.ask(session_id=f"s{number}", messages=(said(f"{number}?"),))
    await service.asked(session_id="free")

    assert len(service.sessions) == 3
    assert await kept(service, "theirs", BOB) == (ASKED, ANSWERED)


async def test_who_has_most_conversations_loses_its_own():
    """Of those that are kept in memory; stored answers cost nothing, and begin some."""
    service = Service()
    await service.asked(caller=BOB, session_id="theirs")
    for number in range(200):
        await service.asked(session_id=f"s{number}")

    assert len(service.sessions) == 100
    assert await kept(service, "theirs", BOB) == await kept(service, "s199") == (ASKED, ANSWERED)


async def test_two_first_turns_that_begin_at_once_are_both_kept():
    """Neither knew of the other when it was asked."""
    service = Service()
    asked = [service.asked(session_id="s", messages=(said(text),)) for text in ("first?", "second?")]
    await asyncio.gather(*asked)

    assert len(await kept(service)) == 4


async def test_what_is_forgotten_during_an_answer_stays_forgotten():
    """The answer comes, and is kept nowhere."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    answer = await service.ask(session_id="s")
    await service.conversations.forget("s", ANN)
    gate.set()
    await read(answer)

    with pytest.raises(UnknownSession):
        await kept(service)


class Broken:
    """A store that can be opened, and then fails in a way that it must not."""

    async def open(self, session_id):
        return Conversation(session_id=session_id, birth_id="", turn_count=0, messages=(), expires_at_s=TTL_S)

    async def begin(self, _session_id):
        return "b"

    async def append(self, turn):
        raise RuntimeError(turn.turn_id)


class Away(Broken):
    async def open(self, _session_id):
        raise SessionUnavailable


class GoesAway(Broken):
    async def begin(self, _session_id):
        raise SessionUnavailable


@pytest.mark.parametrize("store", [Away, GoesAway])
async def test_a_store_that_is_away_refuses_the_question(store):
    """An answer without the conversation would look right and be wrong; it has cost nothing."""
    service = Service(rate=ONE_A_MINUTE)
    service.conversations._store = store()
    with pytest.raises(SessionUnavailable):
        await service.ask(session_id="s")

    assert service.call_count == 0
    assert service.limiter.quota(ANN).remaining == 1
    assert await service.is_at_rest()


async def test_a_defect_in_keeping_is_told_and_costs_no_answer():
    """The client has what it asked for."""
    service = Service()
    service.conversations._store = Broken()
    answer = await service.ask(session_id="s")

    assert (await read(answer))[2:-1] == list(WHOLE)
    await settle()
    assert [type(event.error) for event in service.events.of(DefectFound)] == [RuntimeError]


async def test_an_answer_that_is_nowhere_any_more_is_waited_for_no_longer():
    """An instance that nobody reads it on forgets it."""
    service = Service((Chunk("x"), asyncio.Event()))
    answer = await service.ask(session_id="s")
    await settle()
    service.log._generations.drop(answer.generation)
    await asyncio.sleep(LOOK_AGAIN_S)
    await settle()

    assert service.conversations._keeping == set()
    with pytest.raises(UnknownStream):
        await service.lifecycle.join(answer.stream_id, ANN, None, None)
    answer.close()


async def test_an_answer_that_never_ends_is_given_up():
    """After the time that any answer may take."""
    service = Service((Chunk("x"), asyncio.Event()))
    generation = (await service.ask()).generation
    turn = Turn(session_id="s", birth_id="b", turn_id="t", place=0, messages=(ASKED,))
    service.conversations._limit_s = 16.0
    keeping = service.conversations.keep(turn, generation)
    await asyncio.sleep(16.0)
    await settle()

    assert keeping.done()
    assert service.events.of(DefectFound) == []


async def test_closing_keeps_what_has_ended_and_gives_up_the_rest():
    """The process is about to end."""
    gate = asyncio.Event()
    service = Service(WHOLE, (Chunk("x"), gate))
    await service.asked(session_id="s")
    await service.ask(session_id="s", messages=(said("again?"),))
    await service.conversations.close()

    assert service.conversations._keeping == set()
    assert (await service.conversations.read("s", ANN)).messages == (ASKED, ANSWERED)
