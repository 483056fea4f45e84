"""What becomes of every way in which a provider can fail to begin, row by row."""

import asyncio
import errno
import socket
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from domain.chat import ChatRequest
from domain.errors import (
    ContextTooLong,
    ProviderDeferred,
    ProviderError,
    ProviderMisconfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderSaturated,
    ProviderTimeout,
    ProviderUnauthorized,
    ProviderUnavailable,
    RouteUnfit,
)
from domain.reactions import reaction_to
from domain.selection import Route
from infrastructure.providers.connections import connection_error
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.openai import OpenAIProvider
from infrastructure.providers.retry_after import retry_after_s
from tests.deaf import deaf_port

pytestmark = pytest.mark.anyio

ADAPTERS = {"openai": OpenAIProvider, "deepseek": OpenAIProvider, "gemini": GeminiProvider}
REQUEST = ChatRequest(model="m", messages=({"role": "user", "content": "How does a weir work?"},))
MODEL = "some-model"
KEY = "sk-test-secret"
WRONG_KEY = (ProviderUnauthorized, "does not accept our key")
NO_QUOTA = (ProviderMisconfigured, "has no quota left for our key")
FEWER = (ProviderOverloaded, "asks for fewer requests")
EVERYWHERE = {
    "400": (ProviderRejected, "Invalid"),
    "401": WRONG_KEY,
    "404": (ProviderMisconfigured, "does not have the model some-model"),
    "405": (ProviderMisconfigured, "answered 405"),
    "422": (ProviderRejected, ""),
    "429": FEWER,
    "500": (ProviderUnavailable, "answered 500"),
    "502": (ProviderUnavailable, "answered 502"),
    "503": (ProviderUnavailable, "answered 503"),
    "529": (ProviderUnavailable, "answered 529"),
    "reset": (ProviderUnavailable, "broke the connection"),
    "endless_error": (ProviderUnavailable, "answered 500"),
}
OPENAI = EVERYWHERE | {
    "403": WRONG_KEY,
    "408": (ProviderTimeout, "answered 408"),
    "409": (ProviderUnavailable, "answered 409"),
    "413": (ProviderRejected, "Request body is too large."),
    "context_length": (ContextTooLong, "maximum context length"),
    "content_filter": (ProviderRejected, "safety system"),
    "quota": NO_QUOTA,
    "above_limit": (RouteUnfit, "takes no request of this size from us"),
}
DEEPSEEK = {fault: EVERYWHERE[fault] for fault in ("401", "405", "429", "500", "502", "503", "reset")} | {
    "quota": NO_QUOTA
}
GEMINI = EVERYWHERE | {
    "403": WRONG_KEY,
    "408": (ProviderTimeout, "answered 408"),
    "409": (ProviderUnavailable, "answered 409"),
    "413": (ProviderRejected, "Request payload size exceeds the limit"),
    "context_length": (ContextTooLong, "maximum number of tokens"),
    "quota": FEWER,
}
ROWS = [
    pytest.param(name, fault, leaf, reason, id=f"{name}-{fault}")
    for name, table in (("openai", OPENAI), ("deepseek", DEEPSEEK), ("gemini", GEMINI))
    for fault, (leaf, reason) in table.items()
]


async def failure(name: str, base_url: str, *, key: str = KEY, model: str = MODEL, limit_s: float = 5.0):
    provider = ADAPTERS[name](base_url, key, limit_s)
    try:
        with pytest.raises(ProviderError) as failed:
            async with provider.open(Route(provider=name, model=model), REQUEST):
                pytest.fail("entered")
    finally:
        await provider.close()
    return failed.value


@pytest.mark.parametrize(("name", "fault", "leaf", "reason"), ROWS)
async def test_every_fault_has_its_leaf_and_its_sentence(simulator, name, fault, leaf, reason):
    """The leaf decides between trying again, another route and giving up; the sentence is shown to clients."""
    simulator.behave(name, fault=fault)

    error = await failure(name, simulator.urls[name])

    assert type(error) is leaf
    assert reason in error.reason
    assert error.__cause__ is not None
    assert KEY not in error.reason


@pytest.mark.parametrize("name", ADAPTERS)
async def test_nothing_is_tried_twice_in_secret(simulator, name):
    """Retries are ours to count; an SDK's own would hide a provider that is down."""
    simulator.behave(name, fault="500")

    await failure(name, simulator.urls[name])

    assert simulator.counters(name)["calls"] == 1


@pytest.mark.parametrize(("fault", "status"), [("400", 400), ("413", 400), ("422", 422)])
@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_a_rejected_request_is_answered_with_a_status_of_the_contract(simulator, name, fault, status):
    simulator.behave(name, fault=fault)

    assert (await failure(name, simulator.urls[name])).status == status


@pytest.mark.parametrize("fault", ["429", "503", "529"])
@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_an_overloaded_provider_says_how_long_to_wait(simulator, name, fault):
    simulator.behave(name, fault=fault, retry_after_ms=1500)

    error = await failure(name, simulator.urls[name])

    assert type(error) is ProviderDeferred
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_date_to_come_back_at_is_as_good_as_seconds(simulator, name, form):
    simulator.behave(name, fault="429", retry_after_s=40, retry_after_as=form)

    error = await failure(name, simulator.urls[name])

    assert type(error) is ProviderDeferred
    assert 38 <= error.retry_after_s <= 40


@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_date_beyond_all_calendars_asks_for_an_hour_as_any_long_rest_does(simulator, name):
    """It is told to clients, and no clock of theirs goes that far."""
    simulator.behave(name, fault="429", retry_after_as="last_date")

    error = await failure(name, simulator.urls[name])

    assert (type(error), error.retry_after_s) == (ProviderDeferred, 3600.0)


@asynccontextmanager
async def refusing(head: bytes, body: bytes, *, closes: bool = True):
    """The address of a server that answers so."""

    async def refuse(reader, writer):
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)
            await writer.drain()
            if not closes:
                await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


JSON = b"\r\ncontent-type: application/json\r\ncontent-length: "


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,  # nested without end
        b'{"error": {"message": "' + b"no " * 5_000_000,  # larger than is read, and cut by that
        b"\xff\xfe",
        b"",
        b"3",
    ],
    ids=["nested", "large", "no text", "empty", "no object"],
)
@pytest.mark.parametrize(("status", "leaf"), [(b"401 no", ProviderUnauthorized), (b"500 no", ProviderUnavailable)])
@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_errors_status_is_told_whatever_its_body_is(name, status, leaf, body):
    """Not a defect of ours, and no broken connection: another route may answer."""
    async with refusing(status + JSON + b"%d" % len(body), body) as address:
        error = await failure(name, address)

    assert type(error) is leaf


@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_errors_body_that_breaks_off_or_does_not_end_takes_nothing_from_its_status(name):
    """What has come of it is told, where that says more."""
    told = b'{"error": {"code": 400, "message": "Not that."}}'
    for closes in (True, False):
        async with refusing(b"400 no" + JSON + b"1000", told, closes=closes) as address, asyncio.timeout(3):
            error = await failure(name, address)

        assert (type(error), error.reason) == (ProviderRejected, "Not that.")


@pytest.mark.parametrize(
    ("param", "leaf"),
    [
        (b"null", ProviderMisconfigured),
        (b'"None"', ProviderMisconfigured),
        (b'"model"', ProviderMisconfigured),
        (b"[]", ProviderRejected),
        (b'"messages[0].content[0].file_id"', ProviderRejected),
    ],
)
async def test_what_the_request_names_and_is_not_found_is_the_callers(param, leaf):
    """Anybody could shut the route off for all, by asking for a file that is not there."""
    told = b'{"error": {"message": "No such file.", "type": "invalid_request_error", "param": %b}}' % param
    async with refusing(b"404 no" + JSON + b"%d" % len(told), told) as address:
        error = await failure("openai", address)

    assert type(error) is leaf


@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_wrong_key_is_never_shown(simulator, name):
    """OpenAI's own text has both ends of it; Gemini says 400 where it means 401."""
    error = await failure(name, simulator.urls[name], key="bad-secret-key")

    assert (type(error), error.reason) == WRONG_KEY


@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_unknown_model_is_a_matter_of_our_configuration(simulator, name):
    """Another route may have it: DeepSeek says 400, which would otherwise end the request."""
    error = await failure(name, simulator.urls[name], model="no-such-model")

    assert type(error) is ProviderMisconfigured
    assert error.reason == "does not have the model no-such-model"


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_a_provider_that_is_off_refuses_the_connection(simulator, name):
    simulator.control("POST", f"/providers/{name}/off")

    error = await failure(name, simulator.urls[name])

    assert (type(error), error.reason) == (ProviderUnavailable, "refused the connection")


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_a_failed_tls_handshake_says_so(simulator, name):
    error = await failure(name, simulator.urls[name].replace("http://", "https://"))

    assert (type(error), error.reason) == (ProviderUnavailable, "failed the TLS handshake")


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_connecting_has_its_own_limit(name):
    """The deadline of the first token is longer, and another route could have answered by then."""
    with deaf_port() as port:
        error = await failure(name, f"http://127.0.0.1:{port}/v1", limit_s=0.2)

    assert (type(error), error.reason) == (ProviderTimeout, "could not be reached within 0.2 s")


ADDRESS = ConnectionKey(
    host="host", port=443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


@pytest.mark.parametrize(
    ("error", "leaf", "reason"),
    [
        (
            aiohttp.ClientConnectorDNSError(ADDRESS, socket.gaierror(-2, "unknown")),
            ProviderUnavailable,
            "has an address that does not resolve",
        ),
        (
            aiohttp.ClientConnectorError(ADDRESS, OSError(errno.EHOSTUNREACH, "")),
            ProviderUnavailable,
            "could not be reached",
        ),
        (aiohttp.ServerDisconnectedError(), ProviderUnavailable, "broke the connection"),
        (aiohttp.ClientOSError(errno.ECONNRESET, ""), ProviderUnavailable, "broke the connection"),
        (aiohttp.InvalidURL("nowhere"), ProviderMisconfigured, "has an address that is no URL"),
        (ValueError(), ProviderUnavailable, "could not be called"),
    ],
)
def test_a_broken_connection_is_told_in_our_words(error, leaf, reason):
    told = connection_error(error, 5.0)

    assert (type(told), told.reason) == (leaf, reason)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_a_shortage_of_ours_is_not_held_against_the_provider(number):
    """It would open the circuits of all providers at once, and none of them is to blame."""
    told = connection_error(aiohttp.ClientConnectorError(ADDRESS, OSError(number, "")), 5.0)

    assert type(told) is ProviderSaturated
    assert not reaction_to(told).counts


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 -0000"}, 0.0),
        ({"retry-after": "Sat, 01 Jan 0001 00:00:00 +0100"}, 0.0),
        ({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers, seconds):
    assert retry_after_s(headers) == seconds


def test_a_date_to_come_back_at_is_turned_into_seconds():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert retry_after_s({"retry-after": date}) == pytest.approx(60, abs=2)
