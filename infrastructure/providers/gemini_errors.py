"""What Gemini's errors mean, as the HTTP status that would say the same."""

from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import google.genai.errors

from domain.chat import Json
from domain.errors import ProviderError
from infrastructure.providers.refusals import Refusal, refusal_error
from infrastructure.providers.retry_after import retry_after_s

REASONS: Mapping[str, int] = {
    "API_KEY_INVALID": 401,
    "API_KEY_SERVICE_BLOCKED": 401,
    "BILLING_DISABLED": 402,
    "SERVICE_DISABLED": 403,
    "400 FAILED_PRECONDITION": 403,
}
"""Reasons of an ErrorInfo, and statuses with their canonical code, that are more exact than the status alone.

A failed precondition is the country, or the free tier where it is not to be had without billing.
Source: ai.google.dev/gemini-api/docs/troubleshooting, as known 2026-11.
"""


def status_error(error: google.genai.errors.APIError, model: str | None, api_key: str) -> ProviderError:
    """The leaf for an error that came in place of a stream."""
    response = error.response
    headers = response.headers if isinstance(response, aiohttp.ClientResponse) else {}
    told = error.details.get("error") if isinstance(error.details, dict) else None
    return _error(told, error.code, model, api_key, retry_after_s(headers))


def event_error(told: Json, model: str, api_key: str) -> ProviderError:
    """The leaf for an error that came inside a stream."""
    return _error(told, 500, model, api_key, None)


def _error(told: Json, status: int, model: str | None, api_key: str, wait_s: float | None) -> ProviderError:
    error: dict[str, Any] = told if isinstance(told, dict) else {}
    code = error.get("code")
    meant = next(filter(None, map(REASONS.get, _reasons(error))), code if isinstance(code, int) else status)
    message = str(error.get("message") or "").replace(api_key, "[key]")
    delay_s = next(_delays_s(error), wait_s)
    return refusal_error(Refusal(status=meant, model=model, message=message, retry_after_s=delay_s))


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    return (detail for detail in (details if isinstance(details, list) else ()) if isinstance(detail, dict))


def _reasons(error: dict[str, Any]) -> Iterator[str]:
    """What the error is called, the most exact first."""
    yield from (str(detail.get("reason")) for detail in _details(error))
    yield f"{error.get('code')} {error.get('status')}"


def _delays_s(error: dict[str, Any]) -> Iterator[float]:
    """The delay of a RetryInfo, such as "34.5s"."""
    for detail in _details(error):
        number = str(detail.get("retryDelay", "")).removesuffix("s")
        if number.replace(".", "", 1).isdecimal():
            yield float(number)
