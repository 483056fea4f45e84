"""Whatever body comes in, the answer says which field is wrong and what would be right, and nothing of our inside."""

import json
import time
from contextlib import nullcontext

import pytest

from app.bodies import parse_completion_body
from domain.errors import InvalidRequest
from tests.app.asking import CHAT, MODEL, STREAM, body_for, question
from tests.app.refusals import JSON, SECRET, refused, told

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("path", [STREAM, CHAT])

NOT_REQUESTS = [
    pytest.param(b"", "body", "JSON", id="nothing"),
    pytest.param(b"not json", "body", "JSON", id="not-json"),
    pytest.param(b'{"model": "gpt-4o-mini"', "body", "JSON", id="cut-json"),
    pytest.param(b'{"model": "gpt-4o-mini"} {}', "body", "JSON", id="two-values"),
    pytest.param(b"[]", "body", "object", id="array"),
    pytest.param(b'"x"', "body", "object", id="string"),
    pytest.param(b"null", "body", "object", id="null"),
    pytest.param(b"\xff\xfe{\x00}\x00", "body", "JSON", id="utf-16"),
    pytest.param(b"{}", "model", "required", id="empty-object"),
    pytest.param(b'{"model":"m","x":[' + b"[]," * 20_000 + b"1]}", None, "", id="many-values"),
    pytest.param(b"[" * 100_000, "body", "", id="deep-arrays"),
    pytest.param(b'{"a":' * 100_000, None, "", id="deep-objects"),
    pytest.param(b'{"model":"gpt-4o-mini","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, None, id="deep-field"),
]


@BOTH
@pytest.mark.parametrize(("body", "field", "word"), NOT_REQUESTS)
async def test_what_is_no_request_is_refused_by_name(client, path, body, field, word):
    """A parser's crash would be a 500, and a way to bring the service down."""
    response = await refused(client, path, body)
    code, told_field, reason = told(path, response)

    assert (response.status, code) == (400, "invalid_request")
    assert field is None or (told_field == field and word in reason), (told_field, reason)


WRONG_FIELDS = [
    ({"model": ""}, "model", ">= 1"),
    ({"model": 5}, "model", "`str`"),
    ({"model": None}, "model", "`str`"),
    ({"model": "m" * 201}, "model", "<= 200"),
    ({"temperature": -0.1}, "temperature", ">= 0"),
    ({"temperature": 2.1}, "temperature", "<= 2"),
    ({"temperature": "hot"}, "temperature", "`float"),
    ({"temperature": True}, "temperature", "`float"),
    ({"top_p": 1.5}, "top_p", "<= 1"),
    ({"max_tokens": 0}, "max_tokens", ">= 1"),
    ({"max_tokens": 2**31 + 1}, "max_tokens", "<= "),
    ({"max_tokens": 1.5}, "max_tokens", "`int"),
    ({"max_tokens": 0.0}, "max_tokens", ">= 1"),
    ({"max_tokens": "5"}, "max_tokens", "`int"),
    ({"max_tokens": 10**30}, "max_tokens", ""),
    ({"stop": ""}, "stop", ">= 1"),
    ({"stop": []}, "stop", ">= 1"),
    ({"stop": ["a"] * 5}, "stop", "<= 4"),
    ({"stop": 5}, "stop", "`str"),
    ({"seed": 2**63}, "seed", ""),
    ({"seed": "x"}, "seed", "`int"),
    ({"messages": []}, "messages", ">= 1"),
    ({"messages": [{"role": "user", "content": "x"}] * 2049}, "messages", "<= 2048"),
    ({"messages": [{"role": "user", "content": "a\x00"}]}, "messages", "U+0000 at character 1"),
    ({"messages": {}}, "messages", "`array"),
    ({"messages": [5]}, "messages[0]", "`object`"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "required"),
    ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role", "`str`"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "`str"),
    ({"messages": [{"role": "user", "content": " \n\t"}]}, "messages", "question"),
    ({"messages": [{"role": "user", "content": "x" * 32_001}]}, "messages", "at most 32000"),
]


@BOTH
@pytest.mark.parametrize(("fields", "field", "word"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
async def test_a_wrong_field_is_named_with_what_would_be_right(client, path, fields, field, word):
    """Who reads the refusal can mend the request without reading our code."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], **fields}
    response = await refused(client, path, body)
    code, told_field, reason = told(path, response)

    assert (response.status, code, told_field) == (400, "invalid_request", field)
    assert word in reason
    assert client_calls(client) == 0


def client_calls(client):
    return client.simulator.counters("openai")["calls"]


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        ({"model": MODEL}, "query", "needed"),
        ({"model": MODEL, "query": "x", "messages": [{"role": "user", "content": "x"}]}, "query", "not both"),
        ({"model": MODEL, "query": ""}, "query", "question"),
        ({"model": MODEL, "query": " \u3000\n"}, "query", "question"),
        ({"model": MODEL, "query": "x" * 32_001}, "query", "at most 32000"),
        ({"model": MODEL, "query": 5}, "query", "`str"),
        ({"model": MODEL, "query": ["x"]}, "query", "`str"),
        ({"model": MODEL, "query": "x", "colour": "red"}, "colour", "known are model, query, messages, provider"),
        ({"model": MODEL, "messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name", "unknown"),
        ({"model": MODEL, "messages": [{"role": "judge", "content": "x"}]}, "messages[0].role", "judge"),
        ({"model": MODEL, "query": "x", "provider": "acme"}, "provider", "openai, deepseek, gemini"),
        ({"model": MODEL, "query": "x", "provider": ""}, "provider", ">= 1"),
        ({"model": MODEL, "query": "x", "thread_id": ""}, "thread_id", "A-Z"),
        ({"model": MODEL, "query": "x", "thread_id": "a b"}, "thread_id", "A-Z"),
        ({"model": MODEL, "query": "x", "thread_id": "a\n"}, "thread_id", "A-Z"),
        ({"model": MODEL, "query": "x", "thread_id": "a\r\nx-evil: 1"}, "thread_id", "A-Z"),
        ({"model": MODEL, "query": "x", "thread_id": "a" * 129}, "thread_id", "A-Z"),
    ],
    ids=lambda value: str(value)[:70],
)
async def test_the_native_body_is_strict(client, body, field, word):
    """Unknown fields are most often misspelt ones."""
    response = await refused(client, STREAM, body)
    code, told_field, reason = told(STREAM, response)

    assert (response.status, code, told_field) == (400, "invalid_request", field)
    assert word in reason


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ],
)
async def test_openais_body_is_checked_as_far_as_it_is_read(client, fields, field):
    """The rest is the provider's to judge."""
    response = await refused(client, CHAT, body_for(CHAT) | fields)

    assert (response.status, told(CHAT, response)[:2]) == (400, ("invalid_request", field))


@BOTH
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "1.", "0x1"])
@pytest.mark.parametrize("name", ["temperature", "something_else"])
async def test_numbers_that_json_does_not_have_are_refused(client, path, number, name):
    """They could be sent to no provider, and NaN would be equal to no cached question."""
    body = json.dumps(body_for(path)).encode()[:-1] + f', "{name}": {number}}}'.encode()
    response = await refused(client, path, body)

    assert (response.status, told(path, response)[0]) == (400, "invalid_request")


@BOTH
@pytest.mark.parametrize("text", [r"\ud800", r"\udc00", r"\udc00\ud800", r"a\ud83db", "\ud800"])
@pytest.mark.parametrize("place", ["content", "model", "key"])
async def test_lone_surrogates_are_refused(client, path, text, place):
    """They are no text: UTF-8 cannot carry them to a provider or into a log."""
    body = json.dumps(body_for(path, query="CONTENT", **({"user": {"KEY": 1}} if path == CHAT else {})))
    target = {"content": "CONTENT", "model": MODEL, "key": "KEY" if path == CHAT else "query"}[place]
    response = await refused(client, path, body.replace(target, text).encode("utf-8", "surrogatepass"))

    assert (response.status, told(path, response)[0]) == (400, "invalid_request")


@BOTH
@pytest.mark.parametrize("character", [*range(9), *range(14, 32), 127])
async def test_control_characters_are_refused(client, path, character):
    """They are no text, and nobody sees them: where they stand is told."""
    response = await refused(client, path, body_for(path, query=f"What is{chr(character)} this?"))
    code, field, reason = told(path, response)

    assert (response.status, code, field) == (400, "invalid_request", "query" if path == STREAM else "messages")
    assert f"U+{character:04X} at character 7" in reason


async def test_more_values_than_anybody_needs_are_refused(client):
    """Whatever is done to each of them would hold all streams up: a body of a megabyte has room for 300,000."""
    body = body_for(CHAT, x=[[]] * 20_001)
    response = await refused(client, CHAT, body)

    assert (response.status, told(CHAT, response)[1:]) == (400, ("body", "body: more than 20000 values"))
    allowed = await client.send("POST", CHAT, json=body_for(CHAT, x=[1] * 19_000))
    assert allowed.status == 200


@pytest.mark.parametrize("number", [b"1e300", b"1E+0308", b"2.2250738585072011e-308", b"12345678901234567890e270"])
def test_numbers_that_take_long_to_read_are_refused_unread(number):
    """A body of a megabyte of them would hold all streams up for seconds before anybody could count its values."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "?"}], "x": [%b]}'
    began_s = time.process_time()
    for count, said in ((40_000, "hundreds of digits"), (10, "")):
        values = b",".join([number] * count)
        with pytest.raises(InvalidRequest, match=said) if said else nullcontext():
            parse_completion_body(body % values, 100)

    assert time.process_time() - began_s < 0.2


@BOTH
async def test_whole_numbers_may_have_a_fraction_of_nothing(client, path):
    """JSON knows no difference between 5.0 and 5, and both are the same question."""
    query = question()
    first = await client.ask(path, query, max_tokens=5.0, seed=7)
    second = await client.ask(path, query, max_tokens=5, seed=7.0)

    assert (first.status, second.status) == (200, 200)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "l1")
    assert client.simulator.calls("openai")[-1]["body"]["max_tokens"] == 5


@BOTH
async def test_of_a_key_that_comes_twice_the_last_counts(client, path):
    """As in every parser that OpenAI's users know."""
    body = json.dumps(body_for(path)).encode()
    response = await client.send("POST", path, data=b'{"model": "no-such",' + body[1:], headers=JSON)

    assert response.status == 200


@BOTH
async def test_surrogate_pairs_and_other_escapes_are_text(client, path):
    """Escapes as such are nothing to refuse."""
    body = json.dumps(body_for(path, query=f"What is \U0001f30a \f \u0085 \u2028 {path}?")).encode()
    response = await client.send("POST", path, data=body, headers=JSON)

    assert response.status == 200
