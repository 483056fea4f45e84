"""What is sent to break the service in: it is refused, and costs others nothing."""

import asyncio
import json
import socket
from contextlib import suppress

import psutil
import pytest

from tests.app import metrics
from tests.app.asking import CHAT, STREAM, connected, text
from tests.app.refusals import check_refusal
from tests.app.wire import connection, exchange, head, response
from tests.serving import serving

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])
MIB = 1024 * 1024
BODY = json.dumps({"model": "no-such-model", "query": "x"}).encode()
LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
ALIVE = head("GET", "/health/live")
SMUGGLED = head("DELETE", "/v1/streams/01M84RXTPMTZ6R6MDDZY2A8T00")


def frame(kind, flags, stream, payload=b""):
    """One frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def ask(*headers, path=STREAM):
    return head("POST", path, "content-type: application/json", *headers)


async def all_responses(url, data):
    """The statuses of all responses until the service closes the connection, and whatever it has sent."""
    async with connection(url) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(10):
            raw = await reader.read(-1)
    return [int(part.split()[0]) for part in raw.split(b"HTTP/1.1 ")[1:]], raw


AMBIGUOUS = {
    "two lengths": ask(LENGTH, "content-length: 3") + BODY,
    "a list of lengths": ask(f"{LENGTH}, {len(BODY)}") + BODY,
    "a length with a sign": ask(f"content-length: +{len(BODY)}") + BODY,
    "a negative length": ask("content-length: -1") + BODY,
    "a length beyond any number": ask(f"content-length: {10**30}") + BODY,
    "the largest length": ask(f"content-length: {2**64 - 1}") + BODY,
    "a hexadecimal length": ask("content-length: 0x20") + BODY,
    "a blank before the colon": ask(f"content-length : {len(BODY)}") + BODY,
    "a folded header": ask("x-a: b\r\n c", LENGTH) + BODY,
    "a folded encoding": ask("transfer-encoding:\r\n chunked") + CHUNK,
    "an encoding that nobody knows": ask("transfer-encoding: xchunked") + CHUNK,
    "an encoding behind chunked": ask("transfer-encoding: chunked, identity") + CHUNK,
    "two encodings": ask(CHUNKED, "transfer-encoding: identity") + CHUNK,
    "identity": ask("transfer-encoding: identity", LENGTH) + BODY,
    "a control character in the encoding": ask("transfer-encoding: \x0bchunked") + CHUNK,
    "chunks in HTTP/1.0": ask(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNK,
    "a line break in the middle of a header": head("GET", "/health/live", "x-a: b\rx-c: d"),
    "a NUL in a header": head("GET", "/health/live", "x-a: b\0c"),
    "a carriage return for a line break": b"GET /health/live HTTP/1.1\rhost: x\r\n\r\n",
    "a request without a version": b"GET /health/live\r\n\r\n",
    "a negative chunk": ask(CHUNKED) + b"-5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk with 0x": ask(CHUNKED) + b"0x5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk beyond any number": ask(CHUNKED) + b"f" * 17 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk that is longer than it says": ask(CHUNKED) + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's extension with a bare line feed": ask(CHUNKED) + b"%x;a\n" % len(BODY) + CHUNK,
    "endless extensions of a chunk": ask(CHUNKED) + b"%x;" % len(BODY) + b"a" * 100_000 + b"\r\n" + BODY,
    "endless trailers": ask(CHUNKED) + CHUNK[:-2] + b"x: " + b"a" * 100_000 + b"\r\n\r\n",
    "an endless header": head("GET", "/health/live", "x-a: " + "a" * 70_000),
    "an endless address": head("GET", "/" + "a" * 70_000),
    "a thousand headers": head("GET", "/health/live", *(f"x-{number}: a" for number in range(1000))),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_two_servers_may_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(service, data):
    """A proxy in front may have taken what follows for the body: it must not be answered as a request."""
    statuses, raw = await all_responses(service.url, data + SMUGGLED + ALIVE)

    assert len(statuses) == 1, raw
    assert statuses[0] in {400, 414, 431, 499}
    assert b"unknown_model" not in raw


async def test_chunks_go_before_a_length_and_end_the_connection(service):
    """RFC 9112, section 6.1: what stands behind the last chunk is nobody's."""
    statuses, raw = await all_responses(service.url, ask(LENGTH, CHUNKED) + b"0\r\n\r\n" + SMUGGLED)

    assert statuses == [400], raw


UNUSUAL = {
    "the same length twice": ask(LENGTH, LENGTH) + BODY,
    "line feeds alone": ask(LENGTH).replace(b"\r\n", b"\n") + BODY,
    "a chunk's extension": ask(CHUNKED) + b"%x;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    "trailers": ask(CHUNKED) + CHUNK[:-2] + b"x-thread-id: other\r\nx-api-key: other\r\n\r\n",
    "an empty line before the request": b"\r\n" + ask(LENGTH) + BODY,
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
async def test_what_is_unusual_and_clear_is_read_as_everybody_reads_it(service, data):
    """RFC 9112, sections 2.2, 6.3 and 7.1: the body is the body, and the next request the next."""
    statuses, raw = await all_responses(service.url, data + head("GET", "/health/live", "connection: close"))

    assert statuses == [404, 200], raw
    assert b"unknown_model" in raw
    assert b"other" not in raw


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/v1/models", "/nothing"])
async def test_a_body_where_none_is_read_is_no_request(service, path):
    """Nobody looks at it, so nobody may answer it."""
    request = head("GET", path, f"content-length: {len(SMUGGLED)}") + SMUGGLED
    statuses, _ = await all_responses(service.url, request + head("GET", "/health/live", "connection: close"))

    assert statuses in ([200, 200], [404, 200])


@pytest.mark.parametrize(
    "value",
    ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\rx-evil: 1", "a\0b", "a\tb", 'a"}\n{"level":"error"', "a%0d%0ax-evil:1"],
)
async def test_a_thread_id_brings_no_header_and_no_line_into_anything(service, value):
    """It is echoed in the response and stands in the log."""
    statuses, raw = await all_responses(service.url, ask(f"x-thread-id: {value}", LENGTH, "connection: close") + BODY)

    assert len(statuses) == 1
    head_of_response = raw.partition(b"\r\n\r\n")[0].lower()
    assert b"evil" not in head_of_response
    assert all(json.loads(line)["level"] != "error" for line in service.log().splitlines())


async def slowly(url, first, piece=b""):
    """The response to a request that never comes whole: `first`, then the piece again and again."""
    async with connection(url) as (reader, writer):
        writer.write(first)
        answered = asyncio.create_task(response(reader))
        while not answered.done():
            writer.write(piece)
            await asyncio.wait([answered], timeout=0.02)
        rest = await reader.read(-1)
    return *answered.result(), rest


@BOTH
@pytest.mark.parametrize(
    ("headers", "first", "piece"),
    [
        ("content-length: 1000", b"", b""),
        ("content-length: 1000", b'{"model"', b""),
        ("content-length: 1000000", b"{", b" "),
        (CHUNKED, b"", b""),
        (CHUNKED, b"5\r\n{", b""),
        (CHUNKED, b"", b"1\r\n \r\n"),
    ],
)
async def test_a_body_that_does_not_come_is_not_waited_for(slow, path, headers, first, piece):
    """Whether nothing of it comes or always a little."""
    status, told, body, rest = await slowly(slow.url, ask(headers, path=path) + first, piece)

    error = json.loads(body)
    error = error["error"] if path == CHAT else error
    assert (status, error["code"]) == (408, "request_timeout")
    assert "0.3 s" in (error.get("detail") or error["message"])
    assert (told["connection"], rest) == ("close", b"")


@pytest.fixture(scope="module")
def slow(simulation):
    """A service with little patience."""
    with serving(simulation, WEIR_BODY_TIMEOUT_S="0.3", WEIR_HEADER_TIMEOUT_S="0.5") as running:
        yield running


async def test_a_thousand_slow_clients_keep_nobody_else_waiting(slow, simulator):
    """Half a body each: they have no slot, and end all by themselves."""
    async with connected(slow.url) as client:
        opened = [await asyncio.open_connection("127.0.0.1", client_port(slow.url)) for _ in range(1000)]
        for _, writer in opened:
            writer.write(ask("content-length: 1000") + b"{")
        answered = await client.ask(STREAM)
        assert answered.events[-1].type == "complete"
        assert {(await response(reader))[0] for reader, _ in opened} == {408}
        assert await metrics.total(client, "sse_active_connections") == 0
        for _, writer in opened:
            writer.transport.abort()


def client_port(url):
    return int(url.rpartition(":")[2])


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
HEADLESS = {
    "nothing": b"",
    "half headers": b"GET /health/live HTTP/1.1\r\nhost: we",
    "P of POST": b"P",
    "half of HTTP/2's preface": PREFACE[:8],
    "HTTP/2 without a request": PREFACE,
    "headers in HTTP/2 that do not end": PREFACE + frame(1, 0, 1, b"\x82"),
    "idle": ALIVE,
}


@pytest.mark.parametrize("first", HEADLESS.values(), ids=HEADLESS)
@pytest.mark.parametrize("piece", [b"", b"x"], ids=["silent", "a little at a time"])
async def test_a_connection_without_headers_is_closed(slow, first, piece):
    """Half a request's, those of the next request, and before anybody knows which HTTP it is."""
    async with connection(slow.url) as (reader, writer), asyncio.timeout(5):
        writer.write(first)
        if first == ALIVE:
            assert (await response(reader))[0] == 200
        closed = asyncio.create_task(reader.read(-1))
        while not closed.done():
            writer.write(piece)
            await asyncio.wait([closed], timeout=0.02)

    assert isinstance(closed.exception(), ConnectionError | None)


async def test_silent_connections_do_not_keep_probes_out(simulator):
    """Nor those of others: who has most of them loses its own when there is no place for others."""
    with serving(simulator, WEIR_MAX_CONNECTIONS="10", WEIR_HEADER_TIMEOUT_S="30") as service:
        silent = [silent_connection(client_port(service.url)) for _ in range(4400)]
        async with connected(service.url) as client:
            async with asyncio.timeout(10):
                alive = await client.send("GET", "/health/live")
                answered = await client.ask(STREAM)
        for each in silent:
            each.close()

    assert (alive.status, answered.status) == (200, 200)


def silent_connection(port):
    """A connection from another address on which nothing is sent, as far as the system has room for it."""
    opened = socket.socket()
    opened.setblocking(False)  # noqa: FBT003  # the library's signature
    opened.bind(("127.0.0.5", 0))
    with suppress(BlockingIOError):
        opened.connect(("127.0.0.1", port))
    return opened


async def test_bodies_that_never_end_take_bounded_memory(simulator):
    """One address's take a quarter of what there is for them, and others' get through."""
    with serving(simulator) as service:
        worker = psutil.Process(service.process.pid).children()[0]
        async with connected(service.url) as client:
            await client.ask(STREAM)
            before = worker.memory_info().rss
            opened = [await unfinished(service.url) for _ in range(300)]
            answered = await client.ask(STREAM)
            grown = worker.memory_info().rss - before
            await metrics.until(client, "sse_requests_total", lambda refused: refused >= 280, status="429")
        for writer in opened:
            writer.transport.abort()

    assert answered.events[-1].type == "complete"
    assert grown <= 64 * MIB


async def unfinished(url):
    """A client of another address that has sent nearly all of a large body."""
    _, writer = await asyncio.open_connection("127.0.0.1", client_port(url), local_addr=("127.0.0.6", 0))
    writer.write(ask(f"content-length: {MIB}") + b" " * (MIB - 1000))
    with suppress(ConnectionError):
        await writer.drain()
    return writer


async def test_a_hundred_megabytes_are_not_read(simulator):
    """Announced, they are refused before the first; unannounced, at the limit. Nothing of it stays in memory."""
    with serving(simulator) as service:
        worker = psutil.Process(service.process.pid).children()[0]
        await pour(service.url)
        before = worker.memory_info().rss
        for _ in range(20):
            status, headers, _ = await exchange(service.url, ask(f"content-length: {100 * MIB}"))
            assert (status, headers["connection"]) == (413, "close")
            assert await pour(service.url) <= 20 * MIB
        grown = worker.memory_info().rss - before
        async with connected(service.url) as client:
            refused = await metrics.total(client, "sse_requests_total", status="413")

    assert refused == 41
    assert grown <= 16 * MIB


async def pour(url):
    """How much of a hundred megabytes in chunks could be sent until the service closed the connection."""
    sent = 0
    async with connection(url) as (_, writer):
        writer.write(ask(CHUNKED))
        try:
            while sent < 100 * MIB:
                writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            pass
    return sent


async def test_a_compressed_body_is_not_unpacked(client):
    """A kilobyte of it could be a gigabyte."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    refused = await client.send("POST", STREAM, data=b"\x1f\x8b\x08\x00" + bytes(100), headers=headers)
    check_refusal(STREAM, refused)

    assert (refused.status, refused.json()["code"]) == (400, "invalid_request")


@BOTH
async def test_the_service_is_as_before(client, path):
    """After all of this."""
    answered = await client.ask(path)

    assert (answered.status, text(answered.events) != "") == (200, True)


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_an_answer_may_last_longer_than_a_connection_may_be_idle(simulator, path):
    """On a connection that is asked on again and again, too."""
    simulator.behave("openai", tokens=20, gap_s=0.25)
    with serving(simulator, WEIR_HEADER_TIMEOUT_S="1") as service:
        async with connected(service.url) as client:
            answers = [await client.ask(path, f"long {number}?") for number in range(2)]

    assert all(text(answer.events).count(" ") == 19 for answer in answers)
