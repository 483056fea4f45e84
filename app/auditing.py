"""How operators read the audit trail: page by page, the newest entries first."""

import re
from collections.abc import Sequence
from typing import Any

from domain.audit import Audited
from domain.errors import FieldError, InvalidRequest

LIMIT = 100
MAX_LIMIT = 1000
POSITION = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,9}")


def parse_limit(text: str | None) -> int:
    """How many entries are wanted.

    Raises:
        InvalidRequest: that is no such number.
    """
    if text is None:
        return LIMIT
    limit = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(FieldError("limit", f"{text!r}: 1 to {MAX_LIMIT} are allowed"))
    return limit


def parse_position(text: str | None) -> str | None:
    """The position before which entries are wanted, if there is one.

    Raises:
        InvalidRequest: that is none.
    """
    if text is not None and not POSITION.fullmatch(text):
        reason = f"{text!r}: the `next` of a page, or the `id` of an entry, is needed, such as 1784000000000-0"
        raise InvalidRequest(FieldError("before", reason))
    return text


def told_page(page: Sequence[Audited], limit: int) -> dict[str, Any]:
    """A page, and what asks for the one after it, should there be one."""
    following = page[-1].position if len(page) == limit else None
    return {"entries": [_told(audited) for audited in page], "next": following}


def _told(audited: Audited) -> dict[str, Any]:
    entry = audited.entry
    return {
        "id": audited.position,
        "at_s": entry.at_s,
        "thread_id": entry.thread_id,
        "stream_id": entry.stream_id,
        "user": entry.user,
        "tenant": entry.tenant,
        "tier": entry.tier,
        "outcome": entry.outcome,
        "code": entry.code,
        "requested": entry.requested,
        "provider": entry.provider,
        "model": entry.model,
        "cache": entry.cache,
        "usage": {
            "prompt_tokens": entry.prompt_tokens,
            "completion_tokens": entry.completion_tokens,
            "estimated": entry.is_estimated,
        }
        if entry.prompt_tokens is not None
        else None,
        "cost_usd": entry.cost_usd,
        "saved_usd": entry.saved_usd,
        "duration_ms": entry.duration_ms,
    }
