"""The only module that knows which adapter stands behind which port."""

import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata

from dependency_injector import containers, providers
from ulid import ULID

from app.dependencies import HttpPolicy, Service
from config.catalogue import Catalogue, Kind, ProviderConfig
from config.settings import Settings
from domain.admission import Slots
from domain.answer import CacheStatus
from domain.events import Events
from domain.failover import Failover
from domain.fingerprint import CacheScope
from domain.leading import Leaders
from domain.lifecycle import Lifecycle, Policy
from domain.limiting import Rate
from domain.ports import Provider
from domain.tracking import Tracker
from infrastructure.memory.circuit_breakers import PurgatoryCircuitBreakers
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from infrastructure.memory.response_cache import MemoryResponseCache
from infrastructure.retry_delays import full_jitter_delays
from infrastructure.telemetry.health import Health
from infrastructure.telemetry.lines import Lines
from infrastructure.telemetry.log import EventLog, make_log
from infrastructure.telemetry.metrics import PrometheusMetrics


def connect(configs: Mapping[str, ProviderConfig], connect_timeout_s: float) -> dict[str, Provider]:
    """An adapter for each provider, by name; nothing is sent yet."""
    return {
        name: _adapter(config.kind)(config.base_url, config.api_key, connect_timeout_s)
        for name, config in configs.items()
    }


def _adapter(kind: Kind) -> Callable[[str, str, float], Provider]:
    """The adapter for that protocol. An SDK takes up to a second and 40 MB to load: those not in use stay out."""
    if kind == "gemini":
        from infrastructure.providers.gemini import GeminiProvider  # noqa: PLC0415  # see above

        return GeminiProvider
    from infrastructure.providers.openai import OpenAIProvider  # noqa: PLC0415  # see above

    return OpenAIProvider


def _rates(settings: Settings) -> dict[str, Rate]:
    rate = settings.limits.rate_anonymous
    return {} if rate is None else {"anonymous": rate}


class Container(containers.DeclarativeContainer):
    """Everything that is built once a process. `settings` and `catalogue` are given; all else follows from them."""

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    catalogue: providers.Dependency[Catalogue] = providers.Dependency(instance_of=Catalogue)

    version = providers.Object(metadata.version("weir"))
    events = providers.Singleton(Events)
    publish = events.provided.publish
    clock = providers.Object(time.monotonic)
    unix_now = providers.Object(time.time)

    log_lines = providers.Singleton(lambda: Lines(sys.stdout.buffer))
    log = providers.Singleton(
        make_log, level=settings.provided.log.level, form=settings.provided.log.format, lines=log_lines
    )
    event_log = providers.Singleton(EventLog, log=log, events=events)

    providers_by_name = providers.Singleton(
        connect, catalogue.provided.providers, settings.provided.deadlines.connect_s
    )
    breakers = providers.Singleton(
        PurgatoryCircuitBreakers, policy=settings.provided.breaker, publish=publish, clock=clock
    )
    limiter = providers.Singleton(
        MemoryRateLimiter,
        rates=providers.Callable(_rates, settings),
        publish=publish,
        clock=clock,
    )
    slots = providers.Singleton(
        Slots,
        limit=settings.provided.limits.max_connections,
        limit_per_user=settings.provided.limits.max_connections_per_user,
    )
    memory_cache = providers.Singleton(
        MemoryResponseCache,
        max_entries=settings.provided.cache.l1_entries,
        max_bytes=settings.provided.cache.l1_bytes,
        ttl_s=settings.provided.cache.ttl_s,
        unix_now=unix_now,
    )
    generation_log = providers.Singleton(
        MemoryGenerationLog,
        max_entries=settings.provided.cache.l1_entries,
        max_bytes=settings.provided.cache.l1_bytes,
        ttl_s=settings.provided.cache.ttl_s,
        clock=clock,
    )
    failover = providers.Singleton(
        Failover,
        providers=providers_by_name,
        breakers=breakers,
        deadlines=settings.provided.deadlines,
        retry=settings.provided.retry,
        delays=providers.Callable(
            lambda retry: lambda: full_jitter_delays(retry.base_s, retry.max_s), settings.provided.retry
        ),
        publish=publish,
    )
    leaders = providers.Singleton(
        Leaders,
        log=generation_log,
        failover=failover,
        caches=providers.List(memory_cache),
        publish=publish,
        clock=clock,
        unix_now=unix_now,
        grace_s=settings.provided.grace_s,
    )
    tracker = providers.Singleton(
        Tracker, ratio=settings.provided.trace_sample_ratio, publish=publish, clock=providers.Object(time.perf_counter)
    )
    lifecycle = providers.Singleton(
        Lifecycle,
        policy=providers.Factory(
            Policy,
            models=catalogue.provided.models,
            ttl_s=settings.provided.cache.ttl_s,
            scope=providers.Factory(CacheScope, settings.provided.cache.scope),
        ),
        slots=slots,
        tiers=providers.List(providers.List(providers.Object(CacheStatus.L1), memory_cache)),
        log=generation_log,
        limiter=limiter,
        breakers=breakers,
        leaders=leaders,
        tracker=tracker,
        publish=publish,
        new_id=providers.Object(lambda: str(ULID())),
        clock=clock,
        unix_now=unix_now,
    )

    metrics = providers.Singleton(
        PrometheusMetrics,
        events=events,
        providers=catalogue.provided.providers,
        active_streams=providers.Callable(lambda slots: lambda: slots.taken_count, slots),
        version=version,
    )
    health = providers.Singleton(
        Health,
        events=events,
        providers=catalogue.provided.providers,
        can_try=breakers.provided.can_try,
        cache_size=providers.Callable(
            lambda cache: lambda: {"entries": len(cache), "bytes": cache.size_bytes}, memory_cache
        ),
    )
    http_policy = providers.Singleton(
        lambda settings, catalogue: HttpPolicy(
            heartbeat_s=settings.heartbeat_s,
            max_request_bytes=settings.limits.max_request_bytes,
            max_query_chars=settings.limits.max_query_chars,
            models={name: model.routes[0].provider for name, model in catalogue.models.items()},
            began_at_s=time.time(),
        ),
        settings,
        catalogue,
    )
    service = providers.Singleton(Service, lifecycle=lifecycle, policy=http_policy)


def container_for(settings: Settings, catalogue: Catalogue) -> Container:
    """The service as these say; nothing is built yet."""
    return Container(settings=providers.Object(settings), catalogue=providers.Object(catalogue))
