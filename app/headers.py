"""The headers of the contract."""

import math
import re

from litestar import HttpMethod

from domain.answer import Answer
from domain.limiting import Quota

READ = (HttpMethod.GET, HttpMethod.HEAD)
"""The methods of what can be read (RFC 9110, section 9.1: HEAD is not optional)."""

THREAD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

SESSION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}


def answer_headers(answer: Answer) -> dict[str, str]:
    """Who and what this answer is, where it came from and what the caller has left."""
    headers = {"x-thread-id": answer.thread_id, "x-stream-id": answer.stream_id, "x-cache": answer.cache.value}
    if answer.age_s is not None:
        headers["age"] = str(int(answer.age_s))
    return headers | quota_headers(answer.quota) if answer.quota else headers


def quota_headers(quota: Quota) -> dict[str, str]:
    """The caller's quota, for those who read the standard's fields and for OpenAI's SDKs.

    Source: draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4 (rounded up: waiting so long is enough);
    platform.openai.com/docs/guides/rate-limits, "Rate limits in headers", 2026-11.
    """
    amount, remaining, reset_s = quota.rate.amount, quota.remaining, math.ceil(quota.reset_s)
    return {
        "ratelimit-policy": f'"{quota.policy}";q={amount};w={math.ceil(quota.rate.per_s)}',
        "ratelimit": f'"{quota.policy}";r={remaining};t={reset_s}',
        "x-ratelimit-limit-requests": str(amount),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": f"{reset_s}s",
    }
