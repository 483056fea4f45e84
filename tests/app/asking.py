"""A client of the service: asks, and reads what comes as the standard says."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp

from tests.sse_parser import Comment, Event, EventParser

STREAM = "/v1/stream"
CHAT = "/v1/chat/completions"
MODEL = "gpt-4o-mini"
_questions = count()


def question() -> str:
    """A question that nobody has asked before."""
    return f"What is weir number {next(_questions)}?"


def body_for(path: str, query: str | None = None, **fields: Any) -> dict[str, Any]:
    """The body that asks `query`, or something new, on `path`; on OpenAI's route a stream."""
    query = query or question()
    if path == STREAM:
        return {"model": MODEL, "query": query, **fields}
    return {"model": MODEL, "messages": [{"role": "user", "content": query}], "stream": True, **fields}


@dataclass(kw_only=True)
class Stream:
    """A response under way: what has been read of it is in `seen` and `raw`."""

    response: aiohttp.ClientResponse
    raw: bytearray = field(default_factory=bytearray)
    seen: list[Event | Comment] = field(default_factory=list)
    _parser: EventParser = field(default_factory=EventParser)

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self):
        return self.response.headers

    @property
    def stream_id(self) -> str:
        return self.headers["x-stream-id"]

    @property
    def events(self) -> list[Event]:
        return [item for item in self.seen if isinstance(item, Event)]

    @property
    def comments(self) -> list[Comment]:
        return [item for item in self.seen if isinstance(item, Comment)]

    async def until(self, condition) -> Event | Comment:
        """Read until something is there of which `condition` is true; return it."""
        looked_at = 0
        while True:
            for item in self.seen[looked_at:]:
                if condition(item):
                    return item
            looked_at = len(self.seen)
            data = await self.response.content.readany()
            assert data, f"ended: {bytes(self.raw)}"
            self._take(data)

    async def event(self, kind: str) -> Event:
        """Read until there is an event of that type; return it."""
        return await self.until(lambda item: isinstance(item, Event) and item.type == kind)

    async def chunks(self, number: int) -> None:
        """Read until so many chunks are there."""
        await self.until(lambda _: len(of_type(self.events, "chunk")) >= number)

    async def all(self) -> "Stream":
        """Read to the end."""
        while data := await self.response.content.readany():
            self._take(data)
        return self

    def json(self) -> Any:
        """What was read, decoded."""
        return json.loads(self.raw)

    def _take(self, data: bytes) -> None:
        self.raw += data
        self.seen += self._parser.feed(data)


class Client:
    """Asks the service at `url`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    @asynccontextmanager
    async def request(self, method: str, path: str, **options: Any):
        """A response whose headers are there; leaving the context closes the connection if it has not ended."""
        async with self._session.request(method, self.url + path, **options) as response:
            yield Stream(response=response)

    def open(self, path: str, query: str | None = None, headers: dict[str, str] | None = None, **fields: Any):
        """Ask `query`, or something new, on `path`."""
        return self.request("POST", path, json=body_for(path, query, **fields), headers=headers or {})

    async def ask(self, path: str, query: str | None = None, headers: dict[str, str] | None = None, **fields: Any):
        """The whole response."""
        async with self.open(path, query, headers, **fields) as stream:
            return await stream.all()

    async def send(self, method: str, path: str, **options: Any) -> Stream:
        """The whole response to any request."""
        async with self.request(method, path, **options) as stream:
            return await stream.all()


@asynccontextmanager
async def connected(url: str, address: str = "127.0.0.1"):
    """A client at `address` with as many connections as it wants; they are closed with the context."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True, local_addr=(address, 0))
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Client(url, session)


def of_type(events: list[Event], kind: str) -> list[Event]:
    """Those of that type."""
    return [event for event in events if event.type == kind]


def statuses(events: list[Event]) -> list[str]:
    """What the status events say, in order."""
    return [event.json["status"] for event in of_type(events, "status")]


def text(events: list[Event]) -> str:
    """The answer, in either form."""
    return "".join(_content(event) for event in events)


def _content(event: Event) -> str:
    if event.type == "chunk":
        return event.json["content"]
    if event.type == "message" and event.data != "[DONE]":
        choices = event.json.get("choices") or [{}]
        return choices[0].get("delta", {}).get("content") or ""
    return ""
