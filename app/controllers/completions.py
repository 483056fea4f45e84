"""OpenAI's routes: chat completions, and the list of models."""

from functools import partial
from typing import Any

from litestar import Controller, Request, post, route
from litestar.types import ASGIApp, Receive, Scope, Send

from app.authentication import caller_of
from app.bodies import include_usage, parse_completion_body
from app.clients import Client
from app.completion import completion
from app.completion_chunks import CompletionChunks, replay
from app.crowds import refuse_unread
from app.dependencies import HttpPolicy, service_of
from app.headers import COMPLETION_HEADERS, READ, STREAM_HEADERS, listed
from app.recollection import Recollection
from app.responses import Response, Whole
from app.sse import EventStream, wait_for_end, wait_for_start
from app.threads import thread_id_of
from domain.answer import Answer
from domain.caching import parse_cache_control
from domain.lifecycle import Ask, may_ask_for

Http = Request[Any, Any, Any]


_bodies = Recollection(parse_completion_body)


class CompletionController(Controller):
    """What an OpenAI SDK calls."""

    tags = ("OpenAI-compatible",)

    @post("/v1/chat/completions", status_code=200)
    async def ask(self) -> ASGIApp:
        """Create a chat completion, as a stream or whole."""
        return _ask

    @route("/v1/models", http_method=READ)
    async def models(self, request: Http) -> dict[str, Any]:
        """List the models of the catalogue that the caller may ask for."""
        service = service_of(request.scope)
        caller, policy = await caller_of(request.scope, service), service.policy
        return {"object": "list", "data": [_model(name, policy) for name in policy.models if may_ask_for(name, caller)]}


def _model(name: str, policy: HttpPolicy) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(policy.began_at_s), "owned_by": policy.models[name]}


async def _ask(scope: Scope, receive: Receive, send: Send) -> None:
    """The question in the body is answered. The framework need not make a request of it: 5 µs of a hit's."""
    service = service_of(scope)
    policy = service.policy
    caller = await caller_of(scope, service)
    refuse_unread(scope, service, caller)
    async with policy.bodies.json(scope, receive, caller.user) as raw:
        directives = parse_cache_control(listed(scope, b"cache-control"))
        body, chat = _bodies.read(raw, policy.max_query_chars, caller, directives)
        answer = await service.lifecycle.ask(
            Ask(
                request=chat,
                caller=caller,
                thread_id=thread_id_of(scope),
                directives=directives,
                present=partial(Client, receive),
            )
        )
    response = (
        await _stream(answer, receive, policy.heartbeat_s, has_usage=include_usage(body))
        if body.stream
        else await _whole(answer, receive)
    )
    await response(scope, receive, send)


async def _stream(answer: Answer, receive: Receive, heartbeat_s: float, *, has_usage: bool) -> Response:
    """The answer as chunks. A failure before the first one is an HTTP status, if it comes before a heartbeat is due."""
    if answer.cache.is_hit:
        return Whole(answer, (replay(answer, has_usage=has_usage),), STREAM_HEADERS)
    await wait_for_start(answer, receive, heartbeat_s)
    sealed = answer.generation.sealed
    if sealed and sealed.failure and not sealed.chunk_count:
        answer.close()
        raise sealed.failure
    return EventStream(answer, CompletionChunks(answer, has_usage=has_usage), heartbeat_s)


async def _whole(answer: Answer, receive: Receive) -> Response:
    """The answer as one object, once it is whole; half an answer is an error."""
    sealed = await wait_for_end(answer, receive)
    if sealed.failure:
        answer.close()
        raise sealed.failure
    return Whole(answer, (completion(answer.generation),), COMPLETION_HEADERS)
