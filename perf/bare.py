"""What the service is compared with: `python -m perf.bare APPLICATION`, on Granian with the service's settings.

`answer` is a Litestar application that parses the same bodies and returns the same bytes, kept in files; `relay` is a
raw ASGI application that passes a provider's bytes on.
"""

import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels
from litestar import Litestar, Response, post

from app.bodies import CompletionBody, StreamBody

NAMED_EVENTS = "PERF_NAMED_EVENTS_FILE"
CHUNKS = "PERF_CHUNKS_FILE"
PROVIDER = "PERF_PROVIDER_URL"
_CONNECTIONS = 14096


def answer() -> Litestar:
    """The two routes, each with one answer."""
    named_events, chunks = (Path(os.environ[name]).read_bytes() for name in (NAMED_EVENTS, CHUNKS))

    @post("/v1/stream", status_code=200)
    async def stream(data: StreamBody) -> Response[bytes]:
        assert data.query
        return Response(named_events, media_type="text/event-stream")

    @post("/v1/chat/completions", status_code=200)
    async def complete(data: CompletionBody) -> Response[bytes]:
        assert data.messages
        return Response(chunks, media_type="text/event-stream")

    return Litestar([stream, complete], openapi_config=None, logging_config=None)


class Relay:
    """Posts each request's body to the provider, and sends on what comes, as it comes."""

    def __init__(self) -> None:
        self._url = os.environ[PROVIDER] + "/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One exchange."""
        if scope["type"] != "http":
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = (await receive())["body"]
        headers = {"authorization": "Bearer x", "content-type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            head = [(b"content-type", response.headers["content-type"].encode())]
            await send({"type": "http.response.start", "status": response.status, "headers": head})
            async for data in response.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def relay() -> Relay:
    """The relay."""
    return Relay()


def main() -> None:
    """Serve until SIGTERM, having said on stderr where."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    server = Granian(
        f"perf.bare:{sys.argv[1]}",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        backlog=_CONNECTIONS,
        backpressure=_CONNECTIONS,
        log_level=LogLevels.warning,
    )
    server.on_startup(lambda: print(f"bare: serving at http://127.0.0.1:{port}", file=sys.stderr, flush=True))
    server.serve()


if __name__ == "__main__":
    main()
