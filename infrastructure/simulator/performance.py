"""One answer, or what goes wrong with it, on the connection that asked."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http import HTTPStatus
from typing import NoReturn

import msgspec
from aiohttp import web

from infrastructure.simulator.behaviour import Behaviour, Clock, Fault
from infrastructure.simulator.completion import Ask, answer
from infrastructure.simulator.dialect import Dialect, Refusal, Refused
from infrastructure.simulator.script import Script, chunked, stage
from infrastructure.simulator.streaming import murmur, play, reset, silence

_LAST_DATE = "Fri, 31 Dec 9999 23:59:59 -0100"

OnTokens = Callable[[int], None]


async def perform(
    request: web.Request, dialect: Dialect, ask: Ask, behaviour: Behaviour, on_tokens: OnTokens
) -> web.StreamResponse:
    """Answer `request` as `behaviour` says; `on_tokens` is told how many tokens leave, as they leave.

    Raises:
        Refused: the behaviour is an error response.
        ConnectionBroken: the behaviour broke the connection.
    """
    if behaviour.headers_s:
        await asyncio.sleep(behaviour.headers_s)
    await _fail_before_answering(request, dialect, ask, behaviour)
    choices = ask.choices if behaviour.choices is None else min(ask.choices, behaviour.choices)
    ask = replace(ask, choices=choices, has_remarks=behaviour.remarks)
    if ask.stream:
        return await _stream(request, dialect, ask, behaviour, on_tokens)
    return await _whole(request, dialect, ask, behaviour, on_tokens)


async def _fail_before_answering(request: web.Request, dialect: Dialect, ask: Ask, behaviour: Behaviour) -> None:
    fault = behaviour.fault
    if fault is Fault.SILENCE_HEADERS:
        await silence()
    if fault is Fault.ERROR_EVENT and not ask.stream:
        fault = Fault.SERVER_ERROR
    refusal = _refusal(dialect, fault, ask.model, behaviour) if fault else None
    if refusal or fault is Fault.RESET:
        await asyncio.sleep(behaviour.queued_s + behaviour.ttft_s)
    if refusal:
        raise Refused(refusal)
    if fault is Fault.RESET:
        reset(request)
    if fault is Fault.ENDLESS_ERROR:
        await _fail_without_end(request, dialect)


def _refusal(dialect: Dialect, fault: Fault, model: str, behaviour: Behaviour) -> Refusal | None:
    """The error that `fault` is; a date to come back at stands in the header that HTTP has for it."""
    if behaviour.retry_after_as is Clock.SECONDS:
        return dialect.refusal(fault, model, behaviour.retry_after_s)
    refusal = dialect.refusal(fault, model, None)
    date = _LAST_DATE if behaviour.retry_after_as is Clock.LAST_DATE else _date_in(behaviour.retry_after_s or 0.0)
    return refusal and replace(refusal, headers={**refusal.headers, "retry-after": date})


def _date_in(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


async def _fail_without_end(request: web.Request, dialect: Dialect) -> NoReturn:
    """Say in the headers that the request has failed, and never all of why."""
    response = web.StreamResponse(status=HTTPStatus.INTERNAL_SERVER_ERROR, headers=dialect.headers())
    response.content_type = "application/json"
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b'{"error": {"message": "The server had an error, and ')
    await silence()


async def _stream(
    request: web.Request, dialect: Dialect, ask: Ask, behaviour: Behaviour, on_tokens: OnTokens
) -> web.StreamResponse:
    script = dialect.streamed(ask, answer(ask, behaviour))
    response = _response(dialect.stream_headers())
    await _queue(request, response, dialect.profile.stream_keepalive, behaviour)
    await response.prepare(request)
    await _play(request, script, behaviour, on_tokens, ttft_s=behaviour.ttft_s, gap_s=behaviour.gap_s)
    await response.write_eof()
    return response


async def _whole(
    request: web.Request, dialect: Dialect, ask: Ask, behaviour: Behaviour, on_tokens: OnTokens
) -> web.StreamResponse:
    """Send the answer as one JSON body, once the last token would have been sent."""
    said = answer(ask, behaviour)
    script = _halves(msgspec.json.encode(dialect.whole(ask, said)), said.completion_tokens)
    response = _response(dialect.headers() | {"content-type": "application/json"})
    await _queue(request, response, dialect.profile.body_keepalive, behaviour)
    await asyncio.sleep(behaviour.ttft_s + behaviour.gap_s * said.steps)
    await response.prepare(request)
    await _play(request, script, behaviour, on_tokens, ttft_s=0.0, gap_s=0.0)
    await response.write_eof()
    return response


async def _queue(
    request: web.Request, response: web.StreamResponse, keepalive: bytes | None, behaviour: Behaviour
) -> None:
    """Let the request wait: silently before the headers, or behind them with signs of life."""
    if behaviour.queued_s and keepalive:
        await response.prepare(request)
        await murmur(response, keepalive, behaviour.queued_s, behaviour.keepalive_s)
    elif behaviour.queued_s:
        await asyncio.sleep(behaviour.queued_s)


async def _play(
    request: web.Request, script: Script, behaviour: Behaviour, on_tokens: OnTokens, *, ttft_s: float, gap_s: float
) -> None:
    on_steps = partial(_steps_to_tokens, on_tokens, script.tokens_per_step)
    await play(stage(script, behaviour), request, ttft_s=ttft_s, gap_s=gap_s, on_steps=on_steps)


def _steps_to_tokens(on_tokens: OnTokens, tokens_per_step: int, steps: int) -> None:
    on_tokens(tokens_per_step * steps)


def _response(headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    return response


def _halves(body: bytes, tokens: int) -> Script:
    """Return a body that is not a stream as a script of one step, so that the faults of streams can happen in it."""
    middle = len(body) // 2
    return Script(
        opening=b"",
        steps=iter((chunked(body[:middle]),)),
        count=1,
        closing=chunked(body[middle:]),
        malformed=chunked(b'{"broken":'),
        error_event=b"",
        tokens_per_step=tokens,
    )
