"""Gemini's errors: google.rpc.Status in JSON."""

from dataclasses import dataclass

import msgspec

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.completion import Json
from infrastructure.simulator.dialect import Refusal

_TYPE = "type.googleapis.com/google.rpc."
BAD_GATEWAY = b"""<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error 502 (Server Error)!!1</title>
  <p><b>502.</b> <ins>That's an error.</ins>
  <p>The server encountered a temporary error and could not complete your request.
"""


@dataclass(frozen=True, slots=True)
class GeminiError:
    """One row: HTTP status, canonical code and sentence; `{model}` is filled in."""

    code: int
    status: str
    message: str
    details: tuple[Json, ...] = ()

    def value(self, model: str = "", retry_after_s: float | None = None) -> Json:
        """Return the error object; when to come back stands in it, not in a header."""
        details = list(self.details)
        if retry_after_s is not None:
            details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{retry_after_s:g}s"})
        error: Json = {"code": self.code, "message": self.message.replace("{model}", model), "status": self.status}
        return {"error": error | {"details": details} if details else error}

    def refusal(self, model: str = "", retry_after_s: float | None = None) -> Refusal:
        """Return the error as a response."""
        body = msgspec.json.format(msgspec.json.encode(self.value(model, retry_after_s)), indent=2) + b"\n"
        return Refusal(status=self.code, body=body, content_type="application/json; charset=UTF-8")


def invalid(message: str, *details: Json) -> GeminiError:
    """Return the error of a request that cannot be right."""
    return GeminiError(400, "INVALID_ARGUMENT", message, details)


KEY_INVALID = invalid(
    "API key not valid. Please pass a valid API key.",
    {
        "@type": f"{_TYPE}ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    },
)
KEY_MISSING = GeminiError(
    403,
    "PERMISSION_DENIED",
    "Method doesn't allow unregistered callers (callers without established identity). "
    "Please use API Key or other form of API consumer identity to call this API.",
)
_QUOTA = {
    "@type": f"{_TYPE}QuotaFailure",
    "violations": [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        }
    ],
}
_OUT_OF_QUOTA = GeminiError(
    429,
    "RESOURCE_EXHAUSTED",
    "You exceeded your current quota, please check your plan and billing details.",
    (_QUOTA,),
)

ERRORS: dict[Fault, GeminiError] = {
    Fault.BAD_REQUEST: invalid("Invalid value at 'contents'."),
    Fault.UNAUTHORIZED: GeminiError(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
    ),
    Fault.FORBIDDEN: GeminiError(403, "PERMISSION_DENIED", "The caller does not have permission"),
    Fault.NOT_FOUND: GeminiError(
        404,
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels "
        "to see the list of available models and their supported methods.",
    ),
    Fault.NOT_ALLOWED: GeminiError(405, "UNIMPLEMENTED", "The requested method is not supported."),
    Fault.TIMEOUT: GeminiError(408, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    Fault.CONFLICT: GeminiError(409, "ABORTED", "The operation was aborted."),
    Fault.TOO_LARGE: GeminiError(
        413, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes. Please use the File API."
    ),
    Fault.UNPROCESSABLE: GeminiError(422, "FAILED_PRECONDITION", "The request could not be processed."),
    Fault.RATE_LIMITED: GeminiError(
        429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", (_QUOTA,)
    ),
    Fault.SERVER_ERROR: GeminiError(
        500,
        "INTERNAL",
        "An internal error has occurred. Please retry or report in "
        "https://developers.generativeai.google/guide/troubleshooting",
    ),
    Fault.UNAVAILABLE: GeminiError(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    Fault.OVERLOADED: GeminiError(529, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    Fault.CONTEXT_LENGTH: invalid(
        "The input token count (1254000) exceeds the maximum number of tokens allowed (1048576)."
    ),
    Fault.QUOTA: _OUT_OF_QUOTA,
}
