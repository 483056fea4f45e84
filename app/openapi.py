"""The OpenAPI document: routes as the framework knows them, and what only this module knows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from litestar import Request, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from app.errors import PROBLEM_JSON, STATUSES, encode_json
from app.openapi_components import (
    ANSWER_HEADERS,
    ERROR_HEADERS,
    HEADERS,
    PARAMETERS,
    QUOTA_HEADERS,
    SECURITY_SCHEMES,
    STREAM_HEADERS,
    Json,
    ref,
    schemas,
)

DESCRIPTION = """Weir stands between applications and the language-model providers they pay for, and streams answers \
over Server-Sent Events. What can be known before the first event is an HTTP status; after it, one `error` event ends \
the stream. Every response has `X-Thread-ID`, by which the log tells what happened."""

_EVENTS = """event: status
id: 0
data: {"status":"validated","thread_id":"abc-123","stream_id":"01M84RXTPMTZ6R6MDDZY2A8T00"}

event: status
id: 1
data: {"status":"selected","provider":"openai","model":"gpt-4o-mini"}

event: chunk
id: 2
data: {"content":"A river","chunk_index":1,"finish_reason":null}

"""
_QUESTION = "What is a weir?"
_NO_KEY_SET = ("not_found",)
"""The answer of operators' routes to everybody, while `WEIR_ADMIN_KEY` is not set."""
_UNPROCESSABLE = {"provider_rejected": (400, 422)}
"""Codes that have more than one status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the framework does not know of a route.

    `codes` are those of `app.errors.STATUSES` that it can answer, beside `internal`; `good` are its other responses.
    `body` is a schema's name, in `media_type`. With `needs_key` the operator's key is needed.
    """

    good: Mapping[int, Json]
    codes: Sequence[str] = ()
    parameters: Sequence[str] = ()
    body: str | None = None
    example: Any = None
    media_type: str = "application/json"
    is_openai: bool = False
    needs_body: bool = True
    needs_key: bool = False

    @property
    def is_asked(self) -> bool:
        """Whether it matters who asks."""
        return set(_ASKING) <= set(self.codes)


def _answer(description: str, headers: Sequence[str], **content: Json) -> Json:
    named = {name: ref("headers", name) for name in headers}
    return {"description": description, "headers": named} | ({"content": content} if content else {})


def _json(description: str, schema: str) -> Json:
    return _answer(description, ("X-Thread-ID",), **{"application/json": {"schema": ref("schemas", schema)}})


_STREAM: Json = {"text/event-stream": {"schema": ref("schemas", "Event"), "example": _EVENTS}}
_ASKING = ("invalid_request", "unauthorized", "keys_unavailable")
"""What comes of who asks, wherever that matters."""
_SLOTS = ("too_many_connections", "at_capacity")
_BODY = ("request_timeout", "request_too_large", *_SLOTS, "draining")
"""What comes of a body, wherever one is read."""
_BEGINNING = (
    *_ASKING,
    "forbidden",
    "unknown_model",
    *_BODY,
    "rate_limited",
    "all_providers_down",
    "not_cached",
)
_ENDING = ("provider_rejected", "upstream_timeout", "stream_interrupted", "cancelled")
_SESSION = (*_ASKING, "unknown_session", "session_unavailable")

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/v1/stream", "post"): Operation(
        good={200: _answer("The answer: status, chunk, and at last complete or error.", STREAM_HEADERS, **_STREAM)},
        codes=(*_BEGINNING, "unknown_session", "session_unavailable"),
        parameters=("thread", "cache_control"),
        body="StreamBody",
        example={"model": "gpt-4o-mini", "query": _QUESTION},
    ),
    ("/v1/streams/{stream_id}", "get"): Operation(
        good={
            200: _answer(
                "The stream from its start, or behind the event that was seen last.", STREAM_HEADERS, **_STREAM
            ),
            204: _answer("The end was seen already.", ANSWER_HEADERS),
        },
        codes=(*_ASKING, "forbidden", "unknown_stream", "stream_unavailable", *_SLOTS),
        parameters=("stream_id", "last_event_id", "last_event_id_header", "format", "include_usage", "thread"),
    ),
    ("/v1/streams/{stream_id}", "delete"): Operation(
        good={204: _answer("The stream has ended.", ("X-Thread-ID",))},
        codes=(*_ASKING, "unknown_stream", "stream_unavailable", "forbidden"),
        parameters=("stream_id", "thread"),
    ),
    ("/v1/chat/completions", "post"): Operation(
        good={
            200: _answer(
                "The answer: chat.completion.chunk events and [DONE] with `stream`, else one object.",
                (*ANSWER_HEADERS, "Cache-Control"),
                **_STREAM | {"application/json": {"schema": ref("schemas", "ChatCompletion")}},
            )
        },
        codes=(*_BEGINNING, *_ENDING),
        parameters=("thread", "cache_control"),
        body="CompletionBody",
        example={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": _QUESTION}], "stream": True},
        is_openai=True,
    ),
    ("/v1/models", "get"): Operation(
        good={200: _json("The models that the caller may ask for.", "Models")}, codes=_ASKING, is_openai=True
    ),
    ("/v1/sessions/{session_id}", "get"): Operation(
        good={200: _json("What is kept of the conversation.", "Session")},
        codes=_SESSION,
        parameters=("session_id", "thread"),
    ),
    ("/v1/sessions/{session_id}", "delete"): Operation(
        good={204: _answer("The conversation is forgotten.", ("X-Thread-ID",))},
        codes=_SESSION,
        parameters=("session_id", "thread"),
    ),
    ("/health", "get"): Operation(
        good={200: _json("All is well.", "Health"), 503: _json("No provider can be used.", "Health")}
    ),
    ("/health/live", "get"): Operation(good={200: _json("The process is up.", "Status")}),
    ("/health/ready", "get"): Operation(
        good={200: _json("Work may be sent.", "Status"), 503: _json("No provider can be used.", "Status")}
    ),
    ("/admin/cache/purge", "post"): Operation(
        good={200: _json("It is purged.", "Purged")},
        codes=(
            "invalid_request",
            "unauthorized",
            "unknown_model",
            *_NO_KEY_SET,
            *_BODY,
        ),
        body="PurgeBody",
        example={"model": "gpt-4o-mini"},
        needs_body=False,
        needs_key=True,
    ),
    ("/admin/cache/warm", "post"): Operation(
        good={200: _json("All have been asked.", "Warmed")},
        codes=("invalid_request", "unauthorized", *_NO_KEY_SET, *_BODY),
        body="Questions",
        example=f'{{"model":"gpt-4o-mini","query":"{_QUESTION}"}}\n',
        media_type="application/jsonl",
        needs_key=True,
    ),
    ("/admin/circuits", "get"): Operation(
        good={200: _json("All circuits.", "Circuits")},
        codes=("invalid_request", "unauthorized", *_NO_KEY_SET),
        needs_key=True,
    ),
    ("/admin/circuits/{provider}/reset", "post"): Operation(
        good={200: _json("The circuit as it is now.", "Circuit")},
        codes=("invalid_request", "unauthorized", "unknown_provider", *_NO_KEY_SET),
        parameters=("provider",),
        needs_key=True,
    ),
    ("/admin/audit", "get"): Operation(
        good={200: _json("What became of requests, the newest first.", "Audit")},
        codes=("invalid_request", "unauthorized", "audit_unavailable", *_NO_KEY_SET),
        parameters=("audit_limit", "audit_before"),
        needs_key=True,
    ),
    ("/metrics", "get"): Operation(
        good={200: _answer("All metrics.", ("X-Thread-ID",), **{"text/plain": {"schema": {"type": "string"}}})}
    ),
}


_KEYS: list[Json] = [{"bearer": []}, {"header": []}]


class CompleteDocument(JsonRenderPlugin):
    """Renders the framework's document with what is missing in it; put together at the first request."""

    def __init__(
        self, *, models: Sequence[str], providers: Sequence[str], max_query_chars: int, is_key_required: bool
    ) -> None:
        super().__init__()
        self._asking = _KEYS if is_key_required else [{}, *_KEYS]
        self._schemas = schemas(models, providers, max_query_chars)
        self._body: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002  # the framework's signature
        """The document in JSON."""
        if self._body is None:
            self._body = encode_json(complete(openapi_schema, self._schemas, self._asking))
        return self._body


def openapi_config(version: str, document: CompleteDocument) -> OpenAPIConfig:
    """The framework's part, told to describe operations by their docstrings and to answer 404 as we do."""

    async def after(response: Response[Any]) -> Response[Any]:
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise NotFoundException
        return response

    return OpenAPIConfig(
        title="Weir",
        version=version,
        description=DESCRIPTION,
        use_handler_docstrings=True,
        render_plugins=[document],
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, after_request=after),
    )


def complete(generated: Json, known_schemas: Mapping[str, Json], asking: Sequence[Json]) -> Json:
    """The framework's document, with parameters, bodies and responses of each operation, and their components.

    `asking` are the ways to say who asks.

    Raises:
        KeyError: a route has no entry in `OPERATIONS`.
    """
    paths = {
        path: {
            method: operation | _completion(OPERATIONS[path, method], asking)
            for method, operation in item.items()
            if method != "head"
        }
        for path, item in generated["paths"].items()
    }
    components = {
        "schemas": dict(known_schemas),
        "headers": HEADERS,
        "parameters": PARAMETERS,
        "securitySchemes": SECURITY_SCHEMES,
    }
    return generated | {"paths": paths, "components": components}


def _completion(operation: Operation, asking: Sequence[Json]) -> Json:
    completed: Json = {
        "parameters": [ref("parameters", name) for name in operation.parameters],
        "responses": {str(status): answer for status, answer in (_errors(operation) | dict(operation.good)).items()},
    }
    if operation.body:
        content = {"schema": ref("schemas", operation.body), "example": operation.example}
        completed["requestBody"] = {"required": operation.needs_body, "content": {operation.media_type: content}}
    if operation.needs_key:
        completed["security"] = [{"operator": []}]
    elif operation.is_asked:
        completed["security"] = asking
    return completed


def _errors(operation: Operation) -> dict[int, Json]:
    """A response for each status of the operation's codes, with the sentences that go with it."""
    titles: dict[int, list[str]] = {}
    for code in (*operation.codes, "internal"):
        for status in _UNPROCESSABLE.get(code, (STATUSES[code].status,)):
            titles.setdefault(status, []).append(f"`{code}`: {STATUSES[code].title}.")
    media_type, schema = ("application/json", "OpenAIError") if operation.is_openai else (PROBLEM_JSON, "Problem")
    content = {media_type: {"schema": ref("schemas", schema)}}
    return {
        status: _answer(" ".join(sentences), _error_headers(status), **content)
        for status, sentences in sorted(titles.items())
    }


_MORE_HEADERS: dict[int, Sequence[str]] = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate",),
    HTTPStatus.TOO_MANY_REQUESTS: QUOTA_HEADERS,
}


def _error_headers(status: int) -> Sequence[str]:
    return (*ERROR_HEADERS, *_MORE_HEADERS.get(status, ()))
