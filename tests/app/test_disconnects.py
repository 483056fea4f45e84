"""Who leaves costs nothing more: its slot is free, and the provider's call ends when nobody reads it."""

import asyncio
import json

import pytest

from tests.app import metrics
from tests.app.asking import CHAT, STREAM, body_for, connected, question
from tests.app.wire import connection, head
from tests.serving import serving

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])


async def leave_before_answer(client, path, **fields):
    """Ask, and close the connection once the provider was asked and before it answers."""
    client.simulator.behave("openai", fault="silence_headers")
    body = json.dumps(body_for(path, **fields)).encode()
    async with connection(client.url) as (_, writer):
        writer.write(head("POST", path, "content-type: application/json", f"content-length: {len(body)}") + body)
        await client.simulator.until("openai.live==1")


@pytest.mark.parametrize(("path", "fields"), [(STREAM, {}), (CHAT, {}), (CHAT, {"stream": False})])
async def test_leaving_before_the_first_token_ends_the_providers_call(client, path, fields):
    """In every form, also where the headers were not sent yet."""
    await leave_before_answer(client, path, **fields)

    await client.simulator.until("openai.closed_by_client==1")
    await metrics.until(client, "sse_active_connections", lambda live: live == 0)


@BOTH
async def test_leaving_in_the_middle_ends_the_providers_call(client, path):
    """After the grace period."""
    client.simulator.behave("openai", fault="stall", at=3)
    async with client.open(path) as stream:
        await stream.until(lambda _: True)

    await client.simulator.until("openai.closed_by_client==1")
    await metrics.until(client, "sse_active_connections", lambda live: live == 0)


async def test_what_is_under_way_can_be_seen_and_so_can_that_nothing_is(client):
    """An operator sees whether calls or tasks stay behind."""
    await metrics.until(client, "sse_provider_calls", lambda calls: calls == 0)
    tasks = await metrics.total(client, "sse_tasks")
    client.simulator.behave("openai", fault="stall", at=3)
    async with client.open(STREAM) as stream:
        await stream.chunks(1)
        assert await metrics.total(client, "sse_provider_calls", provider="openai") == 1
        assert await metrics.total(client, "sse_tasks") > tasks

    await client.simulator.until("openai.closed_by_client==1")
    await metrics.until(client, "sse_provider_calls", lambda calls: calls == 0)
    await metrics.until(client, "sse_tasks", lambda now: now <= tasks)


async def test_a_slot_is_free_at_once_and_not_after_the_grace_period(simulator):
    """The next client does not wait for the last one's provider."""
    simulator.behave("openai", gap_s=0.01, tokens=2000)
    with serving(simulator, WEIR_MAX_CONNECTIONS_PER_USER="1", WEIR_GRACE_S="3600") as service:
        async with connected(service.url) as client:
            async with client.open(STREAM) as stream:
                await stream.chunks(1)
            await metrics.until(client, "sse_active_connections", lambda live: live == 0)
            assert simulator.counters("openai")["live"] == 1
            async with client.open(STREAM) as stream:
                assert stream.status == 200


async def test_while_anybody_reads_nothing_ends(client):
    """The one who asked first has no privilege."""
    client.simulator.behave("openai", gap_s=0.04)
    query = question()
    async with client.open(STREAM, query) as first:
        await first.chunks(1)
        follower = asyncio.create_task(client.ask(STREAM, query))
        await metrics.until(client, "sse_active_connections", lambda live: live == 2)
    whole = await follower

    assert whole.events[-1].type == "complete"
    assert client.simulator.counters("openai")["closed_by_client"] == 0
    assert client.simulator.counters("openai")["finished"] == 1


async def test_who_comes_back_within_the_grace_period_finds_the_stream_alive(simulator):
    """A dropped connection is no reason to pay again."""
    simulator.behave("openai", gap_s=0.02)
    with serving(simulator, WEIR_GRACE_S="30") as service:
        async with connected(service.url) as client:
            async with client.open(STREAM) as stream:
                await stream.chunks(2)
            again = await client.send("GET", f"/v1/streams/{stream.stream_id}")

    assert again.events[-1].type == "complete"
    assert simulator.counters("openai")["calls"] == 1


async def test_a_client_that_does_not_read_holds_up_nobody(client):
    """Nor does it stop the answer from being stored."""
    client.simulator.behave("openai", tokens=20_000, ttft_s=0, gap_s=0)
    query = question()
    body = json.dumps(body_for(STREAM, query)).encode()
    async with connection(client.url) as (_, writer):
        writer.write(head("POST", STREAM, "content-type: application/json", f"content-length: {len(body)}") + body)
        await client.simulator.until("openai.finished==1", timeout_s=20)
        other = await client.ask(STREAM, query)

    assert other.events[-1].json["chunk_count"] >= 20_000
