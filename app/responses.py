"""Responses that are sent as they stand: the framework's own build and copy headers, a third of the cost of a hit."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

from litestar.types import Receive, Scope, Send

from app.clients import Client
from app.errors import ClientGone
from app.event_ids import with_fork
from app.headers import RawHeaders, answer_headers
from domain.answer import Answer

PIECE_BYTES = 65_536
"""What the server may hold for a client that does not read."""


RESPONSE = "response"
"""Where in a scope's state the response stands that is to be sent."""


class Response(ABC):
    """A response that the edge sends when the framework is done with the request.

    Sent from within the framework it would take twice the calls, and 4 KB a stream while it lasts.
    """

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's three
        """The edge will send this."""
        scope["state"][RESPONSE] = self

    @abstractmethod
    async def send(self, receive: Receive, send: Send) -> None:
        """All has been sent, or the client is gone."""


class Whole(Response):
    """An answer that is all there, as one body with its length; the answer is closed when it has been sent.

    `parts` may be shared with other responses: a large body is never put together, but sent in pieces, as it is read.
    """

    __slots__ = ("_answer", "_headers", "_length", "_parts")

    def __init__(self, answer: Answer, parts: Sequence[bytes], headers: RawHeaders) -> None:
        if answer.generation.has_forked:
            parts = [with_fork(part, answer.generation) for part in parts]
        self._answer = answer
        self._parts = parts
        self._length = sum(map(len, parts))
        self._headers = [*headers, *answer_headers(answer), (b"content-length", b"%d" % self._length)]

    async def send(self, receive: Receive, send: Send) -> None:
        """The body has been sent, or the client is gone."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            if self._length <= PIECE_BYTES:
                await send({"type": "http.response.body", "body": b"".join(self._parts), "more_body": False})
            else:
                await self._send_in_pieces(receive, send)
            self._answer.served_whole()
        except ClientGone:
            pass
        finally:
            self._answer.close()

    async def _send_in_pieces(self, receive: Receive, send: Send) -> None:
        """Send as fast as the client reads."""
        async with Client(receive) as client:
            send = client.patient(send)
            for part in self._parts:
                for start in range(0, len(part), PIECE_BYTES):
                    piece = part[start : start + PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await asyncio.sleep(0)  # to a client that has left, sending does not wait
            await send({"type": "http.response.body", "body": b"", "more_body": False})
