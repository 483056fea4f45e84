"""Completions of OpenAI, and of every server that speaks its Chat Completions API, such as DeepSeek."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2
import msgspec
import openai

from domain.chat import ChatRequest, Chunk, Json
from domain.selection import Route
from infrastructure.providers.connections import connection_error
from infrastructure.providers.openai_chunks import OpenAIReader
from infrastructure.providers.openai_errors import status_error
from infrastructure.providers.streams import BREAKS, read_stream, settle

_FAILURES = (openai.APIError, httpx2.InvalidURL, *BREAKS)
"""What a call can end with: the SDK's errors, and those of its transport that it does not translate."""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}
_KEEPALIVE_S = 30.0


class OpenAIProvider:
    """The provider at `base_url`. Contract: tests/contracts/test_provider.py.

    Connecting (name, TCP and TLS together) may take `connect_timeout_s`. Nothing else is limited here: neither the
    time of an answer nor the number of streams.
    """

    def __init__(self, base_url: str, api_key: str, connect_timeout_s: float) -> None:
        self._api_key = api_key
        self._connect_timeout_s = connect_timeout_s
        self._http = openai.DefaultAioHttpClient(
            # To aiohttp a limit of 0 is none; None would be its default of 100.
            limits=httpx2.Limits(max_connections=0, keepalive_expiry=_KEEPALIVE_S),
            # The transport counts everything until a connection is there as waiting for its pool.
            timeout=httpx2.Timeout(None, pool=connect_timeout_s),
        )
        self._sdk = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0, http_client=self._http)
        self._url = f"{str(self._sdk.base_url).rstrip('/')}/chat/completions"
        said = {**self._sdk.default_headers, **self._sdk.auth_headers}
        named = {name.lower(): value for name, value in said.items() if isinstance(value, str)}
        self._headers = named | _HEADERS

    async def check(self) -> None:
        """See the port."""
        try:
            await self._sdk.models.list()
        except openai.APIStatusError as error:
            raise status_error(error.response, "any", self._api_key) from error
        except _FAILURES as error:
            raise connection_error(error, self._connect_timeout_s) from error

    async def close(self) -> None:
        """All connections are closed."""
        await self._sdk.close()

    @asynccontextmanager
    async def open(self, route: Route, request: ChatRequest) -> AsyncGenerator[AsyncIterator[Chunk]]:
        """See the port."""
        response = await self._post(route, request)
        try:
            reader = OpenAIReader(route.model, self._api_key)
            body = response.aiter_raw()
            async with aclosing(read_stream(body, reader, request.choice_count)) as chunks:
                yield chunks
            if reader.has_ended:
                await settle(body)
        finally:
            await response.aclose()

    async def _post(self, route: Route, request: ChatRequest) -> httpx2.Response:
        """The response, when its headers are there.

        The SDK says where to, with which headers and through which client. Its own way of sending is not taken: it
        validates every message and option, for half of what a call costs us (perf/results.md).
        """
        call = self._http.build_request(
            "POST", self._url, headers=self._headers, content=msgspec.json.encode(_body(route, request))
        )
        try:
            response = await self._http.send(call, stream=True)
            if not response.is_success:
                await response.aread()
                response.raise_for_status()
        except httpx2.HTTPStatusError as error:
            raise status_error(error.response, route.model, self._api_key) from error
        except _FAILURES as error:
            raise connection_error(error, self._connect_timeout_s) from error
        response.headers = call.headers = httpx2.Headers()  # read, and a tenth of what a stream holds while it lasts
        return response


def _body(route: Route, request: ChatRequest) -> dict[str, Json]:
    delivery = {"stream": True, "stream_options": {"include_usage": True}}
    return {**request.options, "model": route.model, "messages": request.messages, **delivery}
