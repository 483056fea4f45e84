"""The only module that knows which adapter stands behind which port."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import metadata

from dependency_injector import containers, providers
from ulid import ULID

from app.connections import Connections, places
from app.dependencies import HttpPolicy, Service
from app.reading import Bodies
from config.catalogue import Catalogue, Kind, ProviderConfig
from config.settings import Settings
from domain.admission import Slots
from domain.answer import CacheStatus
from domain.auditing import Auditing
from domain.breaker import circuit_name
from domain.caching import Purges
from domain.callers import Callers
from domain.calls import Calls
from domain.concurrency import ProviderSlots
from domain.events import Events, Publish
from domain.failover import Failover
from domain.fingerprint import CacheScope
from domain.hedging import Hedging, Pace
from domain.leading import Leaders
from domain.lifecycle import Lifecycle, Policy
from domain.limiting import Rate
from domain.operator import Operator, alone, nothing_to_learn
from domain.ports import KeyStore, Provider
from domain.retrying import RetryBudgets
from domain.routing import Routing
from domain.sessions import Conversations
from domain.spending import Spending
from domain.tracking import Tracker
from domain.warming import Warming
from infrastructure.memory.audit_trail import MemoryAuditTrail
from infrastructure.memory.circuit_breakers import PurgatoryCircuitBreakers
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.generations import Generations
from infrastructure.memory.key_store import COMPONENT as KEYS_COMPONENT
from infrastructure.memory.key_store import FileKeyStore
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from infrastructure.memory.response_cache import MemoryResponseCache
from infrastructure.memory.session_store import MemorySessionStore
from infrastructure.memory.usage_limiter import MemoryUsageLimiter
from infrastructure.redis.audit_trail import RedisAuditTrail
from infrastructure.redis.circuit_breakers import RedisCircuitBreakers
from infrastructure.redis.client import COMPONENT, RedisClient
from infrastructure.redis.connection import connect as connect_redis
from infrastructure.redis.events import FleetEvents
from infrastructure.redis.generation_log import RedisGenerationLog
from infrastructure.redis.key_store import RedisKeyStore
from infrastructure.redis.late_answers import LateAnswers
from infrastructure.redis.liveness import Liveness
from infrastructure.redis.popularity import Popularity
from infrastructure.redis.purges import RedisPurges
from infrastructure.redis.rate_limiter import RedisRateLimiter
from infrastructure.redis.response_cache import RedisResponseCache
from infrastructure.redis.session_store import RedisSessionStore
from infrastructure.redis.subscriptions import Subscriptions
from infrastructure.redis.usage_limiter import RedisUsageLimiter
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
    match kind:
        case "gemini":
            from infrastructure.providers.gemini import GeminiProvider  # noqa: PLC0415  # see above

            return GeminiProvider
        case "openai":
            from infrastructure.providers.openai import OpenAIProvider  # noqa: PLC0415  # see above

            return OpenAIProvider


def _rates(settings: Settings) -> dict[str, Rate]:
    """What each tier may ask; a tier that is left out has no limit."""
    limits = settings.limits
    rates = {"anonymous": limits.rate_anonymous, "standard": limits.rate_standard, "premium": limits.rate_premium}
    return {tier: rate for tier, rate in rates.items() if rate is not None}


def _tokens_per_minute(settings: Settings) -> dict[str, int]:
    limits = settings.limits
    return {
        "anonymous": limits.tokens_per_minute_anonymous,
        "standard": limits.tokens_per_minute_standard,
        "premium": limits.tokens_per_minute_premium,
    }


def _circuits(catalogue: Catalogue) -> tuple[str, ...]:
    """The names of all routes' circuits."""
    routes = (route for model in catalogue.models.values() for route in model.routes)
    return tuple(dict.fromkeys(circuit_name(route.provider, route.model) for route in routes))


def _provider_slots(catalogue: Catalogue) -> ProviderSlots:
    return ProviderSlots({name: config.max_concurrency for name, config in catalogue.providers.items()})


def _hedging(ratio: float, pace: Pace) -> Hedging | None:
    return Hedging(ratio, pace) if ratio else None


def _store(redis_url: str) -> str:
    """Where instances meet."""
    return "redis" if redis_url else "memory"


def _components(settings: Settings) -> tuple[str, ...]:
    """What the service can do without, for a while."""
    if settings.redis_url:
        return (COMPONENT,)
    return (KEYS_COMPONENT,) if settings.access.api_keys_file else ()


def _file_keys(settings: Settings, publish: Publish, clock: Callable[[], float]) -> KeyStore | None:
    """The keys of the file, if there is to be one."""
    path = settings.access.api_keys_file
    return None if path is None else FileKeyStore(path, publish=publish, clock=clock)


MAX_SESSIONS = 1000
"""How many conversations are kept at most: in memory of all callers together, in Redis of each."""


def _lease_s(total_s: float) -> float:
    """A lease outlives the longest answer; whether its leader lives is said otherwise."""
    return total_s + 60.0


class Container(containers.DeclarativeContainer):
    """Everything that is built once a process. `settings` and `catalogue` are given; all else follows from them."""

    settings: providers.Dependency[Settings] = providers.Dependency(instance_of=Settings)
    catalogue: providers.Dependency[Catalogue] = providers.Dependency(instance_of=Catalogue)

    version = providers.Object(metadata.version("weir"))
    events = providers.Singleton(Events)
    publish = events.provided.publish
    clock = providers.Object(time.monotonic)
    unix_now = providers.Object(time.time)
    new_id = providers.Object(lambda: str(ULID()))

    log_lines = providers.Singleton(lambda: Lines(sys.stdout.buffer))
    log = providers.Singleton(
        make_log, level=settings.provided.log.level, form=settings.provided.log.format, lines=log_lines
    )
    event_log = providers.Singleton(EventLog, log=log, events=events)

    providers_by_name = providers.Singleton(
        connect, catalogue.provided.providers, settings.provided.deadlines.connect_s
    )
    circuits = providers.Singleton(_circuits, catalogue)
    own_breakers = providers.Singleton(
        PurgatoryCircuitBreakers, policy=settings.provided.breaker, publish=publish, clock=clock
    )
    rates = providers.Callable(_rates, settings)
    tokens_per_minute = providers.Callable(_tokens_per_minute, settings)
    slots = providers.Singleton(
        Slots,
        limit=settings.provided.limits.max_connections,
        limit_per_user=settings.provided.limits.max_connections_per_user,
        queue_size=settings.provided.limits.queue_size,
        queue_timeout_s=settings.provided.limits.queue_timeout_s,
        clock=clock,
    )
    purges = providers.Singleton(Purges, settings.provided.cache.ttl_s)
    memory_cache = providers.Singleton(
        MemoryResponseCache,
        max_entries=settings.provided.cache.l1_entries,
        max_bytes=settings.provided.cache.l1_bytes,
        ttl_s=settings.provided.cache.ttl_s,
        purges=purges,
        unix_now=unix_now,
    )
    generations = providers.Singleton(
        Generations,
        max_entries=settings.provided.cache.l1_entries,
        max_bytes=settings.provided.cache.l1_bytes,
        ttl_s=settings.provided.cache.ttl_s,
        clock=clock,
    )
    store = providers.Callable(_store, settings.provided.redis_url)

    instance_id = providers.Singleton(lambda: str(ULID()))
    redis = providers.Singleton(connect_redis, settings.provided.redis_url)
    redis_client = providers.Singleton(
        RedisClient, redis.provided.commands, linger_s=settings.provided.log_linger_s, publish=publish
    )
    subscriptions = providers.Singleton(Subscriptions, redis.provided.subscribe, publish)
    fleet_events = providers.Singleton(FleetEvents, subscriptions)
    breakers = providers.Selector(
        store,
        memory=own_breakers,
        redis=providers.Singleton(
            RedisCircuitBreakers,
            local=own_breakers,
            client=redis_client,
            events=fleet_events,
            circuits=circuits,
            instance_id=instance_id,
            probe_s=settings.provided.deadlines.first_token_s,
            clock=clock,
            unix_now=unix_now,
        ),
    )
    key_store = providers.Selector(
        store,
        memory=providers.Singleton(_file_keys, settings=settings, publish=publish, clock=clock),
        redis=providers.Singleton(
            RedisKeyStore, client=redis_client, events=fleet_events, publish=publish, clock=clock
        ),
    )
    callers = providers.Singleton(
        Callers,
        store=key_store,
        is_required=providers.Callable(lambda auth: auth == "required", settings.provided.access.auth),
        unix_now=unix_now,
    )
    redis_purges = providers.Singleton(
        RedisPurges,
        purges=purges,
        client=redis_client,
        events=fleet_events,
        ttl_s=settings.provided.cache.ttl_s,
        publish=publish,
    )
    learn_purges = providers.Selector(
        store, memory=providers.Object(nothing_to_learn), redis=redis_purges.provided.learn
    )
    tell = providers.Selector(store, memory=providers.Object(alone), redis=redis_purges.provided.tell)
    redis_cache = providers.Singleton(
        RedisResponseCache,
        client=redis_client,
        ttl_s=settings.provided.cache.ttl_s,
        purges=purges,
        publish=publish,
        unix_now=unix_now,
    )

    longest_answer_s = providers.Callable(_lease_s, settings.provided.deadlines.total_s)
    generation_log = providers.Selector(
        store,
        memory=providers.Singleton(MemoryGenerationLog, generations),
        redis=providers.Singleton(
            RedisGenerationLog,
            client=redis_client,
            subscriptions=subscriptions,
            generations=generations,
            instance_id=instance_id,
            lease_s=longest_answer_s,
            keep_s=settings.provided.cache.ttl_s,
            purges=purges,
            publish=publish,
        ),
    )
    late_answers = providers.Singleton(
        LateAnswers,
        client=redis_client,
        cache=redis_cache,
        max_entries=settings.provided.cache.l1_entries,
        max_bytes=settings.provided.cache.l1_bytes,
        learn=redis_purges.provided.learn,
        settle=generation_log.provided.settle,
        publish=publish,
    )
    session_store = providers.Selector(
        store,
        memory=providers.Singleton(
            MemorySessionStore,
            bounds=settings.provided.sessions,
            begun_s=longest_answer_s,
            max_sessions=MAX_SESSIONS,
            unix_now=unix_now,
        ),
        redis=providers.Singleton(
            RedisSessionStore,
            client=redis_client,
            bounds=settings.provided.sessions,
            begun_s=longest_answer_s,
            max_sessions=MAX_SESSIONS,
            publish=publish,
            unix_now=unix_now,
        ),
    )
    conversations = providers.Singleton(
        Conversations,
        store=session_store,
        log=generation_log,
        publish=publish,
        new_id=new_id,
        limit_s=longest_answer_s,
    )
    liveness = providers.Singleton(
        Liveness, client=redis_client, log=generation_log, instance_id=instance_id, publish=publish
    )
    instance_count = providers.Callable(lambda liveness: lambda: liveness.instance_count, liveness)
    redis_limiter = providers.Singleton(
        RedisRateLimiter,
        rates=rates,
        client=redis_client,
        instance_id=instance_id,
        instance_count=instance_count,
        publish=publish,
        clock=clock,
    )
    limiter = providers.Selector(
        store,
        memory=providers.Singleton(MemoryRateLimiter, rates=rates, publish=publish, clock=clock),
        redis=redis_limiter,
    )
    usage_limiter = providers.Selector(
        store,
        memory=providers.Singleton(MemoryUsageLimiter, tiers=tokens_per_minute, clock=clock, unix_now=unix_now),
        redis=providers.Singleton(
            RedisUsageLimiter,
            tiers=tokens_per_minute,
            client=redis_client,
            own=providers.Singleton(
                MemoryUsageLimiter, tiers=tokens_per_minute, clock=clock, unix_now=unix_now, share=instance_count
            ),
            new_id=new_id,
            clock=clock,
            unix_now=unix_now,
        ),
    )
    caches = providers.Selector(
        store, memory=providers.List(memory_cache), redis=providers.List(memory_cache, redis_cache)
    )
    tiers = providers.Selector(
        store,
        memory=providers.List(providers.List(providers.Object(CacheStatus.L1), memory_cache)),
        redis=providers.List(
            providers.List(providers.Object(CacheStatus.L1), memory_cache),
            providers.List(providers.Object(CacheStatus.L2), redis_cache),
        ),
    )
    popularity = providers.Singleton(
        Popularity,
        client=redis_client,
        events=events,
        near=memory_cache,
        far=redis_cache,
        near_entries=settings.provided.cache.l1_entries,
        ttl_s=settings.provided.cache.ttl_s,
    )
    redis_audit_trail = providers.Singleton(RedisAuditTrail, client=redis_client, publish=publish)
    audit_trail = providers.Selector(store, memory=providers.Singleton(MemoryAuditTrail), redis=redis_audit_trail)
    auditing = providers.Singleton(Auditing, trail=audit_trail, events=events, unix_now=unix_now)
    shared = providers.Selector(
        store,
        memory=providers.List(),
        redis=providers.List(
            subscriptions, key_store, liveness, popularity, late_answers, redis_limiter, redis_audit_trail, redis_client
        ),
    )
    pace = providers.Singleton(Pace)
    provider_slots = providers.Singleton(_provider_slots, catalogue)
    routing = providers.Singleton(
        Routing,
        breakers=breakers,
        slots=provider_slots,
        random=providers.Object(random.random),
        wish_max_s=settings.provided.retry.wish_max_s,
    )
    budgets = providers.Singleton(RetryBudgets, settings.provided.retry.budget_ratio, clock)
    calls = providers.Singleton(
        Calls,
        providers=providers_by_name,
        breakers=breakers,
        deadlines=settings.provided.deadlines,
        publish=publish,
        slots=provider_slots,
        budgets=budgets,
        learners=providers.List(routing, pace),
    )
    failover = providers.Singleton(
        Failover,
        calls=calls,
        breakers=breakers,
        budgets=budgets,
        total_s=settings.provided.deadlines.total_s,
        continues=providers.Callable(lambda midstream: midstream == "continue", settings.provided.midstream),
        hedging=providers.Callable(_hedging, settings.provided.hedge_ratio, pace),
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
        caches=caches,
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
        tiers=tiers,
        log=generation_log,
        spending=providers.Singleton(Spending, limiter=limiter, usage=usage_limiter),
        routing=routing,
        leaders=leaders,
        conversations=conversations,
        tracker=tracker,
        publish=publish,
        new_id=new_id,
        clock=clock,
        unix_now=unix_now,
    )

    warming = providers.Singleton(
        Warming,
        lifecycle=lifecycle,
        scope=providers.Factory(CacheScope, settings.provided.cache.scope),
        per_s=settings.provided.warm.per_s,
        concurrency=settings.provided.warm.concurrency,
        clock=clock,
    )
    operator = providers.Singleton(
        Operator,
        purges=purges,
        tell=tell,
        breakers=breakers,
        providers=catalogue.provided.providers,
        circuits=circuits,
        models=catalogue.provided.models,
        publish=publish,
        unix_now=unix_now,
    )

    metrics = providers.Singleton(
        PrometheusMetrics,
        events=events,
        providers=catalogue.provided.providers,
        slots=slots,
        calls=provider_slots,
        task_count=providers.Object(lambda: len(asyncio.all_tasks())),
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
        components=providers.Callable(_components, settings),
    )
    connections = providers.Singleton(
        Connections,
        idle_s=settings.provided.limits.header_timeout_s,
        places=providers.Callable(places, settings.provided.limits.max_connections),
    )
    http_policy = providers.Singleton(
        lambda settings, catalogue: HttpPolicy(
            heartbeat_s=settings.heartbeat_s,
            bodies=Bodies(settings.limits.max_request_bytes, settings.limits.body_timeout_s),
            max_query_chars=settings.limits.max_query_chars,
            models={name: model.routes[0].provider for name, model in catalogue.models.items()},
            began_at_s=time.time(),
            operator_key=settings.admin_key,
            trusted_proxies=settings.access.trusted_proxies,
        ),
        settings,
        catalogue,
    )
    service = providers.Singleton(Service, lifecycle=lifecycle, callers=callers, policy=http_policy)


def container_for(settings: Settings, catalogue: Catalogue) -> Container:
    """The service as these say; nothing is built yet."""
    return Container(settings=providers.Object(settings), catalogue=providers.Object(catalogue))


@asynccontextmanager
async def key_store(settings: Settings) -> AsyncIterator[KeyStore]:
    """Where these say that keys are, without the service."""
    container = Container(settings=providers.Object(settings))
    try:
        yield container.key_store()
    finally:
        if settings.redis_url:
            await container.redis_client().close()
