"""Server-sent events on the wire.

Source: WHATWG HTML, section 9.2 (server-sent events).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from litestar.types import Receive, Send

from app.clients import Client
from app.errors import ClientGone
from app.event_ids import fitting_nowhere, with_fork
from app.headers import STREAM_HEADERS, RawHeaders, answer_headers
from app.responses import Response
from domain.answer import Answer
from domain.chat import Chunk
from domain.errors import WeirError
from domain.generation import MAX_BATCH, Record, Sealed

HEARTBEAT = b":\n\n"


class View(Protocol):
    """One client's form of a generation's records, and of a failure that is in none of them."""

    def encode(self, records: Sequence[Record], first_number: int) -> bytes:
        """The events for `records`, of which the first is number `first_number`; may be empty."""
        ...

    def encode_failure(self, failure: WeirError, number: int) -> bytes:
        """The event that ends the stream at that number."""
        ...


class EventStream(Response):
    """Sends an answer's records as they come, and a comment after `heartbeat_s` of silence; then closes the answer.

    The framework's own streaming responses are not used: their cleanup does not finish when a client leaves.
    """

    __slots__ = ("_answer", "_heartbeat_s", "_view")

    def __init__(self, answer: Answer, view: View, heartbeat_s: float) -> None:
        self._answer = answer
        self._view = view
        self._heartbeat_s = heartbeat_s

    async def send(self, receive: Receive, send: Send) -> None:
        """All events have been sent, or the client is gone; the answer is closed."""
        try:
            async with Client(receive) as client:
                await send({"type": "http.response.start", "status": 200, "headers": self._headers()})
                await self._send_records(client.patient(send))
        except ClientGone:
            pass
        except Exception as defect:  # noqa: BLE001  # the framework would cut the stream, and its log not say why
            failure = self._answer.defect_found(defect)
            body = fitting_nowhere(self._view.encode_failure(failure, self._answer.reader.position))
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            self._answer.close()

    def _headers(self) -> RawHeaders:
        return STREAM_HEADERS + answer_headers(self._answer)

    async def _send_records(self, send: Send) -> None:
        reader, is_sealed, failure = self._answer.reader, False, self._answer.failure
        generation = self._answer.generation
        if failure is not None:
            body = fitting_nowhere(self._view.encode_failure(failure, reader.position))
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        while not is_sealed:
            number = reader.position
            records = await reader.read(self._heartbeat_s)
            is_sealed = bool(records) and type(records[-1]) is Sealed
            if is_sealed:
                await self._answer.kept()
            body = with_fork(self._view.encode(records, number), generation) if records else HEARTBEAT
            if body or is_sealed:
                await send({"type": "http.response.body", "body": body, "more_body": not is_sealed})
            if records:
                self._answer.served(records)
            if len(records) == MAX_BATCH:
                await asyncio.sleep(0)  # to a client that has left, sending does not wait: others must have their turn


async def wait_for_start(answer: Answer, receive: Receive, limit_s: float) -> None:
    """Return once the answer has a chunk or has ended, at the latest after `limit_s` seconds.

    Raises:
        ClientGone: the client has disconnected; the answer is closed.
    """
    async with _rewound(answer), Client(receive):
        try:
            async with asyncio.timeout(limit_s):
                while not any(isinstance(record, Chunk | Sealed) for record in await answer.reader.read(limit_s)):
                    pass
        except TimeoutError:
            pass


async def wait_for_end(answer: Answer, receive: Receive) -> Sealed:
    """Return the last record, once it is there.

    Raises:
        ClientGone: the client has disconnected; the answer is closed.
    """
    async with _rewound(answer), Client(receive):
        while (sealed := answer.generation.sealed) is None:
            await answer.reader.read(_A_LONG_TIME_S)
    return sealed


_A_LONG_TIME_S = 3600.0


@asynccontextmanager
async def _rewound(answer: Answer) -> AsyncGenerator[None]:
    """Read ahead inside; afterwards the reader stands where it stood, or the answer is closed."""
    position = answer.reader.position
    try:
        yield
    except BaseException:
        answer.close()
        raise
    answer.reader.position = position
