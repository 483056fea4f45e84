"""DeepSeek's errors: OpenAI's form, its own words.

Source: api-docs.deepseek.com, "Error Codes". An account without balance gets 402, not OpenAI's 429.
"""

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.openai_errors import OpenAIError

_CODE = "invalid_request_error"
_SERVICE = "service_unavailable_error"

ERRORS: dict[Fault, OpenAIError] = {
    Fault.BAD_REQUEST: OpenAIError(400, _CODE, _CODE, "Invalid request body format"),
    Fault.UNAUTHORIZED: OpenAIError(401, "authentication_error", _CODE, "Authentication Fails (no such user)"),
    Fault.FORBIDDEN: OpenAIError(403, "permission_error", _CODE, "Access is not allowed from this address"),
    Fault.NOT_FOUND: OpenAIError(404, _CODE, _CODE, "Not Found"),
    Fault.NOT_ALLOWED: OpenAIError(405, _CODE, _CODE, "Method Not Allowed"),
    Fault.TIMEOUT: OpenAIError(408, _SERVICE, _SERVICE, "Request timed out"),
    Fault.CONFLICT: OpenAIError(409, _CODE, _CODE, "Conflict"),
    Fault.TOO_LARGE: OpenAIError(413, _CODE, _CODE, "Payload Too Large"),
    Fault.UNPROCESSABLE: OpenAIError(422, _CODE, _CODE, "Invalid Parameters"),
    Fault.RATE_LIMITED: OpenAIError(429, "rate_limit_error", "rate_limit_error", "Rate Limit Reached"),
    Fault.SERVER_ERROR: OpenAIError(500, "server_error", "internal_error", "Server Error"),
    Fault.UNAVAILABLE: OpenAIError(503, _SERVICE, _SERVICE, "Service is too busy. We advise users to retry later."),
    Fault.OVERLOADED: OpenAIError(529, _SERVICE, _SERVICE, "Server Overloaded"),
    Fault.CONTEXT_LENGTH: OpenAIError(
        400,
        _CODE,
        _CODE,
        "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (140000 in the "
        "messages, 0 in the completion). Please reduce the length of the messages or completion.",
    ),
    Fault.CONTENT_FILTER: OpenAIError(400, _CODE, _CODE, "Content Exists Risk"),
    Fault.QUOTA: OpenAIError(402, "unknown_error", _CODE, "Insufficient Balance"),
}
