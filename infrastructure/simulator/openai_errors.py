"""OpenAI's errors, word for word where its documents or servers show them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.dialect import Refusal


@dataclass(frozen=True, slots=True)
class OpenAIError:
    """One row: a status and the four fields of the error object; `{model}` is filled in."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None

    def value(self, model: str = "") -> dict[str, dict[str, str | None]]:
        """Return the error object."""
        message = self.message.replace("{model}", model)
        return {"error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}}

    def refusal(self, model: str = "", retry_after_s: float | None = None) -> Refusal:
        """Return the error as a response."""
        body = msgspec.json.encode(self.value(model))
        return Refusal(status=self.status, body=body, headers=retry_headers(retry_after_s))


def retry_headers(retry_after_s: float | None) -> Mapping[str, str]:
    """Return both headers in which OpenAI says when to come back: whole seconds, and milliseconds."""
    if retry_after_s is None:
        return {}
    return {"retry-after": str(math.ceil(retry_after_s)), "retry-after-ms": str(round(retry_after_s * 1000))}


BAD_GATEWAY = b"""<html>\r
<head><title>502 Bad Gateway</title></head>\r
<body>\r
<center><h1>502 Bad Gateway</h1></center>\r
<hr><center>cloudflare</center>\r
</body>\r
</html>\r
"""

KEYS_PAGE = "You can find your API key at https://platform.openai.com/account/api-keys."
_INVALID = "invalid_request_error"
_SERVER = "server_error"
ERRORS: dict[Fault, OpenAIError] = {
    Fault.BAD_REQUEST: OpenAIError(400, _INVALID, "invalid_value", "Invalid value: 'simulated'.", "messages"),
    Fault.UNAUTHORIZED: OpenAIError(
        401,
        _INVALID,
        "invalid_api_key",
        f"Incorrect API key provided. {KEYS_PAGE}",
    ),
    Fault.FORBIDDEN: OpenAIError(
        403, _INVALID, "unsupported_country_region_territory", "Country, region, or territory not supported"
    ),
    Fault.NOT_FOUND: OpenAIError(
        404,
        _INVALID,
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    Fault.NOT_ALLOWED: OpenAIError(405, _INVALID, None, "Not allowed to POST here."),
    Fault.TIMEOUT: OpenAIError(408, _SERVER, "request_timeout", "Request timed out."),
    Fault.CONFLICT: OpenAIError(409, _INVALID, "conflict", "The resource was updated by another request."),
    Fault.TOO_LARGE: OpenAIError(413, _INVALID, "request_too_large", "Request body is too large."),
    Fault.UNPROCESSABLE: OpenAIError(422, _INVALID, "unprocessable_entity", "The request could not be processed."),
    Fault.RATE_LIMITED: OpenAIError(
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} in organization org-simulated on requests per min (RPM): Limit 500, Used 500, "
        "Requested 1. Please try again in 120ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
    ),
    Fault.SERVER_ERROR: OpenAIError(
        500, _SERVER, None, "The server had an error while processing your request. Sorry about that!"
    ),
    Fault.UNAVAILABLE: OpenAIError(
        503, _SERVER, "service_unavailable", "The engine is currently overloaded, please try again later."
    ),
    Fault.OVERLOADED: OpenAIError(529, "overloaded_error", "overloaded", "The model is currently overloaded."),
    Fault.CONTEXT_LENGTH: OpenAIError(
        400,
        _INVALID,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130542 tokens. "
        "Please reduce the length of the messages.",
        "messages",
    ),
    Fault.CONTENT_FILTER: OpenAIError(
        400,
        _INVALID,
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
    Fault.ABOVE_LIMIT: OpenAIError(
        429,
        "tokens",
        "rate_limit_exceeded",
        "Request too large for {model} in organization org-simulated on tokens per min (TPM): Limit 30000, Requested "
        "42000. The input or output tokens must be reduced in order to run successfully. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
    ),
    Fault.QUOTA: OpenAIError(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
}
