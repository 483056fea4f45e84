"""Completions of OpenAI, and of every server that speaks its Chat Completions API, such as DeepSeek."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
import httpx2
import msgspec
import openai

from domain.chat import ChatRequest, Chunk, Json
from domain.selection import Prefill, Route
from infrastructure.providers.calls import Calls, Reply
from infrastructure.providers.connections import connection_error
from infrastructure.providers.openai_chunks import OpenAIReader
from infrastructure.providers.openai_errors import status_error
from infrastructure.providers.streams import BREAKS, read_stream, settle

_FAILURES = (openai.APIError, httpx2.InvalidURL, *BREAKS)
"""What a call can end with: the SDK's errors, and those of the transport."""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}


class OpenAIProvider:
    """The provider at `base_url`. Contract: tests/contracts/test_provider.py.

    Connecting (name, TCP and TLS together) may take `connect_timeout_s`. Nothing else is limited here: neither the
    time of an answer nor the number of streams.

    The SDK says where to and with which headers. Streams do not go its own way: it validates every message and option,
    for half of what a call costs us, and its layers hold 8 KB for each stream that is open (perf/results.md).
    """

    def __init__(self, base_url: str, api_key: str, connect_timeout_s: float) -> None:
        self._api_key = api_key
        self._connect_timeout_s = connect_timeout_s
        http = openai.DefaultAioHttpClient(
            # The transport counts everything until a connection is there as waiting for its pool.
            timeout=httpx2.Timeout(None, pool=connect_timeout_s),
        )
        self._sdk = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0, http_client=http)
        said = {**self._sdk.default_headers, **self._sdk.auth_headers}
        named = {name.lower(): value for name, value in said.items() if isinstance(value, str)}
        address = str(self._sdk.base_url).rstrip("/")
        self._url = f"{address}/chat/completions"
        self._beta_url = f"{_beta(address)}/chat/completions"
        self._calls = Calls(named | _HEADERS, connect_timeout_s)

    async def check(self) -> None:
        """See the port."""
        try:
            await self._sdk.models.list()
        except openai.APIStatusError as error:
            refused = error.response
            raise status_error(refused.status_code, refused.headers, refused.content, None, self._api_key) from error
        except _FAILURES as error:
            raise connection_error(error, self._connect_timeout_s) from error

    async def close(self) -> None:
        """All connections are closed."""
        await self._calls.close()
        await self._sdk.close()

    @asynccontextmanager
    async def open(self, route: Route, request: ChatRequest) -> AsyncGenerator[AsyncIterator[Chunk]]:
        """See the port."""
        reply = await self._post(route, request)
        try:
            reader = OpenAIReader(route.model, self._api_key)
            body = reply.content.iter_any()
            async with aclosing(read_stream(body, reader, request.choice_count)) as chunks:
                yield chunks
            if reader.has_ended:
                await settle(body)
        finally:
            reply.release()

    async def _post(self, route: Route, request: ChatRequest) -> Reply:
        """The reply that is a stream, when its headers are there."""
        try:
            url = self._beta_url if _is_marked(route, request) else self._url
            reply = await self._calls.post(url, msgspec.json.encode(_body(route, request)))
            told = b"" if reply.ok else await reply.read()
        except _FAILURES as error:
            raise connection_error(error, self._connect_timeout_s) from error
        try:
            reply.raise_for_status()
        except aiohttp.ClientResponseError as refused:
            raise status_error(refused.status, reply.headers, told, route.model, self._api_key) from refused
        reply.forget_headers()
        return reply


def _is_marked(route: Route, request: ChatRequest) -> bool:
    """Whether a beginning is to be gone on with, at a route that takes one so: a client's own mark asks no other."""
    return route.prefill is Prefill.DEEPSEEK and bool(request.messages[-1].get("prefix"))


def _beta(address: str) -> str:
    """Where a server goes on with a message of the assistant that is marked with `prefix`.

    Source: api-docs.deepseek.com/guides/chat_prefix_completion, as known 2026-11.
    """
    return f"{address.removesuffix('/v1').removesuffix('/beta')}/beta"


def _body(route: Route, request: ChatRequest) -> dict[str, Json]:
    delivery = {"stream": True, "stream_options": {"include_usage": True}}
    return {**request.options, "model": route.model, "messages": request.messages, **delivery}
