"""Conversations through real HTTP."""

import asyncio
import time

import pytest

from tests.app.asking import CHAT, MODEL, STREAM, connected, of_type, question, text
from tests.app.refusals import check_refusal, refused, told
from tests.serving import serving

pytestmark = pytest.mark.anyio


def user(content):
    return {"role": "user", "content": content}


def assistant(stream):
    """What a stream has answered."""
    return {"role": "assistant", "content": text(stream.events)}


async def session(client, session_id):
    """The conversation, as its owner reads it."""
    return await client.send("GET", f"/v1/sessions/{session_id}")


async def messages(client, session_id):
    return (await session(client, session_id)).json()["messages"]


@pytest.fixture
def session_id():
    """An id that nobody has used before."""
    return question().translate({ord(mark): "-" for mark in " ?"})


@pytest.fixture
async def stranger(service):
    """A client at another address."""
    async with connected(service.url, "127.0.0.2") as other:
        yield other


async def test_a_conversation_goes_on(client, session_id):
    """The provider is asked with all that was said, and the client says only what is new."""
    queries = [question(), question()]
    streams = [await client.ask(STREAM, query, session_id=session_id) for query in queries]
    first, second = client.simulator.calls("openai")
    said = [user(queries[0]), assistant(streams[0]), user(queries[1])]

    assert (first["body"]["messages"], second["body"]["messages"]) == (said[:1], said)
    assert await messages(client, session_id) == [*said, assistant(streams[1])]


async def test_messages_go_on_as_a_query_does(client, session_id):
    """All of them are the turn."""
    turn = [{"role": "system", "content": "Be brief."}, user(question())]
    body = {"model": MODEL, "messages": turn, "session_id": session_id}
    await client.send("POST", STREAM, json=body)

    assert (await messages(client, session_id))[:2] == turn


async def test_a_session_can_be_read(client, session_id):
    """With the time until which it is kept: a day after it was last used."""
    stream = await client.ask(STREAM, session_id=session_id)
    kept = await session(client, session_id)

    assert (kept.status, kept.headers["content-type"]) == (200, "application/json")
    assert kept.headers["cache-control"] == "no-store"
    assert kept.json()["session_id"] == session_id
    assert kept.json()["messages"][1:] == [assistant(stream)]
    assert 86_300 < kept.json()["expires_at"] - time.time() <= 86_400


async def test_a_session_can_be_forgotten(client, session_id):
    """Once; then there is none."""
    await client.ask(STREAM, session_id=session_id)
    path = f"/v1/sessions/{session_id}"
    answers = [await client.send(method, path) for method in ("DELETE", "GET", "DELETE")]

    assert [answer.status for answer in answers] == [204, 404, 404]
    for answer in answers[1:]:
        check_refusal(path, answer)
        assert told(path, answer)[0] == "unknown_session"


async def test_it_is_nobody_else_s(client, stranger, session_id):
    """And as if there was none, word for word."""
    await client.ask(STREAM, session_id=session_id)
    for method in ("GET", "DELETE"):
        theirs = await stranger.send(method, f"/v1/sessions/{session_id}")
        none = await stranger.send(method, f"/v1/sessions/{session_id[:-1]}")
        assert (theirs.status, none.status) == (404, 404)
        assert theirs.json()["detail"].replace(session_id, "") == none.json()["detail"].replace(session_id[:-1], "")
    query = question()
    asked = await stranger.ask(STREAM, query, session_id=session_id)

    assert await messages(stranger, session_id) == [user(query), assistant(asked)]
    assert len(await messages(client, session_id)) == 2


async def test_who_is_refused_has_taken_nothing(simulator, session_id):
    """Neither an id, nor room that others' conversations have."""
    with serving(simulator, WEIR_RATE_ANONYMOUS="1/hour") as limited:
        async with connected(limited.url) as client, connected(limited.url, "127.0.0.3") as greedy:
            await client.ask(STREAM, session_id=session_id)
            asked = [await greedy.ask(STREAM, session_id=f"s{number}") for number in range(1100)]
            begun = [(await session(greedy, f"s{number}")).status for number in (0, 1, 1099)]
            kept = await messages(client, session_id)

    assert [each.status for each in asked] == [200] + [429] * 1099
    assert begun == [200, 404, 404]
    assert len(kept) == 2


@pytest.mark.parametrize("session_id", ["", "a b", "a\n", "a/b", "a{b}", "é", "a" * 129, 5])
async def test_an_id_is_of_a_few_characters(client, session_id):
    """It is part of a key and of an address."""
    response = await refused(client, STREAM, {"model": MODEL, "query": "x", "session_id": session_id})
    [error] = response.json()["errors"]

    assert (response.status, told(STREAM, response)[:2]) == (400, ("invalid_request", "session_id"))
    assert ("1 to 128 of A-Z a-z" if isinstance(session_id, str) else "Expected `str") in error["reason"]


@pytest.mark.parametrize("path", ["a%20b", "%ff", "%00", "%7B%7D", "a" * 5000])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_address_with_what_can_be_no_id_has_no_session(client, method, path):
    """Whatever it is."""
    response = await client.send(method, f"/v1/sessions/{path}")

    assert response.status == 404


async def test_a_stored_answer_is_kept_as_a_turn(client, session_id):
    """It has been said in this conversation as well."""
    query = question()
    await client.ask(STREAM, query)
    hit = await client.ask(STREAM, query, session_id=session_id)

    assert hit.headers["x-cache"] == "l1"
    assert await messages(client, session_id) == [user(query), assistant(hit)]


async def test_two_turns_at_once_are_both_kept_whole(client, session_id):
    """In some order."""
    client.simulator.behave("openai", gap_s=0.01)
    queries = [question() for _ in range(4)]
    streams = await asyncio.gather(*(client.ask(STREAM, query, session_id=session_id) for query in queries))
    kept = await messages(client, session_id)
    pairs = [kept[at : at + 2] for at in range(0, 8, 2)]

    assert len(kept) == 8
    for query, stream in zip(queries, streams, strict=True):
        assert [user(query), assistant(stream)] in pairs


async def test_a_cut_answer_is_not_kept(client, session_id):
    """The conversation goes on from what was whole."""
    whole = await client.ask(STREAM, session_id=session_id)
    for provider in ("openai", "deepseek", "gemini"):
        client.simulator.behave(provider, fault="cut", at=3)
    cut = await client.ask(STREAM, session_id=session_id)
    kept = await messages(client, session_id)

    assert cut.events[-1].type == "error"
    assert kept[1:] == [assistant(whole)]


async def test_a_stopped_answer_is_not_kept(client, session_id):
    """Its asker did not want it."""
    client.simulator.behave("openai", fault="stall", at=3)
    async with client.open(STREAM, session_id=session_id) as stream:
        await stream.chunks(3)
        await client.send("DELETE", f"/v1/streams/{stream.stream_id}")
        await stream.all()

    assert await messages(client, session_id) == []


async def test_who_loses_the_connection_and_comes_back_has_the_turn(client, session_id):
    """What was said is said."""
    client.simulator.behave("openai", gap_s=0.02)
    async with client.open(STREAM, session_id=session_id) as stream:
        await stream.chunks(3)
    again = await client.send("GET", f"/v1/streams/{stream.stream_id}")

    assert (await messages(client, session_id))[1:] == [assistant(again)]


async def test_openais_form_has_no_sessions(client, session_id):
    """There it is a field like any other: the provider's to judge."""
    stream = await client.ask(CHAT, session_id=session_id)

    assert not of_type(stream.events, "error")
    assert client.simulator.calls("openai")[0]["body"]["session_id"] == session_id
    assert (await session(client, session_id)).status == 404
