"""What OpenAI's error codes mean, as the HTTP status that would say the same."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from domain.chat import Json
from domain.errors import ProviderError
from infrastructure.providers.refusals import Refusal, refusal_error
from infrastructure.providers.retry_after import retry_after_s

CODES: Mapping[str, int] = {
    "insufficient_quota": 402,
    "billing_hard_limit_reached": 402,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
}
"""Codes that are more exact than the status they come with."""

MESSAGES: Mapping[str, int] = {"Model Not Exist": 404}
"""Whole messages, where nothing else tells: DeepSeek answers 400 to a model that it does not have."""

TYPES: Mapping[str, int] = {
    "insufficient_quota": 402,
    "authentication_error": 401,
    "content_filter": 400,
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
}
"""Types, for an error inside a stream that comes without status and known code."""


def status_error(code: int, headers: Mapping[str, str], body: bytes, model: str | None, api_key: str) -> ProviderError:
    """The leaf for a response that came in place of a stream; the names of its headers are found in any case."""
    told = _told(body)
    message = str(told.get("message") or "").replace(api_key, "[key]")
    name = str(told.get("code"))
    status = MESSAGES.get(message) or CODES.get(name) or _status(code, told.get("param"))
    wait_s = retry_after_s(headers)
    return refusal_error(Refusal(status=status, model=model, message=message, code=name, retry_after_s=wait_s))


_OURS = (None, "", "None", "model")
"""The parameters that name nothing in the caller's request. LiteLLM says "None" for none."""


def _status(code: int, param: Json) -> int:
    """What is meant by `code`: not to find what the request names, other than the model, is to find it wrong."""
    return HTTPStatus.BAD_REQUEST if code == HTTPStatus.NOT_FOUND and param not in _OURS else code


def _told(body: bytes) -> dict[str, Json]:
    """The error object of a response; empty when it has none."""
    try:
        read = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    told = read.get("error", read) if isinstance(read, dict) else None
    return told if isinstance(told, dict) else {}


def event_error(told: Json, model: str, api_key: str) -> ProviderError:
    """The leaf for an error that came inside a stream."""
    error = told if isinstance(told, dict) else {"message": told}
    message = str(error.get("message") or "").replace(api_key, "[key]")
    code = str(error.get("code"))
    return refusal_error(Refusal(status=_event_status(error), model=model, message=message, code=code))


def _event_status(error: dict[str, Json]) -> int:
    code = error.get("code")
    known = CODES.get(str(code)) or TYPES.get(str(error.get("type")))
    return known or (code if isinstance(code, int) else 500)
