"""weir keys: who may ask, and with what."""

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

import click

from config.errors import ConfigurationError
from config.settings import Settings, read_settings
from config.variable import RATE
from domain.errors import KeysUnavailable
from domain.keys import KEY_ID, TIERS, ApiKey, digest_of, id_in, new_text
from domain.limiting import Rate
from domain.ports import KeyStore

T = TypeVar("T")

_FROM_NOW = re.compile(r"([1-9]\d{0,4})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_EXPIRES = "a time to come such as 90d, 12h, 30m, 2030-01-31 or 2030-01-31T12:00:00Z"


@click.group()
def keys() -> None:
    """Make, list and revoke API keys: in Redis with WEIR_REDIS_URL, else in the file WEIR_API_KEYS_FILE."""


@keys.command()
@click.option("--user", required=True, help="Whose it is; all keys of a user within a scope share its limits.")
@click.option("--tier", required=True, type=click.Choice(TIERS), help="Whose rate applies.")
@click.option("--scope", default="", help="The tenant within which its answers are shared, and no further.")
@click.option("--expires", help=f"When it ends: {_EXPIRES}.")
@click.option("--rate", help="Requests of its own instead of its tier's, such as 100/minute.")
@click.option("--tokens-per-minute", type=int, help="Tokens of its own instead of its tier's.")
@click.option("--budget-usd-per-day", type=float, help="What its requests may cost a day, in US dollars.")
@click.option("--models", help="The only models it may ask for, with commas between them.")
def create(expires: str | None, rate: str | None, models: str | None, **plain: Any) -> None:
    """Make a key and print it: this once, as only its SHA-256 is kept."""
    now_s = time.time()
    text, key_id = new_text()
    try:
        key = ApiKey(
            key_id=key_id,
            digest=digest_of(text),
            created_at_s=now_s,
            expires_at_s=None if expires is None else _expires_at_s(expires, now_s),
            rate=None if rate is None else _rate(rate),
            models=None if models is None else frozenset(name.strip() for name in models.split(",")),
            **plain,
        )
    except ValueError as error:
        field, colon, reason = str(error).partition(":")
        _refuse(f"--{field.replace('_', '-')}{colon}{reason}")
    _run(lambda store: store.add(key))
    click.echo(text)
    click.echo(f"weir: this is shown once; its id is {key_id}", err=True)


@keys.command("list")
def list_keys() -> None:
    """Show all keys, the oldest first; what they are is not kept, and so not shown."""
    for key in _run(lambda store: store.all()):
        click.echo("  ".join((key.key_id, _state(key), key.user, key.tier, *_details(key))))


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Make the key of that ID useless, on every instance within a second."""
    if within_key := id_in(key_id):
        _refuse(f"that is a key, which is best kept off command lines; its id is needed: {within_key}")
    if not KEY_ID.fullmatch(key_id):
        _refuse(f"{key_id[:12]!r}: the id of a key is needed, as weir keys list shows it")
    if _run(lambda store: store.revoke(key_id, time.time())) is None:
        _refuse(f"{key_id!r}: there is no key of that id; weir keys list shows them")
    click.echo(f"revoked: {key_id}")


def _state(key: ApiKey) -> str:
    if key.revoked_at_s is not None:
        return "revoked"
    return "expired" if key.expires_at_s is not None and key.expires_at_s <= time.time() else "valid"


def _details(key: ApiKey) -> list[str]:
    """What else there is to say of it."""
    rate = key.rate and f"{key.rate.amount} per {key.rate.per_s:g} s"
    said = {
        "scope": key.scope,
        "created": _day(key.created_at_s),
        "expires": _day(key.expires_at_s),
        "rate": rate,
        "tokens-per-minute": key.tokens_per_minute,
        "budget-usd-per-day": key.budget_usd_per_day,
        "models": ",".join(sorted(key.models or ())),
        "revoked": _day(key.revoked_at_s),
    }
    return [f"{name}={value}" for name, value in said.items() if value]


def _day(at_s: float | None) -> str | None:
    return None if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _expires_at_s(text: str, now_s: float) -> float:
    """The time that `text` names, in Unix seconds.

    Raises:
        ValueError: it names none, or one that has passed.
    """
    found = _FROM_NOW.fullmatch(text)
    try:
        if found:
            return now_s + timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()
        named = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"expires {text[:40]!r}: {_EXPIRES} is needed") from error
    at_s = (named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp()
    if at_s <= now_s:
        raise ValueError(f"expires {text[:40]!r}: {_EXPIRES} is needed")
    return at_s


def _rate(text: str) -> Rate:
    """The rate in the notation of `limits`.

    Raises:
        ValueError: it is none.
    """
    try:
        rate = RATE.read(text)
    except ValueError as error:
        raise ValueError(f"rate {text[:40]!r}: a rate such as 10/minute or 100 per 2 hours is needed") from error
    if rate is None:
        raise ValueError(f"rate {text!r}: a rate is needed; without --rate the tier's applies")
    return rate


def _run(use: Callable[[KeyStore], Coroutine[Any, Any, T]]) -> T:
    """What comes of using the store; the command ends when that is nowhere, or is away."""
    settings = _settings()
    from app.container import key_store  # noqa: PLC0415  # brings what takes a second to load

    async def run() -> T:
        async with key_store(settings) as store:
            return await use(store)

    try:
        return asyncio.run(run())
    except KeysUnavailable as away:
        if settings.redis_url:
            _end(1, f"WEIR_REDIS_URL: {_why_away(settings.redis_url, away)}")
        _end(1, f"WEIR_API_KEYS_FILE: {away.__cause__}")


def _why_away(url: str, away: KeysUnavailable) -> str:
    """Why nothing can be read or written in that Redis."""
    from infrastructure.redis.checking import RedisUnfit, RedisUnreachable, check_redis  # noqa: PLC0415  # only then

    try:
        asyncio.run(check_redis(url))
    except (RedisUnfit, RedisUnreachable) as failure:
        return str(failure)
    return str(away.__cause__) or "it did not answer in time"


def _settings() -> Settings:
    try:
        settings = read_settings(os.environ)
    except ConfigurationError as error:
        _refuse(*error.problems)
    if not settings.redis_url and settings.access.api_keys_file is None:
        _refuse("WEIR_API_KEYS_FILE or WEIR_REDIS_URL says where keys are kept; neither is set")
    return settings


def _refuse(*sentences: str) -> NoReturn:
    _end(2, *sentences)


def _end(code: int, *sentences: str) -> NoReturn:
    for sentence in sentences:
        click.echo(f"weir: {sentence}", err=True)
    sys.exit(code)
