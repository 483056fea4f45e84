"""A provider's address, that can stop and start accepting connections."""

import asyncio
import socket

from aiohttp import web

_BACKLOG = 4096


class Listener:
    """Serves `app` on one loopback port while on; while off, connecting to it is refused."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        self._site: web.SockSite | None = None
        # Bound and never listening: it keeps the port ours while the listener is off.
        self._claim = _bound(host, port)
        self.host, self.port = self._claim.getsockname()[:2]

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_on(self) -> bool:
        """Whether connections are accepted."""
        return self._site is not None

    async def on(self) -> None:
        """Accept connections."""
        if self._site is not None:
            return
        if self._runner.server is None:
            await self._runner.setup()
        site = web.SockSite(self._runner, _bound(self.host, self.port), backlog=_BACKLOG)
        await site.start()
        self._site = site

    async def off(self) -> None:
        """Refuse connections and drop those that are open, in the middle of whatever they carry."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
            self._drop()
            # A connection accepted just before is made known only now.
            await asyncio.sleep(0)
            self._drop()

    async def close(self) -> None:
        """Stop for good and give the port back."""
        await self.off()
        await self._runner.cleanup()
        self._claim.close()

    def _drop(self) -> None:
        server = self._runner.server
        for connection in list(server.connections) if server else ():
            if connection.transport is not None:
                connection.transport.abort()


def _bound(host: str, port: int) -> socket.socket:
    address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(address[0], socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address[4])
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"port {port} of {host}: {error.strerror}") from error
    bound.settimeout(0)
    return bound
