"""Hand-made HTTP/1.1 over protocols: what a load generator sees of one question."""

import asyncio
from time import perf_counter
from typing import cast

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked where. `{n}` in the body becomes a number of its own for each request.

    `token` stands once in each chunk of the answer, `ending` somewhere in a whole one.
    """

    host: str
    port: int
    path: str
    body: str
    token: str
    ending: str


class Reply:
    """One response as it arrives."""

    __slots__ = ("arrivals_s", "asked_s", "done", "expected", "pieces", "size")

    def __init__(self, asked_s: float) -> None:
        self.asked_s = asked_s
        self.arrivals_s: list[float] = []  # of tokens; one for all of a whole answer
        self.pieces: list[bytes] = []
        self.size = 0
        self.expected: int | None = None  # bytes in all; None while unknown, or when chunked
        self.done = asyncio.get_running_loop().create_future()


class Connection(asyncio.Protocol):
    """A kept-alive connection on which one question is asked at a time."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._token = target.token.encode()
        self._ending = target.ending.encode()
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer anonymous\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self.reply: Reply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, number: int) -> Reply:
        """Send the request; the reply is done when its last byte is here, or when the connection is lost."""
        body = self.target.body.replace("{n}", str(number))
        self.reply = Reply(perf_counter())
        if self.transport.is_closing():
            self.reply.done.set_exception(ConnectionError("lost"))
            return self.reply
        self.transport.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        return self.reply

    def data_received(self, data: bytes) -> None:
        reply = self.reply
        if reply is None:
            return
        if not reply.pieces:
            reply.expected = _length(data)
        reply.pieces.append(data)
        reply.size += len(data)
        if tokens := data.count(self._token):
            reply.arrivals_s.extend([perf_counter()] * (1 if reply.expected else tokens))
        if reply.size == reply.expected or (reply.expected is None and self._is_last(reply, data)):
            reply.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.reply and not self.reply.done.done():
            self.reply.done.set_exception(ConnectionError(f"lost: {exc}"))

    def failure(self, reply: Reply) -> str | None:
        """What is wrong with a reply; None: nothing."""
        whole = b"".join(reply.pieces)
        if whole.startswith(b"HTTP/1.1 200") and self._ending in whole:
            return None
        return whole[:600].decode(errors="replace")

    def tokens(self, reply: Reply) -> int:
        """How many tokens a reply has."""
        return b"".join(reply.pieces).count(self._token)

    @staticmethod
    def cache(reply: Reply) -> str:
        """Where the answer came from, as the response says; empty: it does not."""
        _, _, rest = reply.pieces[0].partition(b"x-cache: ")
        return rest.split(b"\r\n", 1)[0].decode() if rest else ""

    @staticmethod
    def _is_last(reply: Reply, data: bytes) -> bool:
        end = data if len(data) >= 5 else b"".join(reply.pieces[-2:])
        return end.endswith(b"0\r\n\r\n")


def _length(data: bytes) -> int | None:
    """The size of the whole response that begins with `data`, head included; None: chunked."""
    head, _, _ = data.partition(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"content-length:")
    return len(head) + 4 + int(rest.split(b"\r\n", 1)[0]) if found else None


async def connect(target: Target, address: str | None = None) -> Connection:
    """An open connection, from `address` if it matters."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(target), target.host, target.port, local_addr=(address, 0) if address else None
    )
    return connection
