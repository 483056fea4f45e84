"""Calls to one provider, each a stream that may last for minutes: what is not needed meanwhile is not kept."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx2
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy, istr

_KEEPALIVE_S = 30.0

ERROR_BYTES = 64 * 1024
ERROR_S = 0.5
"""Of an error's body so much is read, in so many seconds, from its headers on."""

_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


class Reply(aiohttp.ClientResponse):
    """A response whose headers can be forgotten: nobody reads them while the stream lasts.

    What tells an error is its status: its body is read as far as that goes, and may be without sense or end.
    """

    async def read(self) -> bytes:
        """The body; of an error's as much as ERROR_BYTES and ERROR_S allow."""
        if self.status == HTTPStatus.OK:
            return await super().read()
        try:
            self._body = self._body or await _beginning(self.content)
        finally:
            self.close()
        return self._body

    async def json(self, **options: Any) -> Any:
        """What the body says; None: it is an error's that cannot be read."""
        if self.status == HTTPStatus.OK:
            return await super().json(**options)
        try:
            return msgspec.json.decode(await self.read())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None

    def forget_headers(self) -> None:
        """The headers have been read, and the request's own are not needed to tell what came of it."""
        request = self._request_info
        self._request_info = aiohttp.RequestInfo(request.url, request.method, _NO_HEADERS, request.real_url)
        self._headers = _NO_HEADERS
        self._raw_headers = ()
        self._cache.clear()


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    read = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(ERROR_S):
            while len(read) < ERROR_BYTES and (data := await content.read(ERROR_BYTES - len(read))):
                read += data
    return bytes(read)


class Calls:
    """POSTs with `headers`. Connecting (name, TCP and TLS together) may take `connect_timeout_s`.

    Nothing else is limited here: neither the time of an answer nor the number of streams.
    """

    def __init__(self, headers: Mapping[str, str], connect_timeout_s: float) -> None:
        self._headers = CIMultiDict({istr(name): value for name, value in headers.items()})
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes) -> Reply:
        """The reply of `url`, once its headers are there; releasing it ends the call at once.

        Raises:
            aiohttp.ClientError, OSError: there is none.
        """
        if self._session is None:
            self._session = self._open()
        reply = await self._session.post(url, data=body)
        assert isinstance(reply, Reply)  # noqa: S101  # the session makes no others
        return reply

    async def close(self) -> None:
        """All connections are closed."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # none
                keepalive_timeout=_KEEPALIVE_S,
                ssl=httpx2.create_ssl_context(),  # the SDK's
            ),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(connect=self._connect_timeout_s),
            response_class=Reply,
            trust_env=bool(getproxies()),  # asked for each call, proxies take longer than the call
        )
