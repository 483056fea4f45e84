"""The outermost layer: a thread id for every exchange, and one event when it is over."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.authentication import address_of
from app.connections import Connections
from app.entrance import IN_A_CROWD, Entrance
from app.responses import RESPONSE, Response
from app.threads import begin_thread
from domain.addresses import Network
from domain.events import ExchangeEnded, Publish

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """An ASGI application around `app`."""

    def __init__(
        self,
        app: ASGIApp,
        publish: Publish,
        connections: Connections,
        *,
        trusted: tuple[Network, ...] = (),
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._app = app
        self._publish = publish
        self._connections = connections
        self._trusted = trusted
        self._clock = clock
        self._entrance = Entrance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange; every response carries a thread id."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        host, port = scope["client"] or ("", 0)
        client = (host, int(port))  # Granian gives it as text
        self._connections.began(client)
        try:
            await self._exchange(scope, receive, send)
        finally:
            self._connections.ended(client)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s, status, method = self._clock(), 500, str(scope.get("method"))
        begin_thread(scope)
        if turn := self._entrance.pass_by(lambda: address_of(scope, self._trusted)):
            await turn
            scope["state"][IN_A_CROWD] = True

        async def send_with_thread(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-thread-id", scope["state"]["thread_id"].encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_thread)
            response: Response | None = scope["state"].pop(RESPONSE, None)
            if response is not None:
                _let_go(scope)
                await response.send(receive, send_with_thread)
        finally:
            self._publish(
                ExchangeEnded(
                    thread_id=scope["state"]["thread_id"],
                    method=method if method in _METHODS else "OTHER",
                    endpoint=scope.get("path_template") or "unmatched",
                    status=status,
                    duration_s=self._clock() - began_s,
                )
            )


def _let_go(scope: Scope) -> None:
    """The scope has what is needed at the end: headers and what the framework has noted would stay for minutes."""
    noted: Any = scope
    needed = {"state": {"thread_id": noted["state"]["thread_id"]}, "path_template": noted.get("path_template")}
    noted.clear()
    noted.update(needed)
