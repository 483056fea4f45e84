"""Calls to one provider, each a stream that may last for minutes: what is not needed meanwhile is not kept."""

from collections.abc import Mapping
from urllib.request import getproxies

import aiohttp
import httpx2
from multidict import CIMultiDict, CIMultiDictProxy, istr

_KEEPALIVE_S = 30.0

_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


class Reply(aiohttp.ClientResponse):
    """A response whose headers can be forgotten: nobody reads them while the stream lasts."""

    def forget_headers(self) -> None:
        """The headers have been read."""
        self._headers = _NO_HEADERS
        self._raw_headers = ()
        self._cache.clear()


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
