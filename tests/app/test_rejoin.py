"""No stream is lost: whoever comes back gets the rest, byte for byte."""

import asyncio

import pytest

from tests.app import metrics
from tests.app.asking import CHAT, STREAM, of_type, question, statuses

pytestmark = pytest.mark.anyio
FORMS = pytest.mark.parametrize(("path", "form"), [(STREAM, ""), (CHAT, "format=openai")], ids=["native", "openai"])


def rest_after(raw, number):
    """The bytes behind the event of that number."""
    events = bytes(raw).split(b"\n\n")
    position = next(at for at, event in enumerate(events) if b"id: %d\n" % number in event + b"\n")
    return b"\n\n".join(events[position + 1 :])


async def rejoin(client, stream, number=None, *, form="", by="header", thread_id=None):
    """The stream again, as its own asker, after the event `number`."""
    query = [form] if form else []
    headers = {"X-Thread-ID": thread_id} if thread_id else {}
    if number is not None and by == "header":
        headers["Last-Event-ID"] = str(number)
    elif number is not None:
        query.append(f"last_event_id={number}")
    return await client.send("GET", f"/v1/streams/{stream.stream_id}?{'&'.join(query)}", headers=headers)


@FORMS
@pytest.mark.parametrize("by", ["header", "query"])
async def test_the_rest_is_the_same_bytes_from_every_position(client, path, form, by):
    """Whatever was seen last."""
    client.simulator.behave("openai", tokens=8)
    stream = await client.ask(path)
    numbers = [event.number for event in stream.events][:-1]
    rejoined = await asyncio.gather(*(rejoin(client, stream, number, form=form, by=by) for number in numbers))

    for number, again in zip(numbers, rejoined, strict=True):
        assert again.status == 200
        assert bytes(again.raw) == rest_after(stream.raw, number)


@FORMS
async def test_without_a_position_it_is_the_whole_stream(client, path, form):
    """For a second window, or a client that has lost everything."""
    stream = await client.ask(path)

    assert (await rejoin(client, stream, form=form)).raw == stream.raw


@FORMS
async def test_a_stream_under_way_goes_on_for_who_comes_back(client, path, form):
    """The first connection is cut in the middle; nothing is asked again."""
    client.simulator.behave("openai", gap_s=0.02)
    async with client.open(path) as first:
        await first.until(lambda item: getattr(item, "last_event_id", "") == "6")
        seen, number = bytes(first.raw), first.events[-1].number
    again = await rejoin(client, first, number, form=form)
    whole = await rejoin(client, first, form=form)

    assert again.status == 200
    assert seen + bytes(again.raw) == bytes(whole.raw)
    assert client.simulator.counters("openai")["calls"] == 1


async def test_usage_is_asked_for_in_the_query(client):
    """As `stream_options` would."""
    stream = await client.ask(CHAT, stream_options={"include_usage": True})
    again = await rejoin(client, stream, form="format=openai&include_usage=true")

    assert again.raw == stream.raw


@FORMS
@pytest.mark.parametrize("seen", ["03", "0" * 30 + "3", "05000"])
async def test_who_was_told_by_an_instance_that_went_on_by_itself_is_told_that_nothing_fits(client, path, form, seen):
    """One error, and what a client can do; the zeros say that it was told there."""
    stream = await client.ask(path)
    again = await rejoin(client, stream, seen, form=form)

    assert again.status == 200
    [error] = again.events
    told = error.json["error"] if form else error.json
    assert (told["code"], error.number) == ("stream_interrupted", int(seen) + 1)
    once_more = await rejoin(client, stream, error.last_event_id, form=form)
    assert [event.number for event in once_more.events] == [int(seen) + 2]


@FORMS
async def test_behind_the_end_there_is_nothing_more(client, path, form):
    """204 is what makes an EventSource stop."""
    stream = await client.ask(path)
    again = await rejoin(client, stream, stream.events[-1].number, form=form)

    assert (again.status, bytes(again.raw)) == (204, b"")
    assert again.headers["x-stream-id"] == stream.stream_id
    assert again.headers["x-thread-id"] == stream.headers["x-thread-id"]


async def test_the_header_goes_before_the_query(client):
    """EventSource keeps its first address, and sends what it saw last in the header."""
    stream = await client.ask(STREAM)
    path = f"/v1/streams/{stream.stream_id}?last_event_id=1"
    again = await client.send("GET", path, headers={"Last-Event-ID": "5"})

    assert again.events[0].number == 6


async def test_somebody_else_who_joins_is_told_as_a_follower(client):
    """Under the thread id of its own."""
    stream = await client.ask(STREAM)
    joined = await rejoin(client, stream, thread_id="another-window")

    assert statuses(joined.events) == ["validated", "following"]
    assert joined.headers["x-thread-id"] == joined.events[-1].json["thread_id"] == "another-window"
    assert of_type(joined.events, "chunk") == of_type(stream.events, "chunk")


async def test_a_failed_stream_can_be_joined_and_says_so_again(client):
    """Who was away when it failed must hear it too."""
    client.simulator.behave("openai", fault="cut", at=3)
    for provider in ("deepseek", "gemini"):
        client.simulator.behave(provider, fault="500")
    stream = await client.ask(STREAM)

    assert stream.events[-1].type == "error"
    assert (await rejoin(client, stream, 3)).events[-1] == stream.events[-1]


async def test_a_hit_has_the_id_of_the_stream_that_was_stored(client):
    """So a hit that is cut off can be rejoined as well."""
    query = question()
    await client.ask(STREAM, query)
    hit = await client.ask(STREAM, query)
    again = await rejoin(client, hit, 4)

    assert again.status == 200
    assert of_type(again.events, "chunk") == of_type(hit.events, "chunk")[-len(of_type(again.events, "chunk")) :]


async def test_the_asker_can_stop_a_stream_for_everybody(client):
    """The provider's call ends, and every reader hears why."""
    client.simulator.behave("openai", fault="stall", at=3)
    query = question()
    async with (
        client.open(STREAM, query) as first,
        client.open(STREAM, query) as second,
        client.open(CHAT, query) as third,
    ):
        for stream in (first, second):
            await stream.chunks(3)
        stopped = await client.send("DELETE", f"/v1/streams/{first.stream_id}")
        for stream in (first, second, third):
            await stream.all()
        await client.simulator.until("openai.closed_by_client==1")
    again = await client.send("DELETE", f"/v1/streams/{first.stream_id}")

    assert (stopped.status, again.status) == (204, 204)
    for stream in (first, second):
        assert (stream.events[-1].type, stream.events[-1].json["code"]) == ("error", "cancelled")
    assert third.events[-1].json["error"]["code"] == "cancelled"
    assert b"[DONE]" not in third.raw


async def test_who_waits_for_a_whole_answer_is_told_that_it_was_stopped(client):
    """499, as there is nothing else to say."""
    client.simulator.behave("openai", fault="stall", at=3)
    query = question()
    async with client.open(STREAM, query) as stream:
        await stream.chunks(3)
        before = await metrics.total(client, "sse_coalesced_total")
        waiting = asyncio.create_task(client.ask(CHAT, query, stream=False))
        await metrics.until(client, "sse_coalesced_total", lambda value: value > before)
        await client.send("DELETE", f"/v1/streams/{stream.stream_id}")
        whole = await waiting

    assert (whole.status, whole.json()["error"]["code"]) == (499, "cancelled")


async def test_a_stopped_answer_is_not_stored(client):
    """The next one who asks gets a whole one."""
    client.simulator.behave("openai", fault="stall", at=3, times=1)
    query = question()
    async with client.open(STREAM, query) as stream:
        await stream.chunks(3)
        await client.send("DELETE", f"/v1/streams/{stream.stream_id}")
        await stream.all()

    assert (await client.ask(STREAM, query)).headers["x-cache"] == "miss"
