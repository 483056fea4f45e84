"""Completions of Gemini."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import google.genai
import google.genai.errors
import msgspec
from google.genai.types import HttpOptions, HttpRetryOptions

from domain.chat import ChatRequest, Chunk
from domain.selection import Route
from infrastructure.providers.calls import Reply
from infrastructure.providers.connections import connection_error
from infrastructure.providers.gemini_chunks import GeminiReader
from infrastructure.providers.gemini_errors import status_error
from infrastructure.providers.gemini_request import gemini_body
from infrastructure.providers.streams import BREAKS, read_stream


class GeminiProvider:
    """The provider at `base_url`. Contract: tests/contracts/test_provider.py.

    Connecting (name, TCP and TLS together) may take `connect_timeout_s`. Nothing else is limited here: neither the
    time of an answer nor the number of streams.
    """

    def __init__(self, base_url: str, api_key: str, connect_timeout_s: float) -> None:
        self._api_key = api_key
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        retry_never = HttpRetryOptions(attempts=1)  # without it, the SDK sleeps and tries once more
        self._client = google.genai.Client(
            vertexai=False,
            api_key=api_key,
            http_options=HttpOptions(base_url=base_url, api_version="v1beta", retry_options=retry_never),
        )

    async def check(self) -> None:
        """See the port."""
        try:
            self._api()
            await self._client.aio.models.list(config={"page_size": 1})
        except google.genai.errors.APIError as error:
            raise status_error(error, None, self._api_key) from error
        except (*BREAKS, ValueError) as error:
            raise connection_error(error, self._connect_timeout_s) from error

    async def close(self) -> None:
        """All connections are closed."""
        if self._session is not None:
            await self._session.close()
        await self._client.aio.aclose()
        self._client.close()

    @asynccontextmanager
    async def open(self, route: Route, request: ChatRequest) -> AsyncGenerator[AsyncIterator[Chunk]]:
        """See the port."""
        body = msgspec.json.encode(gemini_body(route.model, request))
        async with await self._post(route.model, body) as response:
            reader = GeminiReader(route.model, self._api_key)
            content = response.content.iter_any()
            async with aclosing(read_stream(content, reader, request.choice_count)) as chunks:
                yield chunks

    async def _post(self, model: str, body: bytes) -> aiohttp.ClientResponse:
        """The response, when its headers are there.

        The SDK's public method reads each event into models, for five times the time of all else that is done with
        it, and hides when a stream was cut. One level below it builds the request, sends it, and raises its errors:
        that is private, and tests/infrastructure/test_providers_gemini.py says so if it goes.
        """
        try:
            api = self._api()
            request = api._build_request("post", _path(model), {})  # noqa: SLF001 - see above
            request.data = body
            request.headers["accept-encoding"] = "identity"
            answered = await api._async_request(request, stream=True)  # noqa: SLF001 - see above
        except google.genai.errors.APIError as error:
            raise status_error(error, model, self._api_key) from error
        except (*BREAKS, ValueError, RecursionError) as error:
            raise connection_error(error, self._connect_timeout_s) from error
        response: aiohttp.ClientResponse = answered.response_stream
        return response

    def _api(self) -> Any:
        """The SDK's own client, with a session that bounds connecting; a session is made where a loop runs."""
        api = self._client._api_client  # noqa: SLF001 - see _post
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._connect_timeout_s), trust_env=True, response_class=Reply
            )
            api._http_options.aiohttp_client = self._session  # noqa: SLF001 - see _post
        return api


class _Connector(aiohttp.TCPConnector):
    """Any number of connections; each must be there within `connect_timeout_s`, which the SDK cannot be told."""

    def __init__(self, connect_timeout_s: float) -> None:
        super().__init__(limit=0, keepalive_timeout=30.0)
        self._limit_s = aiohttp.ClientTimeout(connect=connect_timeout_s)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ARG002, ASYNC109 - aiohttp's own signature
        return await super().connect(req, traces, self._limit_s)


def _path(model: str) -> str:
    name = model if "/" in model else f"models/{model}"
    return f"{quote(name, safe='/@=,:')}:streamGenerateContent?alt=sse"
