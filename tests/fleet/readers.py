"""Clients that come back: when their connection ends early or is silent for long, they go on at the next instance."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import aiohttp

from infrastructure.simulator.answers import answer_tokens
from tests.app.asking import MODEL, STREAM, of_type, text
from tests.sse_parser import Event, EventParser

SILENCE_S = 3.0
LIMIT_S = 45.0
_numbers = count()


def question() -> str:
    """A question that nobody has asked before."""
    return f"What does fleet {next(_numbers)} do?"


class Wrong(Exception):
    """The service has answered what it must not answer."""


@dataclass
class Reader:
    """Reads the answer to `query`, first at `instances[at]`. `ends` are how its connections ended."""

    session: aiohttp.ClientSession
    instances: list
    at: int
    query: str = field(default_factory=question)
    silence_s: float = SILENCE_S
    stream_id: str = ""
    cache: str = ""
    events: list[Event] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether all has been read."""
        return bool(self.events) and self.events[-1].type in {"complete", "error"}

    async def run(self) -> "Reader":
        """Read to the end, however often it takes."""
        async with asyncio.timeout(LIMIT_S):
            while not self.has_ended:
                try:
                    await self._read_on()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self.ends.append(repr(error))
                    await self._turn()
        return self

    async def _turn(self) -> None:
        """Go to the next instance that lives, but not at once to the same."""
        for _ in self.instances:
            self.at = (self.at + 1) % len(self.instances)
            if self.instances[self.at].is_alive:
                break
        await asyncio.sleep(0.05)

    async def _read_on(self) -> None:
        url, parser = self.instances[self.at].url, EventParser()
        headers = {"Last-Event-ID": self.events[-1].last_event_id} if self.events else {}
        if self.stream_id:
            request = self.session.get(f"{url}/v1/streams/{self.stream_id}", headers=headers)
        else:
            request = self.session.post(url + STREAM, json={"model": MODEL, "query": self.query})
        async with request as response:
            if response.status == 503 and '"stream_unavailable"' in await response.text():
                raise aiohttp.ClientPayloadError("not all of it is here yet")
            if response.status != 200:
                raise Wrong(response.status, await response.text(), self.ends, self.stream_id, headers)
            self.stream_id = response.headers["x-stream-id"]
            self.cache = self.cache or response.headers["x-cache"]
            while data := await asyncio.wait_for(response.content.readany(), self.silence_s):
                self.events += [item for item in parser.feed(data) if isinstance(item, Event)]
                if len(of_type(self.events, "chunk")) >= 2:
                    self.begun.set()

    def check(self, tokens: int) -> None:
        """Every event came once, in order, and the text is whole.

        Raises:
            AssertionError: it did not, or is not.
        """
        told = (self.query, self.ends, [event.data for event in self.events if event.type != "chunk"])
        assert [event.number for event in self.events] == list(range(len(self.events))), told
        assert self.events[-1].type == "complete", told
        assert text(self.events) == "".join(answer_tokens(self.query, tokens)), told
        chunks = [event.json["chunk_index"] for event in of_type(self.events, "chunk")]
        assert chunks == list(range(1, len(chunks) + 1)), told


@asynccontextmanager
async def session():
    """Connections for any number of readers; nothing is reused, so that what is gone is gone."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S, sock_connect=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as each:
        yield each


@asynccontextmanager
async def reading(instances, number, *, followers=0, **how):
    """So many readers under way, spread over the instances, each with a question of its own.

    The first of them have a follower each, who asks the same at the next instance.
    """
    async with session() as each:
        readers = [Reader(each, instances, at % len(instances), **how) for at in range(number)]
        async with asyncio.TaskGroup() as group, asyncio.timeout(LIMIT_S) as limit:
            await _begin(group, readers)
            readers += [
                Reader(each, instances, (reader.at + 1) % len(instances), reader.query, **how)
                for reader in readers[:followers]
            ]
            await _begin(group, readers[number:])
            limit.reschedule(None)
            yield readers


async def _begin(group, readers):
    """Each of them is being answered."""
    for reader in readers:
        group.create_task(reader.run())
    for reader in readers:
        await reader.begun.wait()
