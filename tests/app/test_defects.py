"""A defect of ours in the middle of a stream: one clear error, and nobody goes on behind it as if all were there."""

import asyncio

import pytest

from app.named_events import NamedEvents
from app.sse import EventStream
from domain.chat import Chunk
from domain.events import DefectFound
from domain.generation import Seen
from tests.domain.service import ANN, STOP, Service
from tests.sse_parser import EventParser

pytestmark = pytest.mark.anyio


class Defective(NamedEvents):
    """What it is to say last it cannot."""

    def encode(self, records, first_number):
        """All but the chunk that says `y`.

        Raises:
            ZeroDivisionError: there it is.
        """
        if Chunk("y") in records:
            raise ZeroDivisionError("with a prompt in it")
        return super().encode(records, first_number)


async def test_who_comes_back_behind_a_defect_is_told_of_it_and_misses_nothing():
    """The error has no event's id: a browser comes back by itself, and would pass over what could not be said."""
    gate, sent = asyncio.Event(), []
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    answer = await service.ask()

    async def send(message):
        sent.append(message)
        gate.set()

    await EventStream(answer, Defective(answer), 60.0).send(asyncio.Event().wait, send)
    *_, error = EventParser().feed(b"".join(message.get("body", b"") for message in sent))
    zeros = len(error.last_event_id) - len(str(error.number))
    again = await service.lifecycle.join(answer.stream_id, ANN, "new", Seen(error.number, zeros))
    again.close()

    assert (error.type, error.json["code"], "prompt" in error.data) == ("error", "internal", False)
    assert [found.thread_id for found in service.events.of(DefectFound)] == ["t"]
    assert again.failure.code == "stream_interrupted"
