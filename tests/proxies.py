"""A TCP proxy that can cut what it connects."""

import asyncio
import threading
from contextlib import suppress


class Proxy:
    """Passes bytes between whoever connects to `port` and a server on loopback, until it is cut.

    It runs in a thread of its own, for as long as it is not closed.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._start())

    def cut(self) -> None:
        """Every connection is broken, and new ones are as soon as they are made."""
        self._run(self._cut())

    def mend(self) -> None:
        """New connections work again."""
        self._is_cut = False

    def close(self) -> None:
        """Nothing is passed any more."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        await self._cut()
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, reader, writer) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there_writer}
        self._writers |= both
        if self._is_cut:
            there_writer.transport.abort()
        await asyncio.gather(_pass(reader, there_writer), _pass(there_reader, writer))
        self._writers -= both
        for each in both:
            each.close()


async def _pass(reader, writer) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
