"""The environment as one frozen value, read once and validated as a whole.

Each field states its variable, default and range where it stands; the table in docs/settings.md says the same.
"""
# ruff: noqa: RUF009 - a field's default is read from its variable's own text, once, at import

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from config.accepted import NETWORKS, OPERATOR_KEY, ORIGINS, REDIS_URL, milliseconds, number, one_of, seconds, whole
from config.errors import ConfigurationError
from config.variable import FILE, KEY_FILE, PREFIX, RATE, Source, one, several, variable
from domain.addresses import Network
from domain.breaker import BreakerPolicy
from domain.calls import Deadlines
from domain.limiting import Rate
from domain.operator_key import OperatorKey
from domain.retrying import RetryPolicy
from domain.sessions import SessionBounds

TOKENS = whole("tokens", 0, 1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is let in; `max_connections_per_user` 0, a rate of None and 0 tokens a minute mean no limit."""

    max_connections: int
    max_connections_per_user: int
    queue_size: int
    queue_timeout_s: float
    max_request_bytes: int
    max_query_chars: int
    header_timeout_s: float
    body_timeout_s: float
    rate_anonymous: Rate | None
    rate_standard: Rate | None
    rate_premium: Rate | None
    tokens_per_minute_anonymous: int
    tokens_per_minute_standard: int
    tokens_per_minute_premium: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask, and from where; `auth` is required or optional."""

    auth: str
    api_keys_file: Path | None
    trusted_proxies: tuple[Network, ...]
    cors_origins: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What is remembered, for how long and for whom."""

    l1_entries: int
    l1_bytes: int
    ttl_s: float
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """How fast an operator's questions are asked ahead, by each process."""

    per_s: float
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written to stdout, and how."""

    level: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the environment decides; `Settings()` is what an empty environment gives."""

    redis_url: str = one(variable("REDIS_URL", "", REDIS_URL, "the Redis that instances share; empty: none"))
    log_linger_s: float = one(
        variable("LOG_LINGER_MS", "5", milliseconds(0, 1000), "what gathers chunks for Redis may add to each of them")
    )
    catalogue: Path | None = one(variable("CATALOGUE", "", FILE, "the catalogue; empty: the shipped one"))
    access: Access = several(
        Access,
        auth=variable(
            "AUTH", "optional", one_of("optional", "required"), "whether who has no API key may ask, as its address"
        ),
        api_keys_file=variable(
            "API_KEYS_FILE", "", KEY_FILE, "API keys, as digests; not read with WEIR_REDIS_URL, where they are in Redis"
        ),
        trusted_proxies=variable(
            "TRUSTED_PROXIES", "", NETWORKS, "proxies whose X-Forwarded-For is believed; empty: none"
        ),
        cors_origins=variable(
            "CORS_ORIGINS", "", ORIGINS, "origins whose pages may ask from browsers; empty: only the service's own"
        ),
    )
    limits: Limits = several(
        Limits,
        max_connections=variable(
            "MAX_CONNECTIONS", "10000", whole("streams", 1, 1_000_000), "live streams in this process"
        ),
        max_connections_per_user=variable(
            "MAX_CONNECTIONS_PER_USER", "3", whole("streams", 0, 1_000_000), "live streams of one user; 0: no limit"
        ),
        queue_size=variable(
            "QUEUE_SIZE", "0", whole("requests", 0, 1_000_000), "requests that may wait for a stream to end"
        ),
        queue_timeout_s=variable("QUEUE_TIMEOUT_S", "5", seconds(0.05, 3600), "how long each of them may wait"),
        max_request_bytes=variable(
            "MAX_REQUEST_BYTES", "1048576", whole("bytes", 1, 1_073_741_824), "largest request body"
        ),
        max_query_chars=variable(
            "MAX_QUERY_CHARS", "32000", whole("characters", 1, 100_000_000), "longest query, or messages together"
        ),
        header_timeout_s=variable(
            "HEADER_TIMEOUT_S",
            "30",
            seconds(0.05, 3600),
            "how long a connection may take to send the headers of its first or next request",
        ),
        body_timeout_s=variable(
            "BODY_TIMEOUT_S", "30", seconds(0.05, 3600), "how long a request may take to send its body"
        ),
        rate_anonymous=variable(
            "RATE_ANONYMOUS", "10/minute", RATE, "requests of one client address that may cause work at a provider"
        ),
        rate_standard=variable("RATE_STANDARD", "100/minute", RATE, "the same for a user with a key of that tier"),
        rate_premium=variable("RATE_PREMIUM", "1000/minute", RATE, "the same for a user with a key of that tier"),
        tokens_per_minute_anonymous=variable(
            "TOKENS_PER_MINUTE_ANONYMOUS", "0", TOKENS, "tokens of one client address, prompt and answer; 0: no limit"
        ),
        tokens_per_minute_standard=variable(
            "TOKENS_PER_MINUTE_STANDARD", "0", TOKENS, "the same for a user with a key of that tier"
        ),
        tokens_per_minute_premium=variable(
            "TOKENS_PER_MINUTE_PREMIUM", "0", TOKENS, "the same for a user with a key of that tier"
        ),
    )
    cache: Cache = several(
        Cache,
        l1_entries=variable(
            "CACHE_L1_ENTRIES", "1000", whole("answers", 1, 10_000_000), "answers kept in memory at most"
        ),
        l1_bytes=variable(
            "CACHE_L1_BYTES", "67108864", whole("bytes", 1, 1_099_511_627_776), "memory they take at most"
        ),
        ttl_s=variable("CACHE_TTL_S", "3600", seconds(1, 31_536_000), "how long an answer is fresh"),
        scope=variable("CACHE_SCOPE", "shared", one_of("shared", "tenant", "user"), "who may be served whose answer"),
    )
    sessions: SessionBounds = several(
        SessionBounds,
        max_messages=variable(
            "SESSION_MESSAGES", "100", whole("messages", 2, 1000), "messages kept of one conversation; older turns go"
        ),
        max_bytes=variable(
            "SESSION_BYTES",
            "262144",
            whole("bytes", 1024, 1_048_576),
            "bytes kept of one conversation; older turns go",
        ),
        ttl_s=variable(
            "SESSION_TTL_S", "86400", seconds(1, 31_536_000), "how long a conversation is kept after it was last used"
        ),
    )
    admin_key: OperatorKey | None = one(
        variable("ADMIN_KEY", "", OPERATOR_KEY, "key of the operator's routes; empty: there are none")
    )
    warm: Warm = several(
        Warm,
        per_s=variable("WARM_PER_S", "10", number(0.01, 10_000), "questions a second that are asked ahead"),
        concurrency=variable("WARM_CONCURRENCY", "4", whole("questions", 1, 1000), "how many of them at once"),
    )
    heartbeat_s: float = one(
        variable("HEARTBEAT_S", "15", seconds(0.05, 3600), "silence after which a comment is sent")
    )
    deadlines: Deadlines = several(
        Deadlines,
        connect_s=variable(
            "CONNECT_TIMEOUT_S", "5", seconds(0.05, 3600), "wait for a connection to a provider, each attempt"
        ),
        first_token_s=variable(
            "FIRST_TOKEN_TIMEOUT_S", "10", seconds(0.05, 3600), "wait for the first token, each attempt"
        ),
        stall_s=variable("STALL_TIMEOUT_S", "10", seconds(0.05, 3600), "wait between two chunks"),
        total_s=variable("TOTAL_TIMEOUT_S", "300", seconds(0.05, 86_400), "the whole request"),
    )
    retry: RetryPolicy = several(
        RetryPolicy,
        attempts=variable(
            "RETRY_ATTEMPTS", "3", whole("attempts", 1, 20), "attempts on one provider, the first included"
        ),
        base_s=variable(
            "RETRY_BASE_S", "1", seconds(0.001, 3600), "wait before the second attempt; later ones are longer"
        ),
        max_s=variable("RETRY_MAX_S", "30", seconds(0.001, 3600), "longest wait between attempts"),
        wish_max_s=variable(
            "RETRY_AFTER_MAX_S",
            "3",
            seconds(0, 3600),
            "longest Retry-After that is waited for; otherwise the next route is asked; this one rests in any case",
        ),
        budget_ratio=variable(
            "RETRY_BUDGET_RATIO",
            "0.2",
            number(0, 100),
            "extra calls of a provider at most (retries, hedges and the like), as a share of its others",
        ),
    )
    breaker: BreakerPolicy = several(
        BreakerPolicy,
        failures=variable(
            "BREAKER_FAILURES",
            "5",
            whole("calls", 1, 1000),
            "failures among the last calls that open a route's circuit",
        ),
        window=variable("BREAKER_WINDOW", "10", whole("calls", 1, 1000), "how many calls are the last calls"),
        open_s=variable("BREAKER_OPEN_S", "60", seconds(0.05, 86_400), "how long an open circuit turns calls away"),
    )
    midstream: str = one(
        variable(
            "MIDSTREAM",
            "continue",
            one_of("continue", "fail"),
            "a provider lost after its first token: ask the next one for the rest, or end the stream",
        )
    )
    hedge_ratio: float = one(
        variable(
            "HEDGE_RATIO",
            "0",
            number(0, 1),
            "share of requests that may ask a second route when the first is slower than usual; 0: none",
        )
    )
    grace_s: float = one(
        variable("GRACE_S", "10", seconds(0, 3600), "how long a generation goes on after its last reader has left")
    )
    trace_sample_ratio: float = one(
        variable("TRACE_SAMPLE_RATIO", "0.1", number(0, 1), "share of requests tracked stage by stage")
    )
    log: Log = several(
        Log,
        level=variable("LOG_LEVEL", "info", one_of("debug", "info", "warning", "error"), "least level written"),
        format=variable("LOG_FORMAT", "json", one_of("json", "console"), "json for machines, console for people"),
    )
    notes: tuple[str, ...] = ()
    """What is not wrong and may not be what was meant: a sentence each, such as of a name that is not known."""


_SOURCES: dict[str, Source[Any]] = {
    part.name: part.metadata[Source] for part in fields(Settings) if Source in part.metadata
}
VARIABLES = tuple(stated for source in _SOURCES.values() for stated in source.variables.values())
NOT_ABOVE = (("WEIR_BREAKER_FAILURES", "WEIR_BREAKER_WINDOW"), ("WEIR_RETRY_BASE_S", "WEIR_RETRY_MAX_S"))


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that `environ` states; an empty variable is an unset one.

    Raises:
        ConfigurationError: one or more variables cannot be right; all of them are listed.
    """
    values, problems = _read_each(environ)
    problems += _contradictions(values)
    problems += _without_keys(values)
    if problems:
        raise ConfigurationError(tuple(problems))
    parts = {name: source.build(values) for name, source in _SOURCES.items()}
    return Settings(**parts, notes=(*_unknown(environ), *_unread(values)))


def _read_each(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    values, problems = {}, []
    for stated in VARIABLES:
        given = environ.get(stated.name, "")
        try:
            values[stated.name] = stated.accepted.read(given.strip() or stated.default)
        except ValueError as error:
            problems.append(stated.accepted.problem(stated.name, given, error))
    return values, problems


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    for lower, upper in NOT_ABOVE:
        if lower in values and upper in values and values[lower] > values[upper]:
            yield f"{lower}={values[lower]:g}: no more than {upper}, which is {values[upper]:g}"


def _without_keys(values: Mapping[str, Any]) -> Iterator[str]:
    has_keys = values.get("WEIR_REDIS_URL", True) or values.get("WEIR_API_KEYS_FILE", True)
    if values.get("WEIR_AUTH") == "required" and not has_keys:
        yield "WEIR_AUTH='required': also WEIR_API_KEYS_FILE or WEIR_REDIS_URL, where the keys are"


def _unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {stated.name.removeprefix(PREFIX) for stated in VARIABLES}
    given = {name.removeprefix(PREFIX) for name, text in environ.items() if name.startswith(PREFIX) and text}
    return tuple(_unknown_sentence(name, known) for name in sorted(given - known))


def _unread(values: Mapping[str, Any]) -> Iterator[str]:
    if values["WEIR_REDIS_URL"] and values["WEIR_API_KEYS_FILE"]:
        yield "WEIR_API_KEYS_FILE is not read: with WEIR_REDIS_URL keys are in Redis"


def _unknown_sentence(name: str, known: set[str]) -> str:
    nearest = get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"{PREFIX}{name} is not known" + "".join(f"; did you mean {PREFIX}{near}?" for near in nearest)
