"""/v1/stream and /v1/streams: ask, come back, stop."""

from functools import partial
from typing import Annotated, Any

from litestar import Controller, HttpMethod, Request, delete, get, post, route
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from app.authentication import asker_or_operator, caller_of
from app.bodies import parse_stream_body
from app.clients import Client
from app.completion_chunks import CompletionChunks
from app.crowds import refuse_unread
from app.dependencies import service_of
from app.event_ids import seen
from app.headers import STREAM_HEADERS, answer_headers, listed
from app.named_events import NamedEvents, replay
from app.recollection import Recollection
from app.responses import Whole
from app.sse import EventStream
from app.threads import own_thread_id, thread_id_of
from domain.caching import parse_cache_control
from domain.errors import FieldError, InvalidRequest
from domain.lifecycle import Ask

Http = Request[Any, Any, Any]
OPENAI_FORM = "openai"
"""What `format` says for chat.completion.chunk events."""


_bodies = Recollection(parse_stream_body)


class StreamController(Controller):
    """Answers in named events."""

    tags = ("Streams",)

    @route("/v1/streams/{stream_id:str}", http_method=HttpMethod.OPTIONS, include_in_schema=False)
    async def allow(self) -> ASGIResponse:
        """Say which methods there are. The framework registers in the alphabet's order and lists only the first's."""
        return ASGIResponse(status_code=204, headers={"allow": "DELETE, GET, OPTIONS"})

    @post("/v1/stream", status_code=200)
    async def ask(self) -> ASGIApp:
        """Ask, and be answered in named events: status, chunk, and at last complete or error."""
        return _ask

    @get("/v1/streams/{stream_id:str}")
    async def join(  # noqa: PLR0917  # the framework passes by name
        self,
        request: Http,
        stream_id: FromPath[str],
        last_event_id: FromQuery[str | None] = None,
        last_event_id_header: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
        format: FromQuery[str | None] = None,  # noqa: A002  # the contract's name
        include_usage: FromQuery[bool] = False,  # noqa: FBT002  # a query has no keywords
    ) -> ASGIApp:
        """Join a stream from its start, or rejoin it after the event that was seen last."""
        service = service_of(request.scope)
        caller = await caller_of(request.scope, service)
        _check_form(format)
        after = seen(last_event_id_header or last_event_id)
        is_given = own_thread_id(request.scope) is not None
        thread_id = thread_id_of(request.scope)
        present = partial(Client, request.receive)
        answer = await service.lifecycle.join(stream_id, caller, thread_id, after, is_given=is_given, present=present)
        request.scope["state"]["thread_id"] = answer.thread_id
        if answer.has_nothing_left:
            answer.close()
            headers = [(name.decode(), value.decode()) for name, value in answer_headers(answer)]
            return ASGIResponse(status_code=204, headers=headers)
        view = CompletionChunks(answer, has_usage=include_usage) if format else NamedEvents(answer)
        return EventStream(answer, view, service.policy.heartbeat_s)

    @delete("/v1/streams/{stream_id:str}", status_code=204)
    async def stop(self, request: Http, stream_id: FromPath[str]) -> None:
        """Stop a stream: the provider's call is ended, and every reader is told that it was cancelled."""
        service = service_of(request.scope)
        caller = await asker_or_operator(request, service)
        own_thread_id(request.scope)
        await service.lifecycle.stop(stream_id, caller)


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
                thread_id=thread_id_of(scope, body.thread_id),
                directives=directives,
                session_id=body.session_id,
                present=partial(Client, receive),
            )
        )
    response = (
        Whole(answer, replay(answer), STREAM_HEADERS)
        if answer.cache.is_hit
        else EventStream(answer, NamedEvents(answer), policy.heartbeat_s)
    )
    await response(scope, receive, send)


def _check_form(form: str | None) -> None:
    if form not in {None, OPENAI_FORM}:
        raise InvalidRequest(FieldError("format", f"{form!r}: {OPENAI_FORM} is the only form that has to be asked for"))
