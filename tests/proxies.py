"""A TCP proxy that can cut what it connects, as a process: one within a busy process would be slower than what it cuts.

python -m tests.proxies PORT BYTES_PER_S [PEM] passes bytes to that port, to which they come with TLS if there is a file
with a certificate and its key; it obeys the lines on its input, until that ends.
"""

import asyncio
import math
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
_CUT, _MEND = b"cut\n", b"mend\n"


class Proxy:
    """Passes bytes between whoever connects to `port` and a server on loopback, until it is cut.

    What a connection has for the server is passed no faster than `bytes_per_s`. With `pem`, a certificate and its key,
    who connects speaks TLS.
    """

    def __init__(self, target_port: int, bytes_per_s: float = math.inf, pem: Path | None = None) -> None:
        command = [sys.executable, "-m", "tests.proxies", str(target_port), str(bytes_per_s), *([pem] if pem else [])]
        self._process = subprocess.Popen(command, cwd=_PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self._process.stdout.readline())

    def cut(self) -> None:
        """Every connection is broken, and new ones are as soon as they are made."""
        self._order(_CUT)

    def mend(self) -> None:
        """New connections work again."""
        self._order(_MEND)

    def close(self) -> None:
        """Nothing is passed any more.

        Raises:
            AssertionError: the process ended otherwise than well.
        """
        self._process.communicate(timeout=10)
        assert self._process.returncode == 0

    def _order(self, order: bytes) -> None:
        self._process.stdin.write(order)
        self._process.stdin.flush()
        assert self._process.stdout.readline() == order


class _Passing:
    """The connections through a proxy."""

    def __init__(self, target_port: int, bytes_per_s: float) -> None:
        self._target_port = target_port
        self._bytes_per_s = bytes_per_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    def obey(self, order: bytes) -> None:
        self._is_cut = order == _CUT
        if self._is_cut:
            for writer in self._writers:
                writer.transport.abort()

    async def connect(self, reader, writer) -> None:
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
        await asyncio.gather(_pass(reader, there_writer, self._bytes_per_s), _pass(there_reader, writer))
        self._writers -= both
        for each in both:
            each.close()


async def _pass(reader, writer, bytes_per_s=math.inf) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            await asyncio.sleep(len(data) / bytes_per_s)
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()


def _context(pem: str | None) -> ssl.SSLContext | None:
    if pem is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def _obey(target_port: int, bytes_per_s: float, pem: str | None = None) -> None:
    passing, orders = _Passing(target_port, bytes_per_s), asyncio.StreamReader()
    server = await asyncio.start_server(passing.connect, "127.0.0.1", 0, ssl=_context(pem))
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    _say(b"%d\n" % server.sockets[0].getsockname()[1])
    while order := await orders.readline():
        passing.obey(order)
        _say(order)
    passing.obey(_CUT)
    server.close()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_obey(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
