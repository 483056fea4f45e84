"""Hand-written stand-ins that keep the contracts of domain/ports.py and remember what happened to them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from enum import Enum, auto
from itertools import dropwhile
from typing import Literal

from domain.chat import ChatRequest, Chunk
from domain.errors import ProviderError, ProviderUnavailable
from domain.selection import Route


class Accepted(Enum):
    """The step that ends entering; a chunk does so too."""

    ACCEPTED = auto()


ACCEPTED: Literal[Accepted.ACCEPTED] = Accepted.ACCEPTED
Step = Chunk | ProviderError | asyncio.Event | Accepted


class ScriptedProvider:
    """Plays a script a call, the last one again and again: chunks to give, errors to raise, events to wait for.

    The errors and events before the first chunk, or before ACCEPTED, come on entering. `asked` is set by each call.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.scripts = scripts
        self.requests: list[ChatRequest] = []
        self.routes: list[Route] = []
        self.open_streams = 0
        self.entering = 0
        self.asked = asyncio.Event()
        self.is_closed = False

    @asynccontextmanager
    async def open(self, route: Route, request: ChatRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.routes.append(route)
        self.asked.set()
        await self._enter(script)
        self.open_streams += 1
        try:
            async with aclosing(_play(script, request.choice_count)) as chunks:
                yield chunks
        finally:
            self.open_streams -= 1

    async def check(self) -> None:
        for step in self.scripts[0]:
            if isinstance(step, ProviderError):
                raise step

    async def close(self) -> None:
        self.is_closed = True

    async def _enter(self, script: Sequence[Step]) -> None:
        self.entering += 1
        try:
            for step in script:
                if isinstance(step, Chunk | Accepted):
                    return
                await _suffer(step)
        finally:
            self.entering -= 1


async def _play(script: Sequence[Step], choice_count: int) -> AsyncIterator[Chunk]:
    finished = set()
    for step in dropwhile(lambda step: not isinstance(step, Chunk | Accepted), script):
        if isinstance(step, Chunk):
            if step.finish_reason is not None:
                finished.add(step.index)
            yield step
        elif step is not ACCEPTED:
            await _suffer(step)
    if len(finished) < choice_count:
        raise ProviderUnavailable("ended without a finish reason")


async def _suffer(step: ProviderError | asyncio.Event) -> None:
    if isinstance(step, ProviderError):
        raise step
    await step.wait()
