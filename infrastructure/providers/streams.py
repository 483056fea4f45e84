"""Reads a provider's stream to its end, and tells a whole answer from one that was cut."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

import aiohttp
import httpx2
import msgspec

from domain.chat import Chunk
from domain.errors import ProviderError, ProviderUnavailable, RouteUnfit
from infrastructure.providers.sse import EventParser

SETTLE_S = 0.02

BREAKS = (httpx2.HTTPError, aiohttp.ClientError, OSError)
"""What reading a body can end with: aiohttp's errors, and the names that the transport of an SDK gives them."""

_WRONG = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)


class Reader(Protocol):
    """Knows one provider's events. `has_ended` is true after its end mark, if it has one."""

    has_ended: bool

    def read(self, event: bytes) -> Iterable[Chunk]:
        """The chunks of one event, which is not blank and has no blanks around it.

        Raises:
            ProviderError: the event says that the provider has failed or refuses.
            msgspec.MsgspecError, TypeError, ValueError, RecursionError: it is not of the expected shape.
        """
        ...


async def read_stream(body: AsyncIterator[bytes], reader: Reader, choice_count: int) -> AsyncGenerator[Chunk]:
    """The chunks of `body`, up to the reader's end mark or the body's end.

    Raises:
        ProviderUnavailable: it ended or broke off before the answer was whole, or is malformed.
        RouteUnfit: it is whole, but for choices that were asked for and not begun.
    """
    answer = _Answer(reader, choice_count)
    try:
        async for data in body:
            for chunk in answer.feed(data):
                yield chunk
            if reader.has_ended:
                break
    except BREAKS as error:
        if answer.is_whole:
            return
        raise ProviderUnavailable("broke off the stream") from error
    for chunk in answer.close():
        yield chunk
    if not answer.is_whole:
        raise answer.shortcoming()


async def settle(body: AsyncIterator[bytes]) -> None:
    """The end of `body` is read, if it comes within SETTLE_S: only then can its connection serve the next call.

    The answer is whole before; what is spared is a new connection, TLS and all, before the next first token.
    """
    with suppress(TimeoutError, *BREAKS):
        async with asyncio.timeout(SETTLE_S):
            async for _ in body:
                pass


class _Answer:
    """What has been said so far. Does no I/O."""

    __slots__ = ("_begun", "_choice_count", "_finished", "_parser", "_reader")

    def __init__(self, reader: Reader, choice_count: int) -> None:
        self._reader = reader
        self._parser = EventParser()
        self._choice_count = choice_count
        self._begun: set[int] = set()
        self._finished: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether all choices that were asked for, and all that were begun, have finished.

        An end mark stands for no finish reason: proxies send it too when the server behind them has broken off.
        """
        return self._begun == self._finished and len(self._finished) >= self._choice_count

    def shortcoming(self) -> ProviderError:
        """Why an answer that has ended is not whole."""
        count = len(self._finished)
        if count and self._begun == self._finished:
            return RouteUnfit(f"gave {count} of {self._choice_count} choices")
        return ProviderUnavailable("ended without a finish reason")

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that `data` completes; those before a malformed event still come."""
        try:
            events = self._parser.feed(data)
        except ValueError as error:
            raise ProviderUnavailable("sent a malformed event") from error
        return self._chunks(events)

    def close(self) -> Iterator[Chunk]:
        """The chunks of an event that was whole but for its last line's end."""
        return self._chunks(self._parser.close())

    def _chunks(self, events: Iterable[bytes]) -> Iterator[Chunk]:
        for event in map(bytes.strip, events):
            if self._reader.has_ended:
                return
            for chunk in self._decoded(event) if event else ():
                self._count(chunk)
                yield chunk

    def _count(self, chunk: Chunk) -> None:
        if chunk.is_answer:
            self._begun.add(chunk.index)
        if chunk.content and self._finished:
            self._finished -= {chunk.index}
        if chunk.finish_reason is not None:
            self._finished |= {chunk.index}

    def _decoded(self, event: bytes) -> Iterable[Chunk]:
        try:
            return self._reader.read(event)
        except _WRONG as error:
            raise ProviderUnavailable("sent a malformed event") from error
