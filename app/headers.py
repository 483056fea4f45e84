"""The headers of the contract."""

import math
import re
from collections.abc import Mapping, Sequence

from litestar import HttpMethod
from litestar.types import Scope

from domain.answer import Answer
from domain.limiting import Quota

READ = (HttpMethod.GET, HttpMethod.HEAD)
"""The methods of what can be read (RFC 9110, section 9.1: HEAD is not optional)."""

RawHeaders = list[tuple[bytes, bytes]]

THREAD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

SESSION_ID = THREAD_ID
ID_CHARACTERS = "1 to 128 of A-Z a-z 0-9 . _ : - are needed"


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """`headers` as they go over the wire; their names are in lower case."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of that header of the request; its name is given in lower case."""
    for other, value in scope["headers"]:
        if other == name:
            return value.decode("latin-1")
    return None


def listed(scope: Scope, name: bytes) -> str:
    """All values of that header of the request, which is a list; its name is given in lower case.

    Source: RFC 9110, section 5.3: a list may stand on several lines.
    """
    return ", ".join(value.decode("latin-1") for other, value in scope["headers"] if other == name)


STREAM_HEADERS = raw(
    {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
    }
)
COMPLETION_HEADERS = raw({"content-type": "application/json", "cache-control": "no-store"})


READABLE = (
    "X-Thread-ID",
    "X-Stream-ID",
    "X-Cache",
    "Age",
    "Retry-After",
    "WWW-Authenticate",
    "RateLimit-Policy",
    "RateLimit",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
)
"""What pages of other origins may read, beside what every response has."""


def answer_headers(answer: Answer) -> RawHeaders:
    """What this answer is, where it came from and what the caller has left; every response's thread id comes later."""
    headers = [
        (b"x-stream-id", answer.stream_id.encode()),
        (b"x-cache", answer.cache.encode()),
    ]
    if answer.age_s is not None:
        headers.append((b"age", b"%d" % answer.age_s))
    return headers + raw(quota_headers(answer.quotas)) if answer.quotas else headers


_ROUNDING_S = 1e-6
"""What a computed time may be too long by."""


def quota_headers(quotas: Sequence[Quota], retry_after_s: float | None = None) -> dict[str, str]:
    """The caller's quotas, for those who read the standard's fields and for OpenAI's SDKs; none without a limit.

    An effective window that would end after `retry_after_s`, if that is told too, is left out.

    Source: draft-ietf-httpapi-ratelimit-headers-11, sections 3, 4 and 6; platform.openai.com/docs/guides/rate-limits,
    "Rate limits in headers", as known 2026-11.
    """
    if not quotas:
        return {}
    latest_s = math.inf if retry_after_s is None else math.ceil(retry_after_s)
    headers = {
        "ratelimit-policy": ", ".join(map(_policy, quotas)),
        "ratelimit": ", ".join(_service_limit(each, latest_s) for each in quotas),
    }
    for each in quotas:
        headers[f"x-ratelimit-limit-{each.unit}"] = str(each.rate.amount)
        headers[f"x-ratelimit-remaining-{each.unit}"] = str(each.remaining)
        headers[f"x-ratelimit-reset-{each.unit}"] = duration(math.ceil(each.reset_s))
    return headers


def _policy(quota: Quota) -> str:
    """A member of RateLimit-Policy.

    Requests are the draft's own unit, which need not be named. Tokens are none of those that are registered for `qu`,
    so a parameter of ours names them (sections 3.1 and 3.1.2).
    """
    unit = "" if quota.unit == "requests" else f";weir-unit={_string(quota.unit)}"
    return f"{_string(quota.policy)};q={_integer(quota.rate.amount)};w={_integer(quota.rate.per_s)}{unit}"


def _service_limit(quota: Quota, latest_s: float) -> str:
    """A member of RateLimit: `t` is for how long no more than `r` can be used (section 4.1.2), up to `latest_s`."""
    window_s = max(1, math.ceil(quota.more_s - _ROUNDING_S))
    window = f";t={_integer(window_s)}" if window_s <= latest_s else ""
    return f"{_string(quota.policy)};r={_integer(quota.remaining)}{window}"


def _string(text: str) -> str:
    """A String of a structured field.

    Source: RFC 9651, section 4.1.6.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(number: float) -> int:
    """An Integer of a structured field, rounded up.

    Source: RFC 9651, section 3.3.1: it has 15 digits at most.
    """
    return min(math.ceil(number), 10**15 - 1)


def duration(seconds: int) -> str:
    """As OpenAI writes it: 0s, 59s, 6m0s, 1h0m0s."""
    minutes, rest_s = divmod(seconds, 60)
    hours, rest_m = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{rest_m}m" if minutes else "") + f"{rest_s}s"
