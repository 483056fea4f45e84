"""Nobody pays twice for the same answer."""

import asyncio
from itertools import chain

import pytest

from tests.app.asking import CHAT, STREAM, body_for, connected, of_type, question, statuses, text
from tests.serving import serving

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])


def calls(client):
    return client.simulator.counters("openai")["calls"]


async def test_two_hundred_who_ask_at_once_cause_one_call(client):
    """And get the same answer, each as a stream that is whole."""
    client.simulator.behave("openai", ttft_s=0.5)
    query = question()
    asked = chain.from_iterable((client.ask(STREAM, query), client.ask(CHAT, query)) for _ in range(100))
    streams = await asyncio.gather(*asked)

    assert calls(client) == 1
    assert {text(stream.events) for stream in streams} == {text(streams[0].events)}
    assert sorted({stream.headers["x-cache"] for stream in streams}) == ["coalesced", "miss"]
    assert [stream.headers["x-cache"] for stream in streams].count("miss") == 1
    assert {
        stream.events[-1].type if stream.events[0].type == "status" else stream.events[-1].data for stream in streams
    } == {
        "complete",
        "[DONE]",
    }


async def test_a_follower_is_told_so_and_numbered_like_the_leader(client):
    """The ids are the log's, whoever reads it."""
    client.simulator.behave("openai", ttft_s=0.2)
    query = question()
    async with client.open(STREAM, query) as leader:
        await leader.event("status")
        follower = await client.ask(STREAM, query)
        await leader.all()

    assert statuses(follower.events) == ["validated", "following"]
    assert [event.number for event in follower.events] == list(range(len(follower.events)))
    assert of_type(follower.events, "chunk") == of_type(leader.events, "chunk")
    assert follower.events[-1].json["cache"] == "coalesced"
    assert follower.events[-1].json["cost_usd"] == 0
    assert follower.events[-1].json["saved_usd"] > 0
    assert follower.stream_id == leader.stream_id


async def test_who_joins_late_gets_the_beginning_too(client):
    """The log has it."""
    client.simulator.behave("openai", gap_s=0.03)
    query = question()
    async with client.open(STREAM, query) as leader:
        await leader.chunks(5)
        follower = await client.ask(STREAM, query)
        await leader.all()

    assert text(follower.events) == text(leader.events)
    assert follower.headers["x-cache"] == "coalesced"


@BOTH
async def test_the_order_of_properties_makes_no_difference(client, path):
    """1 and 1.0 are the same number, too."""
    body = body_for(path, temperature=1, top_p=0.5)
    await client.send("POST", path, json=body)
    again = await client.send("POST", path, json=dict(reversed((body | {"temperature": 1.0}).items())))

    assert again.headers["x-cache"] == "l1"


@pytest.mark.parametrize(
    "fields", [{"temperature": 0.5}, {"seed": 1}, {"stop": "x"}, {"max_tokens": 5}, {"model": "gpt-4o"}]
)
@BOTH
async def test_what_can_change_the_answer_makes_another_question(client, path, fields):
    """A wrong hit is worse than a miss."""
    query = question()
    await client.ask(path, query)

    assert (await client.ask(path, query, **fields)).headers["x-cache"] == "miss"


@BOTH
async def test_no_cache_asks_again_and_its_answer_is_stored(client, path):
    """RFC 9111, section 5.2.1.4."""
    query = question()
    await client.ask(path, query)
    client.simulator.behave("openai", text="another answer")
    asked = await client.ask(path, query, {"Cache-Control": "no-cache"})
    later = await client.ask(path, query)

    assert (asked.headers["x-cache"], later.headers["x-cache"], calls(client)) == ("bypass", "l1", 2)
    assert text(asked.events) == text(later.events) == "another answer"


@BOTH
async def test_no_store_leaves_nothing_behind(client, path):
    """RFC 9111, section 5.2.1.5."""
    for headers in ({"Cache-Control": "no-store"}, [("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")]):
        query = question()
        await client.ask(path, query, headers)

        assert (await client.ask(path, query)).headers["x-cache"] == "miss"


@BOTH
async def test_only_if_cached_never_asks(client, path):
    """RFC 9111, section 5.2.1.7: 504 when there is nothing."""
    query = question()
    missing = await client.ask(path, query, {"Cache-Control": "only-if-cached"})
    await client.ask(path, query)
    stored = await client.ask(path, query, {"Cache-Control": "only-if-cached, max-age=60"})

    code = missing.json()["error"]["code"] if path == CHAT else missing.json()["code"]
    assert (missing.status, code) == (504, "not_cached")
    assert (stored.status, stored.headers["x-cache"], calls(client)) == (200, "l1", 1)


@BOTH
async def test_max_age_wants_an_answer_that_is_young_enough(client, path):
    """0 is younger than any."""
    query = question()
    await client.ask(path, query)
    old_enough = await client.ask(path, query, {"Cache-Control": "max-age=3600"})
    too_old = await client.ask(path, query, {"Cache-Control": "max-age=0"})

    assert (old_enough.headers["x-cache"], too_old.headers["x-cache"]) == ("l1", "miss")


async def test_one_caller_may_have_so_many_streams_and_no_more(simulator):
    """The next is told when to come back; a slot is free again as soon as its client is gone."""
    simulator.behave("openai", fault="stall", at=1)
    with serving(simulator, WEIR_MAX_CONNECTIONS_PER_USER="2", WEIR_GRACE_S="0") as service:
        async with connected(service.url) as client:
            async with client.open(STREAM) as first, client.open(STREAM) as second:
                await first.chunks(1)
                await second.chunks(1)
                native, openai = await client.ask(STREAM), await client.ask(CHAT)
            await simulator.until("openai.closed_by_client>=1")
            await simulator.until("openai.live==0")
            simulator.behave("openai")
            after = await client.ask(STREAM)

    assert (native.status, native.json()["code"]) == (429, "too_many_connections")
    assert (openai.status, openai.json()["error"]["code"]) == (429, "too_many_connections")
    assert int(native.headers["retry-after"]) >= 1
    assert after.status == 200


async def test_the_process_carries_so_many_streams_and_no_more(simulator):
    """503, and when to come back."""
    simulator.behave("openai", fault="stall", at=1)
    with serving(simulator, WEIR_MAX_CONNECTIONS="1", WEIR_GRACE_S="0") as service:
        async with connected(service.url) as client, client.open(STREAM) as first:
            await first.chunks(1)
            over = await client.ask(STREAM)
            live = await client.send("GET", "/health/live")

    assert (over.status, over.json()["code"]) == (503, "at_capacity")
    assert int(over.headers["retry-after"]) >= 1
    assert live.status == 200
