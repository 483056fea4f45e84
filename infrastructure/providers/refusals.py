"""What an HTTP status of a provider means for us: one table for all providers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from domain.errors import (
    ContextTooLong,
    ProviderDeferred,
    ProviderError,
    ProviderMisconfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnauthorized,
    ProviderUnavailable,
    RouteUnfit,
)

_MAX_MESSAGE_CHARS = 1000

_TOO_LONG = re.compile(
    r"context.length.exceeded|maximum context length|exceeds? the maximum number of tokens"
    r"|exceeds? the context (window|length|size)|(prompt|input|request|context) is too long",
    re.IGNORECASE,
)
"""How providers say that a context is too long; most have no code for it. Source: their errors, as known 2026-11."""

_ABOVE_LIMIT = re.compile(r"request too large", re.IGNORECASE)
"""How OpenAI says that a request is by itself larger than the tokens a minute that our key may use.

Source: its error "Request too large for gpt-4o … on tokens per min (TPM): Limit 30000, Requested 42000", as known
2026-11; Groq says the same with 413.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a provider answered in place of a completion by `model`; `message` is its own text, `code` its own name.

    Without a model it was asked for its models.
    """

    status: int
    model: str | None
    message: str = ""
    code: str = ""
    retry_after_s: float | None = None


def refusal_error(refusal: Refusal) -> ProviderError:
    """The leaf for this refusal; only a rejected request is answered in the provider's words."""
    return REACTIONS.get(refusal.status, _other)(refusal)


def _rejected(refusal: Refusal) -> ProviderError:
    is_too_long = _TOO_LONG.search(refusal.code) or _TOO_LONG.search(refusal.message)
    return (ContextTooLong if is_too_long else ProviderRejected)(_words(refusal), HTTPStatus.BAD_REQUEST)


def _unprocessable(refusal: Refusal) -> ProviderError:
    return ProviderRejected(_words(refusal), HTTPStatus.UNPROCESSABLE_ENTITY)


def _words(refusal: Refusal) -> str:
    return refusal.message[:_MAX_MESSAGE_CHARS] or f"answered {refusal.status}"


def _wrong_key(_: Refusal) -> ProviderError:
    return ProviderUnauthorized("does not accept our key")


def _no_quota(_: Refusal) -> ProviderError:
    return ProviderMisconfigured("has no quota left for our key")


def _no_model(refusal: Refusal) -> ProviderError:
    if refusal.model is None:
        return ProviderMisconfigured("has no list of models at its address, which cannot be right")
    return ProviderMisconfigured(f"does not have the model {refusal.model}")


def _gave_up(refusal: Refusal) -> ProviderError:
    return ProviderTimeout(f"answered {refusal.status}")


def _overloaded(refusal: Refusal) -> ProviderError:
    if _ABOVE_LIMIT.search(refusal.message):
        return RouteUnfit("takes no request of this size from us")
    reason = "asks for fewer requests"
    if refusal.retry_after_s is None:
        return ProviderOverloaded(reason)
    return ProviderDeferred(reason, refusal.retry_after_s)


def _busy(refusal: Refusal) -> ProviderError:
    if refusal.retry_after_s is None:
        return ProviderUnavailable(f"answered {refusal.status}")
    return ProviderDeferred(f"answered {refusal.status}", refusal.retry_after_s)


def _other(refusal: Refusal) -> ProviderError:
    is_theirs = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return (ProviderUnavailable if is_theirs else ProviderMisconfigured)(f"answered {refusal.status}")


REACTIONS: Mapping[int, Callable[[Refusal], ProviderError]] = {
    400: _rejected,
    401: _wrong_key,
    402: _no_quota,
    403: _wrong_key,
    404: _no_model,
    408: _gave_up,
    409: lambda refusal: ProviderUnavailable(f"answered {refusal.status}"),
    413: _rejected,
    422: _unprocessable,
    429: _overloaded,
    503: _busy,
    529: _busy,
}
"""By status; of the others, from 500 on the provider is unavailable, below it our configuration is wrong."""
