"""Any number of instances behave as one service."""

import asyncio
from itertools import cycle

import pytest

from tests.app.asking import CHAT, STREAM, connected, of_type, text
from tests.fleet.instances import fleet
from tests.fleet.readers import Reader, question, session

pytestmark = pytest.mark.anyio


async def test_one_question_asked_everywhere_at_once_is_asked_once(instances, simulator):
    """However many ask, and wherever: everybody gets the whole answer."""
    simulator.behave("openai", tokens=40, gap_s=0.01, ttft_s=0.1)
    query = question()
    async with session() as each:
        readers = [Reader(each, instances, at % 3, query) for at in range(60)]
        await asyncio.gather(*(reader.run() for reader in readers))

    for reader in readers:
        assert text(reader.events) == text(readers[0].events)
        assert reader.events[-1].type == "complete"
    assert sorted(reader.cache for reader in readers) == ["coalesced"] * 59 + ["miss"]
    assert simulator.counters("openai")["calls"] == 1


async def test_a_question_that_keeps_being_asked_is_asked_once(instances, simulator):
    """Not even in the moment between its end and its being stored is it asked again."""
    simulator.behave("openai", tokens=3, gap_s=0, ttft_s=0.02)
    queries = [question() for _ in range(20)]

    async def ask_on(url):
        async with connected(url) as client:
            for query in queries:
                answers = await asyncio.gather(*(client.ask(STREAM, query) for _ in range(4)))
                assert {answer.events[-1].type for answer in answers} == {"complete"}

    await asyncio.gather(*(ask_on(instance.url) for instance in instances))

    assert simulator.counters("openai")["calls"] == len(queries)


async def test_who_joins_late_gets_the_beginning_too(instances, simulator):
    """The whole prefix, and then what comes."""
    simulator.behave("openai", tokens=40, gap_s=0.02)
    query = question()
    async with (
        connected(instances[0].url) as first,
        connected(instances[1].url) as second,
        first.open(STREAM, query) as leading,
    ):
        await leading.chunks(10)
        following = await second.ask(STREAM, query)
        await leading.all()

    assert following.headers["x-cache"] == "coalesced"
    assert of_type(following.events, "chunk") == of_type(leading.events, "chunk")
    assert following.headers["x-stream-id"] == leading.stream_id


async def test_what_one_has_answered_all_can_answer(instances, simulator, redis_server):
    """From the second tier first, then from the instance's own memory."""
    query = question()
    async with connected(instances[0].url) as first, connected(instances[1].url) as second:
        asked = await first.ask(STREAM, query)
        redis_server.until("*1\r\n", "KEYS", "weir:cache:response:*")
        hits = [await second.ask(STREAM, query) for _ in range(2)]

    assert [hit.headers["x-cache"] for hit in hits] == ["l2", "l1"]
    assert {text(hit.events) for hit in hits} == {text(asked.events)}
    assert simulator.counters("openai")["calls"] == 1


@pytest.mark.parametrize(("path", "form"), [(STREAM, ""), (CHAT, "?format=openai")], ids=["native", "openai"])
async def test_a_stream_goes_on_at_another_instance_byte_for_byte(instances, simulator, path, form):
    """While it runs and afterwards, in both forms."""
    simulator.behave("openai", tokens=40, gap_s=0.02)
    async with connected(instances[0].url) as first, connected(instances[1].url) as second:
        async with first.open(path) as stream:
            await stream.until(lambda item: getattr(item, "last_event_id", "") == "8")
            seen = bytes(stream.raw)
            rejoin = {"Last-Event-ID": stream.events[-1].last_event_id}
            address = f"/v1/streams/{stream.stream_id}{form}"
            running = asyncio.create_task(second.send("GET", address, headers=rejoin))
            await stream.all()
            whole = bytes(stream.raw)
        async with connected(instances[2].url) as third:
            afterwards = await third.send("GET", address, headers=rejoin)
            again = await third.send("GET", address)

        assert seen + bytes((await running).raw) == whole
    assert seen + bytes(afterwards.raw) == whole
    assert bytes(again.raw) == whole
    assert simulator.counters("openai")["calls"] == 1


async def test_its_asker_can_stop_a_stream_from_anywhere(instances, simulator):
    """The provider's call is ended, and readers everywhere hear why."""
    simulator.behave("openai", fault="stall", at=3)
    query = question()
    async with (
        connected(instances[0].url) as first,
        connected(instances[1].url) as second,
        first.open(STREAM, query) as led,
        second.open(STREAM, query) as followed,
    ):
        await led.chunks(3)
        await followed.chunks(3)
        stopped = await second.send("DELETE", f"/v1/streams/{led.stream_id}")
        await simulator.until("openai.closed_by_client==1")
        ends = [(await stream.all()).events[-1] for stream in (led, followed)]

    assert stopped.status == 204
    assert [(end.type, end.json["code"]) for end in ends] == [("error", "cancelled")] * 2


async def test_nobody_else_can_read_or_stop_a_stream_that_is_unknown(instances):
    """Whichever instance is asked."""
    for instance, method in zip(instances, cycle(["GET", "DELETE"]), strict=False):
        async with connected(instance.url) as client:
            answer = await client.send(method, "/v1/streams/01ARZ3NDEKTSV4RRFFQ69G5FAV")
            assert (answer.status, answer.json()["code"]) == (404, "unknown_stream")


async def test_a_stream_of_another_scope_is_unknown_wherever_it_is_asked_for(simulator, redis_server):
    """While it runs and afterwards; the same question is asked anew for whoever is in another scope."""
    simulator.behave("openai", tokens=10, gap_s=0.02)
    query = question()
    with fleet(simulator, redis_server.url, redis_server.url, WEIR_CACHE_SCOPE="user") as [one, two]:
        async with connected(one.url) as asker, connected(two.url, "127.0.0.2") as stranger:
            async with asker.open(STREAM, query) as stream:
                path = f"/v1/streams/{stream.stream_id}"
                refused = [await stranger.send(method, path) for method in ("GET", "DELETE")]
                await stream.all()
            refused.append(await stranger.send("GET", path))
            own = await stranger.ask(STREAM, query)

    assert [(answer.status, answer.json()["code"]) for answer in refused] == [(404, "unknown_stream")] * 3
    assert own.headers["x-cache"] == "miss"
    assert text(own.events) == text(stream.events)
