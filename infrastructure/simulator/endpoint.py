"""The HTTP side of one simulated provider: from a request to its answer, its refusal or its failure."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from infrastructure.simulator.behaviour import Behaviour, Fault, WrongBehaviour, named_behaviour
from infrastructure.simulator.completion import Answer, Ask, answer
from infrastructure.simulator.counters import Board
from infrastructure.simulator.dialect import Dialect, Refusal, Refused
from infrastructure.simulator.listener import Listener
from infrastructure.simulator.schedule import Schedule
from infrastructure.simulator.script import Script, chunked, stage
from infrastructure.simulator.streaming import ConnectionBroken, murmur, play, reset, silence

_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_SECRET_HEADERS = ("authorization", "x-goog-api-key")
_KEPT_HEADERS = ("user-agent", "accept", "content-type", "x-stainless-retry-count", "idempotency-key", "traceparent")


@dataclass(slots=True)
class _Outcome:
    """How a call that reached its end is counted."""

    is_fault: bool = False


class Endpoint:
    """Answers a provider's requests in its dialect, as the schedule and the model name say."""

    def __init__(self, dialect: Dialect, board: Board, schedule: Schedule, listeners: Mapping[str, Listener]) -> None:
        self._dialect = dialect
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

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_key(request)
        except Refused as refused:
            return self._refusal(refused.refusal)
        return web.json_response(self._dialect.models(), headers=self._dialect.headers())

    async def _nowhere(self, request: web.Request) -> web.StreamResponse:
        return self._refusal(self._dialect.wrong_path(request.method, request.path))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            with self._counted() as outcome:
                return await self._answer(request, outcome)
        except Refused as refused:
            return self._refusal(refused.refusal)
        except ConnectionBroken:
            await silence()

    @contextmanager
    def _counted(self) -> Iterator[_Outcome]:
        counters = self._board.counters[self._dialect.profile.name]
        counters.calls += 1
        counters.live += 1
        self._board.changed()
        outcome, ending = _Outcome(), "finished"
        try:
            yield outcome
            ending = "faults" if outcome.is_fault else "finished"
        except (asyncio.CancelledError, ConnectionError):
            ending = "closed_by_client" if self._listeners[self._dialect.profile.name].is_on else "faults"
            raise
        except (Refused, ConnectionBroken):
            ending = "faults"
            raise
        finally:
            counters.live -= 1
            setattr(counters, ending, getattr(counters, ending) + 1)
            self._board.changed()

    async def _answer(self, request: web.Request, outcome: _Outcome) -> web.StreamResponse:
        ask, behaviour = await self._understood(request)
        outcome.is_fault = behaviour.fault is not None
        await self._fail_before_answering(request, ask, behaviour)
        said = answer(ask, behaviour)
        if ask.stream:
            return await self._stream(request, behaviour, self._dialect.streamed(ask, said))
        return await self._whole(request, behaviour, ask, said)

    async def _understood(self, request: web.Request) -> tuple[Ask, Behaviour]:
        body = await self._body(request)
        self._check_key(request)
        if not isinstance(body, dict):
            raise Refused(self._dialect.wrong_request("We could not parse the JSON body of your request."))
        ask = self._dialect.ask(request.match_info, body)
        if ask.model.startswith("no-such"):
            raise Refused(self._dialect.unknown_model(ask.model))
        return ask, self._behaviour(ask.model)

    async def _body(self, request: web.Request) -> Any:
        """Return the JSON sent, None where it is none, and keep it for `GET /calls`."""
        raw = await request.read()
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            body = None
        headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
        headers |= {name: "[REDACTED]" for name in _SECRET_HEADERS if name in request.headers}
        self._board.calls[self._dialect.profile.name].append(
            {"path": request.path_qs, "headers": headers, "body": body}
        )
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
        return named or self._schedule.take(self._dialect.profile.name, model) or Behaviour()

    async def _fail_before_answering(self, request: web.Request, ask: Ask, behaviour: Behaviour) -> None:
        fault = behaviour.fault
        if fault is None:
            return
        if fault is Fault.SILENCE_HEADERS:
            await silence()
        if fault is Fault.ERROR_EVENT and not ask.stream:
            fault = Fault.SERVER_ERROR
        if fault is Fault.RESET or self._dialect.refusal(fault, ask.model, None):
            await asyncio.sleep(behaviour.queued_s + behaviour.ttft_s)
            self._refuse(fault, ask, behaviour.retry_after_s)
            reset(request)

    def _refuse(self, fault: Fault, ask: Ask, retry_after_s: float | None) -> None:
        """Raise the refusal that `fault` is; return where it is none."""
        refusal = self._dialect.refusal(fault, ask.model, retry_after_s)
        if refusal:
            raise Refused(refusal)

    async def _stream(self, request: web.Request, behaviour: Behaviour, script: Script) -> web.StreamResponse:
        response = _chunked(self._dialect.stream_headers())
        await self._queue(request, response, self._dialect.profile.stream_keepalive, behaviour)
        await response.prepare(request)
        await self._play(request, behaviour, script, ttft_s=behaviour.ttft_s, gap_s=behaviour.gap_s)
        await response.write_eof()
        return response

    async def _whole(self, request: web.Request, behaviour: Behaviour, ask: Ask, said: Answer) -> web.StreamResponse:
        response = _chunked(self._dialect.headers() | {"content-type": "application/json"})
        await self._queue(request, response, self._dialect.profile.body_keepalive, behaviour)
        await asyncio.sleep(behaviour.ttft_s + behaviour.gap_s * said.steps)
        await response.prepare(request)
        body = msgspec.json.encode(self._dialect.whole(ask, said))
        await self._play(request, behaviour, _halves(body, said.completion_tokens), ttft_s=0.0, gap_s=0.0)
        await response.write_eof()
        return response

    async def _queue(
        self, request: web.Request, response: web.StreamResponse, keepalive: bytes | None, behaviour: Behaviour
    ) -> None:
        """Let the request wait: silently before the headers, or behind them with signs of life."""
        if behaviour.queued_s and keepalive:
            await response.prepare(request)
            await murmur(response, keepalive, behaviour.queued_s, behaviour.keepalive_s)
        elif behaviour.queued_s:
            await asyncio.sleep(behaviour.queued_s)

    async def _play(
        self, request: web.Request, behaviour: Behaviour, script: Script, *, ttft_s: float, gap_s: float
    ) -> None:
        on_step = partial(self._sent, self._dialect.profile.name, script.tokens_per_step)
        await play(stage(script, behaviour), request, ttft_s=ttft_s, gap_s=gap_s, on_step=on_step)

    def _sent(self, provider: str, tokens: int) -> None:
        self._board.counters[provider].tokens += tokens
        self._board.changed()

    def _refusal(self, refusal: Refusal) -> web.Response:
        headers = {**self._dialect.headers(), **refusal.headers, "content-type": refusal.content_type}
        return web.Response(status=refusal.status, body=refusal.body, headers=headers)


def _chunked(headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    return response


def _halves(body: bytes, tokens: int) -> Script:
    """Return a body that is not a stream as a script of one step, so that the faults of streams can happen in it."""
    middle = len(body) // 2
    broken = chunked(b'{"broken":')
    return Script(
        opening=b"",
        steps=iter((chunked(body[:middle]),)),
        count=1,
        closing=chunked(body[middle:]),
        malformed=broken,
        error_event=b"",
        tokens_per_step=tokens,
    )
