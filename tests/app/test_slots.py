"""No more streams than the process can carry: who waits, who is refused, and who is served all the same."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from tests.app import metrics
from tests.app.asking import CHAT, STREAM, body_for, connected, text
from tests.app.refusals import check_refusal, told
from tests.app.wire import connection, head, response
from tests.serving import serving

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])
ENDLESS = {"gap_s": 0.05, "tokens": 100_000}


async def live_streams(stack, client, count):
    """So many streams that have begun and do not end by themselves."""
    client.simulator.behave("openai", **ENDLESS)
    streams = [await stack.enter_async_context(client.open(STREAM)) for _ in range(count)]
    for stream in streams:
        await stream.chunks(1)
    return streams


@pytest.fixture
def full(simulator):
    """A client of a service of its own, which is as given and has as many live streams as it may have."""

    async def start(stack, count=1, **settings):
        limits = {"WEIR_MAX_CONNECTIONS": str(count), "WEIR_GRACE_S": "0"}
        service = stack.enter_context(serving(simulator, **limits | settings))
        client = await stack.enter_async_context(connected(service.url))
        client.service, client.simulator = service, simulator
        return client, await live_streams(stack, client, count)

    return start


async def test_at_full_load_probes_and_metrics_answer_and_all_else_is_told(full):
    """What says that the instance is busy must not be refused for that."""
    async with AsyncExitStack() as stack:
        client, streams = await full(stack, count=3)
        for path in (STREAM, CHAT):
            refused = await client.ask(path)
            check_refusal(path, refused)
            assert (refused.status, told(path, refused)[0]) == (503, "at_capacity")
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        joined = await client.send("GET", f"/v1/streams/{streams[0].stream_id}")
        assert (joined.status, joined.json()["code"]) == (503, "at_capacity")
        for path in ("/health", "/health/live", "/health/ready", "/metrics", "/v1/models"):
            assert (await client.send("GET", path)).status == 200
        assert await metrics.total(client, "sse_active_connections") == 3
        assert await metrics.total(client, "sse_connections_rejected_total", reason="at_capacity") == 3
        stopped = await client.send("DELETE", f"/v1/streams/{streams[0].stream_id}")
        assert stopped.status == 204

        await streams[0].event("error")
        await metrics.until(client, "sse_active_connections", lambda live: live == 2)
        for stream in streams[1:]:
            await stream.chunks(3)


@BOTH
async def test_who_waits_is_served_when_a_stream_ends(full, path):
    """As if it had asked just then, but for the time."""
    async with AsyncExitStack() as stack:
        client, (stream,) = await full(stack, WEIR_QUEUE_SIZE="2", WEIR_QUEUE_TIMEOUT_S="60")
        client.simulator.behave("openai", tokens=3)
        asked = asyncio.create_task(client.ask(path))
        await metrics.until(client, "sse_waiting_connections", lambda waiting: waiting == 1)
        stream.response.close()

        answered = await asked
        assert answered.status == 200
        assert text(answered.events)
        await metrics.until(client, "sse_active_connections", lambda live: live == 0)
        assert await metrics.total(client, "sse_waiting_connections") == 0


@pytest.mark.parametrize(("path", "fields"), [(STREAM, {}), (CHAT, {}), (CHAT, {"stream": False})])
async def test_who_leaves_while_waiting_gives_its_place_up_at_once(full, path, fields):
    """The next one gets it; the provider is never asked."""
    async with AsyncExitStack() as stack:
        client, _ = await full(stack, WEIR_QUEUE_SIZE="1", WEIR_QUEUE_TIMEOUT_S="60")
        body = json.dumps(body_for(path, **fields)).encode()
        request = head("POST", path, "content-type: application/json", f"content-length: {len(body)}") + body
        for _ in range(2):
            async with connection(client.url) as (_, writer):
                writer.write(request)
                await metrics.until(client, "sse_waiting_connections", lambda waiting: waiting == 1)
            await metrics.until(client, "sse_waiting_connections", lambda waiting: waiting == 0)

        assert client.simulator.counters("openai")["calls"] == 1
        assert await metrics.total(client, "sse_active_connections") == 1
        await metrics.until(client, "sse_requests_total", lambda count: count == 2, status="499")


async def test_who_joins_waits_too(full):
    """A stream that is read again takes a slot."""
    async with AsyncExitStack() as stack:
        client, (stream,) = await full(stack, WEIR_QUEUE_SIZE="1", WEIR_QUEUE_TIMEOUT_S="60", WEIR_GRACE_S="60")
        joined = await stack.enter_async_context(connected(client.url))
        asked = asyncio.create_task(joined.send("GET", f"/v1/streams/{stream.stream_id}"))
        await metrics.until(client, "sse_waiting_connections", lambda waiting: waiting == 1)
        await client.send("DELETE", f"/v1/streams/{stream.stream_id}")
        await stream.all()

        assert (await asked).events[-1].type == "error"


@BOTH
async def test_who_has_waited_too_long_is_told_so(full, path):
    """And the queue is as long as it may be, for others than those that fill it."""
    async with AsyncExitStack() as stack:
        client, _ = await full(stack, WEIR_QUEUE_SIZE="1", WEIR_QUEUE_TIMEOUT_S="0.3")
        refused = await client.ask(path)

        assert (refused.status, told(path, refused)[0]) == (503, "at_capacity")
        assert "none has ended in 0.3 s" in told(path, refused)[2]
        assert int(refused.headers["retry-after"]) >= 1


async def test_one_address_with_a_thousand_connections_takes_its_share_and_no_more(simulator):
    """Everybody else is served; it is told, each time, and its streams go on."""
    simulator.behave("openai", **ENDLESS)
    statuses, are_all_told = [], asyncio.Event()

    async def ask(client):
        async with client.open(STREAM) as stream:
            statuses.append((stream.status, stream.headers.get("retry-after")))
            if len(statuses) == 1000:
                are_all_told.set()
            await asyncio.wait([all_told])

    with serving(simulator, WEIR_MAX_CONNECTIONS_PER_USER="3", WEIR_GRACE_S="0") as service:
        async with connected(service.url, "127.0.0.2") as many, connected(service.url) as other:
            all_told = asyncio.create_task(are_all_told.wait())
            tasks = [asyncio.create_task(ask(many)) for _ in range(1000)]
            async with other.open(STREAM) as stream:
                await stream.chunks(3)
                await all_told
                await stream.chunks(len(stream.events) + 3)
            await asyncio.wait(tasks)

    assert sorted(statuses, key=str) == [(200, None)] * 3 + [(429, "1")] * 997


async def logged(client, *words):
    """Return as soon as the log says all of them: each look is a request, and the service goes on meanwhile."""
    for _ in range(2000):
        if all(word in client.service.log() for word in words):
            return
        await client.send("GET", "/health/live")
    raise AssertionError(client.service.log())


async def test_the_log_tells_of_every_stage_of_a_slot(full):
    """At the level debug, of requests that are tracked."""
    async with AsyncExitStack() as stack:
        client, (stream,) = await full(stack, WEIR_LOG_LEVEL="debug", WEIR_MAX_CONNECTIONS_PER_USER="5")
        await client.ask(STREAM)
        stream.response.close()
        stages = [f'"stage":"CP.{number}"' for number in range(1, 6)]
        await logged(client, *stages, '"stage":"CP.2","error_type":"at_capacity"')


async def test_a_connection_on_which_somebody_is_refused_is_closed(full):
    """It would keep others out; one that is served is kept open."""
    async with AsyncExitStack() as stack:
        client, _ = await full(stack)
        body = json.dumps(body_for(STREAM)).encode()
        async with connection(client.url) as (reader, writer):
            writer.write(head("GET", "/health/live"))
            assert (await response(reader))[0] == 200
            writer.write(head("POST", STREAM, "content-type: application/json", f"content-length: {len(body)}") + body)
            status, headers, _ = await response(reader)

            assert (status, headers["connection"]) == (503, "close")
            assert await reader.read() == b""
