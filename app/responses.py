"""Responses that are sent as they stand: the framework's own build and copy headers, a third of the cost of a hit."""

from collections.abc import Mapping

from litestar.types import Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """`headers` as they go over the wire; their names are in lower case."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


class Ready:
    """A whole response as an ASGI application."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, body: bytes, headers: RawHeaders, status: int = 200) -> None:
        self._body = body
        self._headers = headers
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's three
        """The response has been sent, with its length."""
        headers = [*self._headers, (b"content-length", b"%d" % len(self._body))] if self._body else self._headers
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
