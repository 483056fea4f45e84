"""One answer, or what goes wrong with it, on the connection that asked."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from aiohttp import web

from infrastructure.simulator.behaviour import Behaviour, Fault
from infrastructure.simulator.completion import Ask, answer
from infrastructure.simulator.dialect import Dialect, Refused
from infrastructure.simulator.script import Script, chunked, stage
from infrastructure.simulator.streaming import murmur, play, reset, silence

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
    if ask.stream:
        return await _stream(request, dialect, ask, behaviour, on_tokens)
    return await _whole(request, dialect, ask, behaviour, on_tokens)


async def _fail_before_answering(request: web.Request, dialect: Dialect, ask: Ask, behaviour: Behaviour) -> None:
    fault = behaviour.fault
    if fault is Fault.SILENCE_HEADERS:
        await silence()
    if fault is Fault.ERROR_EVENT and not ask.stream:
        fault = Fault.SERVER_ERROR
    refusal = dialect.refusal(fault, ask.model, behaviour.retry_after_s) if fault else None
    if refusal or fault is Fault.RESET:
        await asyncio.sleep(behaviour.queued_s + behaviour.ttft_s)
    if refusal:
        raise Refused(refusal)
    if fault is Fault.RESET:
        reset(request)


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
