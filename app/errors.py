"""What goes wrong, as clients are told it: RFC 9457 problems, and OpenAI's error objects on its own routes."""

import math
import re
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from app.headers import quota_headers
from domain.errors import (
    FieldError,
    InvalidRequest,
    KeyRefused,
    RateLimited,
    RequestRefused,
    RequestRejected,
    Unauthorized,
    WeirError,
)

OPENAI_PATHS = ("/v1/chat/completions", "/v1/models")
_OPENAI_API = re.compile(r"(/v1)?/(chat/completions|completions|embeddings|models|responses)\b")
"""Where OpenAI's SDKs ask: also what is not here, and with a base URL that lacks /v1."""
PROBLEM_JSON = "application/problem+json"


class NotFound(RequestRefused):
    """There is nothing at this address."""

    code = "not_found"


class MethodNotAllowed(RequestRefused):
    """The address does not take this method."""

    code = "method_not_allowed"


class RequestTimeout(RequestRefused):
    """The body has not come whole in `limit_s`."""

    code = "request_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"The body has not come whole in {limit_s:g} s.")


class TooManyBodies(RequestRefused):
    """The bodies of one caller's requests that are under way would hold more than `share_bytes`."""

    code = "too_many_connections"

    def __init__(self, share_bytes: int) -> None:
        super().__init__(
            f"The bodies that this caller is sending have {share_bytes} bytes, which is all they may have."
        )
        self.retry_after_s = 1.0


class BodiesTakeAllMemory(RequestRefused):
    """The bodies of all requests that are under way hold as much as they may."""

    code = "at_capacity"

    def __init__(self) -> None:
        super().__init__("The bodies that are being sent to this instance take all the memory there is for them.")
        self.retry_after_s = 1.0


class Draining(RequestRefused):
    """The process is about to end, and takes no more work."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("This instance is about to end; ask again.")
        self.retry_after_s = 1.0


class ClientGone(Exception):
    """The client has left before its response began; nobody will read what is answered."""


class Status(NamedTuple):
    """How a code of the contract is answered; `kind` is OpenAI's `type` for it."""

    status: int
    title: str
    kind: str
    is_retryable: bool = False


STATUSES: dict[str, Status] = {
    "invalid_request": Status(400, "The request cannot be right", "invalid_request_error"),
    "provider_rejected": Status(400, "The provider refuses this request", "invalid_request_error"),
    "unauthorized": Status(401, "A key is needed, or another one", "authentication_error"),
    "forbidden": Status(403, "Not allowed for this caller", "permission_error"),
    "unknown_model": Status(404, "Unknown model", "invalid_request_error"),
    "unknown_stream": Status(404, "Unknown stream", "invalid_request_error"),
    "unknown_provider": Status(404, "Unknown provider", "invalid_request_error"),
    "unknown_session": Status(404, "Unknown session", "invalid_request_error"),
    "not_found": Status(404, "There is nothing at this address", "invalid_request_error"),
    "method_not_allowed": Status(405, "Not a method of this address", "invalid_request_error"),
    "request_timeout": Status(408, "The request was too slow", "invalid_request_error", is_retryable=True),
    "request_too_large": Status(413, "The request is too large", "invalid_request_error"),
    "rate_limited": Status(429, "Too many requests", "rate_limit_error", is_retryable=True),
    "too_many_connections": Status(429, "Too many streams at once", "rate_limit_error", is_retryable=True),
    "internal": Status(500, "A defect of Weir", "server_error", is_retryable=True),
    "at_capacity": Status(503, "No stream is free", "server_error", is_retryable=True),
    "draining": Status(503, "The instance is about to end", "server_error", is_retryable=True),
    "keys_unavailable": Status(503, "API keys cannot be checked", "server_error", is_retryable=True),
    "stream_unavailable": Status(503, "The stream cannot be reached", "server_error", is_retryable=True),
    "session_unavailable": Status(503, "The conversation cannot be read", "server_error", is_retryable=True),
    "audit_unavailable": Status(503, "The audit trail cannot be read", "server_error", is_retryable=True),
    "all_providers_down": Status(503, "No provider could answer", "server_error", is_retryable=True),
    "not_cached": Status(504, "Not stored", "server_error"),
    "upstream_timeout": Status(504, "No provider answered in time", "server_error", is_retryable=True),
    "stream_interrupted": Status(502, "The answer was cut short", "server_error", is_retryable=True),
    "cancelled": Status(499, "The stream was stopped", "server_error"),
}
"""Every code. The last two come as an `error` event, or to a client that waits for a whole answer."""

_PARTING = frozenset({"at_capacity", "draining", "too_many_connections", "request_timeout", "request_too_large"})

encode_json = msgspec.json.Encoder().encode


def status_of(error: WeirError) -> int:
    """The HTTP status that tells a client of `error`."""
    return error.status if isinstance(error, RequestRejected) else STATUSES[error.code].status


def problem(error: WeirError, thread_id: str) -> dict[str, Any]:
    """`error` as a problem object with the members that the contract adds.

    Source: RFC 9457, section 3.
    """
    status = STATUSES[error.code]
    body = {
        "type": f"urn:weir:problem:{error.code}",
        "title": status.title,
        "status": status_of(error),
        "detail": str(error),
        "code": error.code,
        "thread_id": thread_id,
        "retryable": status.is_retryable,
        "retry_after_s": error.retry_after_s,
        "attempts": error.attempts,
    }
    return body | ({"errors": error.errors} if isinstance(error, InvalidRequest) else {})


def openai_error(error: WeirError) -> dict[str, Any]:
    """`error` as OpenAI's API words it, in its envelope.

    Source: platform.openai.com/docs/guides/error-codes, as known 2026-11.
    """
    param = error.errors[0].field if isinstance(error, InvalidRequest) else None
    body = {"message": str(error), "type": STATUSES[error.code].kind, "param": param, "code": error.code}
    return {"error": body | ({"attempts": error.attempts} if error.attempts else {})}


def on_weir_error(request: Request[Any, Any, Any], error: WeirError) -> Response[bytes]:
    """Answer in the form that the route's clients read, with the headers that say when to come back."""
    error.__traceback__ = None  # a kept failure is told to many; none of them may keep its frames alive
    is_openai = _OPENAI_API.match(request.scope["path"]) is not None
    body = openai_error(error) if is_openai else problem(error, request.scope["state"]["thread_id"])
    return Response(
        encode_json(body),
        status_code=status_of(error),
        media_type="application/json" if is_openai else PROBLEM_JSON,
        headers=_error_headers(error) | _parting(request, error),
    )


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the framework refuses in the same form as what we refuse."""
    response = on_weir_error(request, _as_ours(request, error))
    for name, value in (error.headers or {}).items():
        response.headers.setdefault(name, value)
    return response


def on_client_gone(_: Request[Any, Any, Any], __: ClientGone) -> Response[bytes]:
    """Close the exchange; the status is for the record."""
    return Response(b"", status_code=499, media_type="text/plain")


def _as_ours(request: Request[Any, Any, Any], error: HTTPException) -> WeirError:
    match error.status_code:
        case 404:
            return NotFound(_nothing_at(request.scope["path"]))
        case 405:
            return MethodNotAllowed(f"{request.scope['path']} does not take {request.method}.")
        case _:
            return InvalidRequest(*_field_errors(error))


def _nothing_at(path: str) -> str:
    hint = f" Of OpenAI's API there are {' and '.join(OPENAI_PATHS)}: an SDK's base URL ends in /v1."
    return f"There is nothing at {path}.{hint if _OPENAI_API.match(path) else ''}"


def _field_errors(error: HTTPException) -> list[FieldError]:
    """What the framework says of parameters, each under its name."""
    extra = error.extra if isinstance(error.extra, list) else []
    named = [FieldError(each["key"], each["message"]) for each in extra if isinstance(each, dict) and "key" in each]
    return named or [FieldError("request", error.detail)]


def _parting(request: Request[Any, Any, Any], error: WeirError) -> dict[str, str]:
    """Who is not served gives up its connection too, so that it keeps none from others; HTTP/2 has no such header."""
    is_parting = error.code in _PARTING and request.scope["http_version"].startswith("1")
    return {"connection": "close"} if is_parting else {}


def _error_headers(error: WeirError) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = _challenge(error)
    return headers | (quota_headers(error.quotas, error.retry_after_s) if isinstance(error, RateLimited) else {})


def _challenge(error: Unauthorized) -> str:
    """What is wanted; what was wrong with the key, if one was given.

    Source: RFC 6750, section 3.
    """
    return 'Bearer realm="weir"' + (', error="invalid_token"' if isinstance(error, KeyRefused) else "")
