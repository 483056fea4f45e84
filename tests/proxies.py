"""A TCP proxy that can cut what it connects."""

import asyncio
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes between whoever connects to `port` and a server on loopback, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def start(self) -> None:
        """It listens at `port`."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Every connection is broken, and new ones are as soon as they are made."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """New connections work again."""
        self._is_cut = False

    async def close(self) -> None:
        """Nothing is passed any more."""
        self.cut()
        self._server.close()

    async def _connect(self, reader, writer) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, there_writer}
        passing = [_pass(reader, there_writer), _pass(there_reader, writer)]
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*passing)
        for each in (writer, there_writer):
            self._writers.discard(each)
            each.close()


async def _pass(reader, writer) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()


@asynccontextmanager
async def proxy_to(port: int):
    """A proxy to that port, for the time of the context."""
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
