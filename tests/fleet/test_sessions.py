"""A conversation may go on at any instance."""

import asyncio

import pytest

from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type, text
from tests.app.refusals import told
from tests.fleet.instances import fleet
from tests.fleet.readers import question
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clients(instances, simulator):
    """A client of each of two instances, and simulated providers of which nothing was asked yet."""
    async with connected(instances[0].url) as first, connected(instances[1].url) as second:
        for client in (first, second):
            client.simulator = simulator
        yield first, second


@pytest.fixture
def durable_redis():
    """A Redis of the test's own that forgets nothing when it ends."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


def turn(query, stream):
    """What is kept of a question and its answer."""
    return [{"role": "user", "content": query}, {"role": "assistant", "content": text(stream.events)}]


async def messages(client, session_id):
    return (await client.send("GET", f"/v1/sessions/{session_id}")).json()["messages"]


async def test_every_next_turn_may_go_to_another_instance(clients):
    """At once: whoever has read `complete` can ask the next question anywhere."""
    said = []
    for number in range(6):
        client, query = clients[number % 2], question()
        stream = await client.ask(STREAM, query, session_id="wanders")
        assert client.simulator.calls("openai")[-1]["body"]["messages"] == [*said, turn(query, stream)[0]]
        said += turn(query, stream)

    assert await messages(clients[0], "wanders") == await messages(clients[1], "wanders") == said


async def test_two_turns_at_once_on_two_instances_are_both_kept_whole(clients):
    """In some order."""
    clients[0].simulator.behave("openai", gap_s=0.01)
    queries = [question() for _ in clients]
    streams = await asyncio.gather(
        *(client.ask(STREAM, query, session_id="twice") for client, query in zip(clients, queries, strict=True))
    )
    kept = await messages(clients[0], "twice")

    assert len(kept) == 4
    for query, stream in zip(queries, streams, strict=True):
        assert turn(query, stream) in (kept[:2], kept[2:])


async def test_one_answer_is_a_turn_of_conversations_on_two_instances(clients):
    """One call for both, and each keeps it."""
    clients[0].simulator.behave("openai", gap_s=0.02)
    query = question()
    async with clients[0].open(STREAM, query, session_id="leads") as first:
        await first.chunks(2)
        second = await clients[1].ask(STREAM, query, session_id="follows")
        await first.all()

    assert second.headers["x-cache"] == "coalesced"
    assert await messages(clients[0], "follows") == await messages(clients[1], "leads") == turn(query, first)
    assert clients[0].simulator.counters("openai")["calls"] == 1


async def test_what_one_instance_forgets_is_forgotten(clients):
    """By all."""
    await clients[0].ask(STREAM, question(), session_id="forgotten")
    forgotten = await clients[1].send("DELETE", "/v1/sessions/forgotten")
    gone = await clients[0].send("GET", "/v1/sessions/forgotten")

    assert (forgotten.status, gone.status) == (204, 404)


async def test_a_conversation_is_one_caller_s_on_every_instance(clients, instances):
    """Another has its own under the same id."""
    await clients[0].ask(STREAM, question(), session_id="mine")
    async with connected(instances[1].url, "127.0.0.2") as stranger:
        path = "/v1/sessions/mine"
        answers = [await stranger.send("GET", path), await stranger.send("DELETE", path)]
        await stranger.ask(STREAM, question(), session_id="mine")
        assert len(await messages(stranger, "mine")) == 2

    assert [(answer.status, told(path, answer)[0]) for answer in answers] == [(404, "unknown_session")] * 2
    assert len(await messages(clients[1], "mine")) == 2


async def failures(client):
    return await metrics.total(client, "sse_redis_errors_total", operation="session")


POISON = {
    "another version": ("HSET", "version", "2"),
    "garbage": ("HSET", "turn:0", "garbage"),
    "cut": ("HDEL", "turn:0"),
    "no number": ("HSET", "next", "x"),
    "not even a hash": ("SET", "garbage"),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
async def test_a_conversation_that_cannot_be_read_is_refused_until_it_is_forgotten(clients, redis_server, poison):
    """To go on from a part of it would be to answer another question. An operator can see that it happens."""
    await clients[0].ask(STREAM, question(), session_id="poisoned")
    command, *field = poison
    redis_server.ask(command, "weir:session:{address:127.0.0.1}/poisoned", *field)
    path, before = "/v1/sessions/poisoned", await failures(clients[1])
    answers = [await clients[1].ask(STREAM, question(), session_id="poisoned"), await clients[1].send("GET", path)]
    forgotten = await clients[1].send("DELETE", path)
    query = question()
    anew = await clients[0].ask(STREAM, query, session_id="poisoned")

    for answer in answers:
        assert (answer.status, told(STREAM, answer)[0]) == (503, "session_unavailable")
        assert "DELETE it" in answer.json()["detail"]
    assert await failures(clients[1]) - before == 2
    assert forgotten.status == 204
    assert await messages(clients[1], "poisoned") == turn(query, anew)


async def test_the_turn_of_a_lost_instance_is_kept_where_its_client_goes(simulator, own_redis):
    """The answer is taken over, and so is the conversation."""
    simulator.behave("openai", tokens=80, gap_s=0.05)
    query, session_id = question(), "survives"
    with fleet(simulator, own_redis.url, own_redis.url) as (lost, left):
        async with connected(lost.url) as client, client.open(STREAM, query, session_id=session_id) as stream:
            await stream.chunks(5)
            lost.kill()
        async with connected(left.url) as client:
            again = await client.send("GET", f"/v1/streams/{stream.stream_id}")
            kept = await messages(client, session_id)

    assert of_type(again.events, "complete")
    assert kept == turn(query, again)


async def is_back(client):
    """Redis can be used again."""
    await metrics.until(client, "sse_degraded", lambda value: not value)


async def test_without_redis_a_question_is_refused_only_if_it_goes_on_with_a_conversation(simulator, durable_redis):
    """Its answer would look right and be wrong. With Redis back, nothing is lost that had been said."""
    with fleet(simulator, durable_redis.url) as [instance]:
        async with connected(instance.url) as client:
            query = question()
            stream = await client.ask(STREAM, query, session_id="s")
            durable_redis.stop()
            refused = await client.ask(STREAM, question(), session_id="s")
            unread = await client.send("GET", "/v1/sessions/s")
            alone = await client.ask(STREAM, question())
            durable_redis.start()
            await is_back(client)
            kept = await messages(client, "s")

    for answer in (refused, unread):
        assert (answer.status, told(STREAM, answer)[0]) == (503, "session_unavailable")
        assert answer.headers["retry-after"] == "1"
    assert of_type(alone.events, "complete")
    assert kept == turn(query, stream)


async def test_what_ends_while_redis_is_away_is_kept_when_it_is_back(simulator, durable_redis):
    """The answer is told whole, and the conversation has it as soon as it can be read again."""
    simulator.behave("openai", tokens=20, gap_s=0.02)
    with fleet(simulator, durable_redis.url) as [instance]:
        async with connected(instance.url) as client:
            query = question()
            async with client.open(STREAM, query, session_id="s") as stream:
                await stream.chunks(3)
                durable_redis.stop()
                await stream.all()
            durable_redis.start()
            await is_back(client)
            kept = await messages(client, "s")

    assert of_type(stream.events, "complete")
    assert kept == turn(query, stream)
