"""The HTTP side of one simulated provider: who may ask, what is asked, how it is counted."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from infrastructure.simulator.beginnings import Continuing
from infrastructure.simulator.behaviour import Behaviour, WrongBehaviour, named_behaviour
from infrastructure.simulator.completion import Ask
from infrastructure.simulator.counters import Board, Counters
from infrastructure.simulator.dialect import Dialect, Refusal, Refused
from infrastructure.simulator.listener import Listener
from infrastructure.simulator.performance import perform
from infrastructure.simulator.schedule import Schedule
from infrastructure.simulator.streaming import ConnectionBroken, silence

_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_SECRET_HEADERS = ("authorization", "x-goog-api-key")
_KEPT_HEADERS = ("user-agent", "accept", "content-type", "x-stainless-retry-count", "idempotency-key", "traceparent")


class Endpoint:
    """Answers a provider's requests in its dialect, as the schedule and the model name say."""

    def __init__(self, dialect: Dialect, board: Board, schedule: Schedule, listeners: Mapping[str, Listener]) -> None:
        self._dialect = dialect
        self._name = dialect.profile.name
        self._board = board
        self._schedule = schedule
        self._listeners = listeners

    def app(self) -> web.Application:
        """Return the provider's web application."""
        app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
        for path in self._dialect.profile.completion_paths:
            app.router.add_post(path, self._complete)
        for path in self._dialect.profile.model_paths:
            app.router.add_get(path, self._models)
        app.router.add_route("*", "/{anywhere:.*}", self._nowhere)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            with self._counted() as call:
                ask, behaviour = await self._understood(request)
                call.is_fault = behaviour.fault is not None
                return await perform(request, self._dialect, ask, behaviour, call.sent)
        except Refused as refused:
            return self._refusal(refused.refusal)
        except (ConnectionBroken, ConnectionError):
            await silence()  # nobody is there any more: the cancellation that says so is on its way

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_key(request)
        except Refused as refused:
            return self._refusal(refused.refusal)
        return web.json_response(self._dialect.models(), headers=self._dialect.headers())

    async def _nowhere(self, request: web.Request) -> web.StreamResponse:
        return self._refusal(self._dialect.wrong_path(request.method, request.path))

    @contextmanager
    def _counted(self) -> Iterator["_Call"]:
        """Count a call as live, then as what became of it: leaving by a return is a whole answer, or a fault played."""
        call, ending = _Call(self._board, self._board.counters[self._name]), "faults"
        call.begin()
        try:
            yield call
            ending = "faults" if call.is_fault else "finished"
        except (asyncio.CancelledError, ConnectionError):
            ending = "closed_by_client" if self._listeners[self._name].is_on else "faults"
            raise
        finally:
            call.end(ending)

    async def _understood(self, request: web.Request) -> tuple[Ask, Behaviour]:
        body = await self._body(request)
        self._check_key(request)
        if not isinstance(body, dict):
            raise Refused(self._dialect.wrong_request("We could not parse the JSON body of your request."))
        ask = self._dialect.ask(request.match_info, body)
        if ask.model.startswith("no-such"):
            raise Refused(self._dialect.unknown_model(ask.model))
        behaviour = self._behaviour(ask.model)
        if ask.begun.is_prefilled and behaviour.continues is Continuing.REFUSED:
            raise Refused(self._dialect.wrong_request("Requests ending with a model turn are not supported."))
        if ask.begun.is_prefilled and behaviour.continues is Continuing.NOWHERE:
            raise Refused(self._dialect.wrong_path(request.method, request.path))
        return ask, behaviour

    async def _body(self, request: web.Request) -> Any:
        """Return the JSON sent, None where it is none, and keep it for `GET /calls`."""
        raw = await request.read()
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            body = None
        headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
        headers |= {name: "[REDACTED]" for name in _SECRET_HEADERS if name in request.headers}
        self._board.calls[self._name].append({"path": request.path_qs, "headers": headers, "body": body})
        return body

    def _check_key(self, request: web.Request) -> None:
        key = self._dialect.key(request.headers)
        if not key or key.startswith("bad"):
            raise Refused(self._dialect.wrong_key(key))

    def _behaviour(self, model: str) -> Behaviour:
        try:
            named = named_behaviour(model)
        except WrongBehaviour as wrong:
            raise Refused(self._dialect.wrong_request(f"Invalid model name '{model}': {wrong}.", "model")) from wrong
        return named or self._schedule.take(self._name, model) or Behaviour()

    def _refusal(self, refusal: Refusal) -> web.Response:
        headers = {**self._dialect.headers(), **refusal.headers, "content-type": refusal.content_type}
        return web.Response(status=refusal.status, body=refusal.body, headers=headers)


@dataclass(slots=True)
class _Call:
    """One call on the counters that were current when it began; a reset leaves it behind with them."""

    board: Board
    counters: Counters
    is_fault: bool = False

    def begin(self) -> None:
        self.counters.calls += 1
        self.counters.live += 1
        self.board.changed()

    def sent(self, tokens: int) -> None:
        self.counters.tokens += tokens
        self.board.changed()

    def end(self, ending: str) -> None:
        self.counters.live -= 1
        setattr(self.counters, ending, getattr(self.counters, ending) + 1)
        self.board.changed()
