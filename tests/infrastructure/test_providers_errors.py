"""What becomes of every way in which a provider can fail to begin, row by row."""

import asyncio
import errno
import socket
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
)
from domain.reactions import reaction_to
from domain.selection import Route
from infrastructure.providers.connections import connection_error
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.openai import OpenAIProvider
from infrastructure.providers.retry_after import retry_after_s

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
    "422": (ProviderRejected, ""),
    "429": FEWER,
    "500": (ProviderUnavailable, "answered 500"),
    "502": (ProviderUnavailable, "answered 502"),
    "503": (ProviderUnavailable, "answered 503"),
    "529": (ProviderUnavailable, "answered 529"),
    "reset": (ProviderUnavailable, "broke the connection"),
}
OPENAI = EVERYWHERE | {
    "403": WRONG_KEY,
    "408": (ProviderTimeout, "answered 408"),
    "409": (ProviderUnavailable, "answered 409"),
    "413": (ProviderRejected, "Request body is too large."),
    "context_length": (ContextTooLong, "maximum context length"),
    "content_filter": (ProviderRejected, "safety system"),
    "quota": NO_QUOTA,
}
DEEPSEEK = {fault: EVERYWHERE[fault] for fault in ("401", "429", "500", "502", "503", "reset")} | {"quota": NO_QUOTA}
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


@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_error_that_is_nested_without_end_is_the_providers(name):
    """Not a defect of ours: another route may answer."""

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 500 no\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        writer.write(head + b"[" * 100_000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        error = await failure(name, f"http://{host}:{port}")

    assert type(error) is ProviderUnavailable


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


@pytest.fixture
def full_port():
    """A port whose queue is full: the system leaves further connections without an answer."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for filling in (first, second):
            filling.settimeout(0)
            filling.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_connecting_has_its_own_limit(full_port, name):
    """The deadline of the first token is longer, and another route could have answered by then."""
    error = await failure(name, f"http://127.0.0.1:{full_port}/v1", limit_s=0.2)

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
    ],
)
def test_every_form_of_retry_after_is_read(headers, seconds):
    assert retry_after_s(headers) == seconds


def test_a_date_to_come_back_at_is_turned_into_seconds():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert retry_after_s({"retry-after": date}) == pytest.approx(60, abs=2)
