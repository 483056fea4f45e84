"""Redis goes away in every way there is: streams go on, and what all share comes back by itself."""

import asyncio
import signal

import pytest

from infrastructure.simulator.answers import answer_tokens
from tests.app.asking import STREAM, connected, text
from tests.fleet.checks import STREAMS, check_shared, check_whole, count_calls, until_whole
from tests.fleet.readers import question, reading
from tests.redis_servers import counts
from tests.serving import ADMIN_KEY
from tests.sse_parser import Event

pytestmark = pytest.mark.anyio
TOKENS = 50
GAP_S = 0.2
FOLLOWERS = 30
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
def answers_last(simulator):
    """Every answer takes ten seconds."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)


async def check(simulator, readers, instances, *, extra_calls=FOLLOWERS):
    """All streams are whole, for no more calls than that, and the instances are one service again.

    Who follows while Redis is away may go on alone, for a call of its own.
    """
    check_whole(readers, TOKENS)
    assert count_calls(simulator) <= STREAMS + extra_calls
    await check_shared(simulator, instances)


async def test_redis_is_killed_and_starts_again_empty(three, simulator, answers_last):
    """What was being answered is in it again, so that whoever comes back elsewhere finds it."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        three.redis.stop()
        await asyncio.sleep(0.7)
        three.redis.start()
        await until_whole(*three.instances)
        async with connected(three.instances[2].url) as client:
            address = f"/v1/streams/{readers[0].stream_id}"
            again = await client.send("GET", address, headers={"Last-Event-ID": "1"})
    await check(simulator, readers, three.instances)

    assert [event.data for event in again.events if event.type == "chunk"] == [
        event.data for event in readers[0].events if event.type == "chunk"
    ]


async def test_redis_is_killed_and_an_instance_after_its_return(three, simulator, answers_last):
    """What Redis had lost was written again, so nothing is lost with the instance either."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        three.redis.stop()
        three.redis.start()

        def are_there(keys):
            """All that are under way; on a busy machine some had ended before, and are not written again."""
            return counts(at_least=sum(not reader.has_ended for reader in readers[:STREAMS]))(keys)

        await asyncio.to_thread(three.redis.until, are_there, "KEYS", "weir:gen:*:log:*")
        await asyncio.to_thread(three.redis.until, are_there, "KEYS", "weir:stream:*")
        three.instances[0].kill()
    await check(simulator, readers, three.instances[1:], extra_calls=STREAMS // 3 + FOLLOWERS)


async def test_redis_stands_still_for_five_seconds(three, simulator, answers_last):
    """Those who follow elsewhere go on alone after a while, which costs a call each, and nobody a chunk."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS, silence_s=10.0) as readers:
        three.redis.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(5)
        three.redis.process.send_signal(signal.SIGCONT)
    await check(simulator, readers, three.instances)


async def test_connections_are_killed_and_scripts_forgotten(three, simulator, answers_last):
    """Again and again, while streams run and are followed."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS) as readers:
        for _ in range(8):
            three.redis.ask("SCRIPT", "FLUSH")
            three.redis.ask("CLIENT", "KILL", "TYPE", "normal")
            three.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.4)
    await check(simulator, readers, three.instances)


async def test_one_instance_is_cut_off_from_redis(three, simulator, answers_last):
    """Its own streams go on there; what it follows, and what others follow of it, is answered twice."""
    async with reading(three.instances, STREAMS, followers=FOLLOWERS, silence_s=10.0) as readers:
        three.proxy.cut()
        await asyncio.sleep(4)
        three.proxy.mend()
    await check(simulator, readers, three.instances)


def is_in_fork(item):
    """Whether it is an event whose id says that another leader than the first has told it."""
    return isinstance(item, Event) and item.last_event_id != str(item.number)


def is_behind(number):
    """What tells whether something is an event with a greater number."""
    return lambda item: isinstance(item, Event) and item.number > number


@pytest.mark.parametrize("form", ["", "?format=openai"], ids=["native", "openai"])
async def test_who_leaves_an_instance_that_went_on_by_itself_is_told_that_nothing_else_fits(three, simulator, form):
    """What it has seen has other numbers than what the others have, or other words. Where it was told, it goes on."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    query = question()
    _, one, two = three.instances
    async with connected(one.url) as first, connected(two.url) as second, first.open(STREAM, query) as leading:
        await leading.chunks(3)
        address = f"/v1/streams/{leading.stream_id}{form}"
        async with second.request("GET", address) as following:
            three.redis.process.send_signal(signal.SIGSTOP)
            await following.until(is_in_fork)
            three.redis.process.send_signal(signal.SIGCONT)
            await until_whole(one, two)
            last_id = following.events[-1].last_event_id
        elsewhere, here, mistaken = await asyncio.gather(
            first.send("GET", address, headers={"Last-Event-ID": last_id}),
            second.send("GET", address, headers={"Last-Event-ID": last_id}),
            second.send("GET", address, headers={"Last-Event-ID": last_id.lstrip("0")}),
        )
        await leading.all()
        later = await first.send("GET", address, headers={"Last-Event-ID": last_id})
        whole = await second.send("GET", address)

    for unfit in (elsewhere, mistaken, later):
        [error] = unfit.events
        assert '"code":"stream_interrupted"' in error.data
    assert following.events + here.events == whole.events
    assert text(whole.events) == text(leading.events) == "".join(answer_tokens(query, TOKENS))
    assert not any(map(is_in_fork, leading.events))
    assert count_calls(simulator) == 2


@pytest.mark.parametrize("form", ["", "?format=openai"], ids=["native", "openai"])
async def test_who_moves_between_a_leader_that_is_cut_off_and_the_one_that_replaced_it_is_told(three, simulator, form):
    """Both tell the answer on, each in its own words. Who stays, or comes back to where it was, has all of it."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    query = question()
    async with connected(three.instances[0].url) as first, connected(three.instances[1].url) as second:
        async with first.open(STREAM, query) as asked:
            await asked.chunks(3)
            path = f"/v1/streams/{asked.stream_id}{form}"
            async with first.request("GET", path) as leading, second.request("GET", path) as following:
                three.proxy.cut()
                fork = await following.until(is_in_fork)
                await following.until(is_behind(fork.number + 5))
                await leading.until(is_behind(following.events[-1].number))
            told = [stream.events[-1].last_event_id for stream in (leading, following)]
            crossed, kept = await comings(path, (first, second), told)
            three.proxy.mend()
            await until_whole(*three.instances)
            later, kept_later = await comings(path, (first, second), told)
            await asked.all()
        whole = [await client.send("GET", path) for client in (first, second)]
        of_second = await second.send("GET", path.partition("?")[0])

    for stream in (*crossed, *later):
        [error] = stream.events
        assert '"code":"stream_interrupted"' in error.data
    for before, after, again, all_of_it in zip((leading, following), kept, kept_later, whole, strict=True):
        assert before.events + after.events == before.events + again.events == all_of_it.events
    assert text(asked.events) == text(of_second.events) == "".join(answer_tokens(query, TOKENS))
    assert not any(map(is_in_fork, asked.events))
    assert count_calls(simulator) == 2


async def test_what_a_leader_told_that_was_killed_while_redis_was_away_is_not_gone_on_with(three, simulator):
    """Nobody else has it. Another goes on with what is in Redis, and has as much to tell before long."""
    simulator.behave("openai", tokens=TOKENS, gap_s=GAP_S)
    query = question()
    lost, one, _ = three.instances
    async with connected(lost.url) as first, connected(one.url) as second, first.open(STREAM, query) as leading:
        await leading.chunks(3)
        async with second.request("GET", f"/v1/streams/{leading.stream_id}") as following:
            await following.chunks(3)
            three.redis.process.send_signal(signal.SIGSTOP)
            await leading.until(is_behind(following.events[-1].number + 4))
            lost.kill()
            three.redis.process.send_signal(signal.SIGCONT)
            await following.until(is_behind(leading.events[-1].number + 1))
            last_id = leading.events[-1].last_event_id
            again = await second.send("GET", f"/v1/streams/{leading.stream_id}", headers={"Last-Event-ID": last_id})
            await following.all()

    [error] = again.events
    assert '"code":"stream_interrupted"' in error.data
    assert text(following.events) == "".join(answer_tokens(query, TOKENS))
    assert count_calls(simulator) == 2


async def comings(path, clients, told):
    """What is told to who comes back to the other one than it was told by, and to the same."""
    first, second = clients
    of_first, of_second = ({"Last-Event-ID": last_id} for last_id in told)
    crossed = await asyncio.gather(
        second.send("GET", path, headers=of_first), first.send("GET", path, headers=of_second)
    )
    kept = await asyncio.gather(first.send("GET", path, headers=of_first), second.send("GET", path, headers=of_second))
    return crossed, kept


async def test_what_one_instance_told_by_itself_is_stored_for_it_alone(three, simulator):
    """Who comes back elsewhere to the stream of a stored answer finds what it was told."""
    simulator.behave("openai", tokens=40, gap_s=GAP_S)
    query = question()
    other, one, two = three.instances
    async with connected(one.url) as first, connected(two.url) as second, connected(other.url) as third:
        async with first.open(STREAM, query) as leading, second.open(STREAM, query) as following:
            three.redis.process.send_signal(signal.SIGSTOP)
            await following.until(is_in_fork)
            await asyncio.gather(leading.all(), following.all())
            three.redis.process.send_signal(signal.SIGCONT)
        await until_whole(one, two, other)
        of_one, of_two, of_third = [await client.ask(STREAM, query) for client in (first, second, third)]
        path, headers = f"/v1/streams/{leading.stream_id}", {"Last-Event-ID": of_two.events[-2].last_event_id}
        unfit, fit = [await client.send("GET", path, headers=headers) for client in (third, second)]

    assert [stream.headers["x-cache"] for stream in (of_one, of_two, of_third)] == ["l1", "l1", "l2"]
    for stored, told in ((of_one, leading), (of_two, following), (of_third, leading)):
        assert [event.last_event_id for event in stored.events] == [event.last_event_id for event in told.events]
    assert [event.type for event in unfit.events] == ["error"]
    assert [event.type for event in fit.events] == ["complete"]
    assert count_calls(simulator) == 2


async def test_what_was_purged_while_redis_was_away_is_asked_anew_on_its_return(three, simulator):
    """By whoever asks first, wherever; the stream can still be read."""
    simulator.behave("openai", tokens=20, gap_s=0.05)
    query = question()
    _, one, two = three.instances
    async with connected(one.url) as first, connected(two.url) as second:
        async with first.open(STREAM, query) as leading:
            await leading.chunks(3)
            three.redis.process.send_signal(signal.SIGSTOP)
            await leading.all()
        purged = await first.send("POST", "/admin/cache/purge", json={}, headers=OPERATOR)
        three.redis.process.send_signal(signal.SIGCONT)
        await until_whole(one, two)
        anew, again = [await client.ask(STREAM, query) for client in (second, first)]
        old = await second.send("GET", f"/v1/streams/{leading.stream_id}")

    assert purged.json()["is_fleetwide"] is False
    assert anew.headers["x-cache"] == "miss"
    assert anew.stream_id == again.stream_id != leading.stream_id
    assert text(old.events) == text(leading.events)
    assert count_calls(simulator) == 2
