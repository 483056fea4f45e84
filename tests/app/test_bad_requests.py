"""Whatever address, method or header comes in, the answer says what is wrong and what would be right."""

import json

import pytest

from tests.app.asking import CHAT, MODEL, STREAM, body_for
from tests.app.refusals import refused, told
from tests.app.wire import connection, exchange, head, response

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])


@BOTH
@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""]
)
async def test_another_media_type_is_refused(client, path, media_type):
    """A form that a browser sends from anywhere must not be taken for JSON."""
    response = await refused(client, path, body_for(path), {"content-type": media_type})
    code, field, reason = told(path, response)

    assert (response.status, code, field) == (400, "invalid_request", "Content-Type")
    assert "application/json" in reason


@BOTH
@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;"])
async def test_json_is_json_however_it_is_spelt(client, path, media_type):
    """Media types have parameters and no case (RFC 9110, section 8.3.1)."""
    response = await client.send(
        "POST", path, data=json.dumps(body_for(path)).encode(), headers={"content-type": media_type}
    )

    assert response.status == 200


@BOTH
async def test_an_unknown_model_is_told_with_those_that_are_known(client, path):
    """The list is what would be right."""
    response = await refused(client, path, body_for(path, model="gpt-17"))
    code, _, reason = told(path, response)

    assert (response.status, code) == (404, "unknown_model")
    assert "gpt-17" in reason
    assert MODEL in reason


@BOTH
@pytest.mark.parametrize("thread_id", ["a b", "a/b", "ä", "a" * 129, "", "a;b", "a,b"])
async def test_a_thread_id_that_cannot_be_one_is_refused_under_another(client, path, thread_id):
    """What is echoed in headers and logs has no room for surprises."""
    response = await refused(client, path, body_for(path), {"X-Thread-ID": thread_id})
    code, field, reason = told(path, response)

    assert (response.status, code, field) == (400, "invalid_request", "X-Thread-ID")
    assert "1 to 128" in reason
    assert response.headers["x-thread-id"] != thread_id


@BOTH
@pytest.mark.parametrize("value", ["max-age", "max-age=", "max-age=x", "max-age=-1", "max-age=1.5", "min-fresh=x"])
async def test_cache_control_without_a_number_is_refused(client, path, value):
    """Guessing would serve what the client did not want."""
    response = await refused(client, path, body_for(path), {"Cache-Control": value})
    code, field, reason = told(path, response)

    assert (response.status, code, field) == (400, "invalid_request", "Cache-Control")
    assert "whole number" in reason


@BOTH
async def test_the_path_is_all_that_is_read_of_the_address(client, path):
    """A query string on a POST changes nothing."""
    response = await client.send("POST", f"{path}?stream=false&x=%00&y", json=body_for(path))

    assert response.status == 200


def problem(path, raw):
    """Code and text of a refusal in either form."""
    body = json.loads(raw)
    error = body["error"] if path.startswith((CHAT, "/v1/models")) else body
    return error["code"], error.get("detail") or error["message"]


@BOTH
async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(service, path):
    """Nothing of it has to come for the answer."""
    request = head("POST", path, "content-type: application/json", "content-length: 1048577")
    status, headers, body = await exchange(service.url, request)

    assert (status, problem(path, body)[0]) == (413, "request_too_large")
    assert "1048576" in problem(path, body)[1]
    assert headers["x-thread-id"]


@BOTH
async def test_a_body_without_length_is_refused_as_soon_as_it_is_too_large(service, path):
    """It has no end; the answer comes all the same."""
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    request = head("POST", path, "content-type: application/json", "transfer-encoding: chunked")
    status, _, body = await exchange(service.url, request + chunk * 17)

    assert (status, problem(path, body)[0]) == (413, "request_too_large")


@BOTH
async def test_a_body_of_exactly_the_limit_is_read(client, path):
    """The limit itself is allowed."""
    body = json.dumps(body_for(path)).encode()
    response = await client.send("POST", path, data=body.ljust(1048576), headers={"content-type": "application/json"})

    assert response.status == 200


METHODS = {
    STREAM: {"POST"},
    CHAT: {"POST"},
    "/v1/models": {"GET"},
    "/v1/streams/01M84RXTPMTZ6R6MDDZY2A8T00": {"GET", "DELETE"},
    "/health": {"GET"},
    "/health/live": {"GET"},
    "/health/ready": {"GET"},
    "/metrics": {"GET"},
    "/schema/openapi.json": {"GET"},
}


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST", "TRACE", "BREW"])
async def test_a_method_that_an_address_does_not_take_is_answered_with_those_it_takes(service, path, method):
    """RFC 9110, section 15.5.6: a 405 has Allow."""
    if method in METHODS[path]:
        return
    status, headers, body = await exchange(service.url, head(method, path, "content-length: 0"))

    assert (status, problem(path, body)[0]) == (405, "method_not_allowed")
    assert METHODS[path] <= set(headers["allow"].split(", "))
    assert headers["x-thread-id"]


@pytest.mark.parametrize("path", METHODS)
async def test_options_says_what_an_address_takes(service, path):
    """Without a body, and without an error."""
    status, headers, body = await exchange(service.url, head("OPTIONS", path))

    assert (status, body) == (204, b"")
    assert METHODS[path] <= set(headers["allow"].split(", "))


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/v1/models"])
async def test_head_is_get_without_the_body(service, path):
    """RFC 9110, section 9.3.2: probes use it. The next response on the connection must not begin with a body."""
    async with connection(service.url) as (reader, writer):
        writer.write(head("HEAD", path))
        status_line, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        writer.write(head("GET", "/health/live"))
        status, _, body = await response(reader)

    assert b" 200 " in status_line
    assert (status, json.loads(body)) == (200, {"status": "live"})


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/stream/x",
        "/../../etc/passwd",
        "/v1/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/streams/../models/..",
        "//etc/passwd",
        "/v1/streams/a/b",
        "/v1/streams/",
        "/%00",
        "/static/..%5c..%5cx",
        "/schema/redoc",
        "/\u00e4".encode().decode("latin-1"),
    ],
)
async def test_there_is_nothing_at_any_other_address(service, path):
    """No path reaches a file, whatever it looks like."""
    status, headers, body = await exchange(service.url, head("GET", path))

    assert (status, json.loads(body)["code"]) == (404, "not_found")
    assert headers["content-type"] == "application/problem+json"
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "stream_id",
    ["01M84RXTPMTZ6R6MDDZY2A8T00", "x", "01m84rxtpmtz6r6mddzy2a8t00", "..", "%00", "%0a", "%F0%9F", "a" * 2000],
)
async def test_a_stream_that_is_not_there_is_unknown_whatever_its_id_looks_like(service, method, stream_id):
    """An id tells nothing about which ids there are."""
    status, headers, body = await exchange(service.url, head(method, f"/v1/streams/{stream_id}"))

    assert (status, json.loads(body)["code"]) == (404, "unknown_stream")
    assert headers["content-type"] == "application/problem+json"


BAD_POSITIONS = ["x", "-1", "1.5", "1e3", "+1", "0x1", " 1", "9" * 10, "9" * 5000, "\u0661", "999999999", "true"]


@pytest.mark.parametrize("position", BAD_POSITIONS)
async def test_a_position_that_is_none_is_refused(client, position):
    """In the query, where it has no other reader than us."""
    stream = await client.ask(STREAM)
    params = {"last_event_id": position}
    answered = await client.send("GET", f"/v1/streams/{stream.stream_id}", params=params)
    code, field, reason = told(STREAM, answered)

    assert (answered.status, code, field) == (400, "invalid_request", "Last-Event-ID")
    assert "number of an event" in reason or "the last event of this stream is" in reason


@pytest.mark.parametrize("position", [each for each in BAD_POSITIONS if each.isascii() and each.strip() == each])
async def test_a_position_that_is_none_is_refused_in_the_header_too(client, position):
    """EventSource sends it there."""
    stream = await client.ask(STREAM)
    answered = await client.send("GET", f"/v1/streams/{stream.stream_id}", headers={"Last-Event-ID": position})

    assert (answered.status, told(STREAM, answered)[:2]) == (400, ("invalid_request", "Last-Event-ID"))


@pytest.mark.parametrize(
    ("query", "field", "word"),
    [
        ("format=other", "format", "openai"),
        ("format=", "format", "openai"),
        ("include_usage=maybe", "include_usage", ""),
    ],
)
async def test_a_query_that_cannot_be_right_is_named(client, query, field, word):
    """With the values that there are."""
    stream = await client.ask(STREAM)
    answered = await client.send("GET", f"/v1/streams/{stream.stream_id}?{query}")
    code, told_field, reason = told(STREAM, answered)

    assert (answered.status, code, told_field) == (400, "invalid_request", field)
    assert word in reason
