"""How API keys are kept, in a file and in Redis alike: a JSON object each, with a digest and not the key."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from domain.keys import ApiKey
from domain.limiting import Rate

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    requests: int
    per_s: float


class _Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is not known here may be a bound: a record that has it is not understood, and its key not let in."""

    id: str
    user: str
    tier: str
    scope: str = ""
    created_at: _Time
    expires_at: _Time | None = None
    revoked_at: _Time | None = None
    rate: _Rate | None = None
    tokens_per_minute: int | None = None
    budget_usd_per_day: float | None = None
    models: list[str] | None = None
    sha256: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


def encode_key(key: ApiKey) -> bytes:
    """The key as a line of JSON that `decode_key` reads."""
    return _encode(
        _Record(
            id=key.key_id,
            user=key.user,
            tier=key.tier,
            scope=key.scope,
            created_at=_time(key.created_at_s),
            expires_at=None if key.expires_at_s is None else _time(key.expires_at_s),
            revoked_at=None if key.revoked_at_s is None else _time(key.revoked_at_s),
            rate=None if key.rate is None else _Rate(key.rate.amount, key.rate.per_s),
            tokens_per_minute=key.tokens_per_minute,
            budget_usd_per_day=key.budget_usd_per_day,
            models=None if key.models is None else sorted(key.models),
            sha256=key.digest,
        )
    )


def decode_key(line: bytes) -> ApiKey:
    """The key that was encoded.

    Raises:
        ValueError: it is none; the text says which field is wrong, and does not quote it.
    """
    try:
        record = _decode(line)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise ValueError(f"{place.rstrip('`')}: {reason}" if place else reason) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError("not a JSON object") from error
    return ApiKey(
        key_id=record.id,
        digest=record.sha256,
        user=record.user,
        tier=record.tier,
        scope=record.scope,
        created_at_s=record.created_at.timestamp(),
        expires_at_s=_seconds(record.expires_at),
        revoked_at_s=_seconds(record.revoked_at),
        tokens_per_minute=record.tokens_per_minute,
        budget_usd_per_day=record.budget_usd_per_day,
        **_bounds(record),
    )


def _bounds(record: _Record) -> dict[str, Any]:
    try:
        rate = None if record.rate is None else Rate(amount=record.rate.requests, per_s=record.rate.per_s)
    except ValueError as error:
        raise ValueError(f"rate: {error}") from error
    return {"rate": rate, "models": None if record.models is None else frozenset(record.models)}


def _time(at_s: float) -> datetime:
    """To the second: nobody has to read more."""
    return datetime.fromtimestamp(int(at_s), UTC)


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
