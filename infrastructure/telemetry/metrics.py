"""What happened, counted for Prometheus under the names of the contract."""

from collections.abc import Callable, Iterable
from functools import cache, partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from domain.admission import Slots
from domain.breaker import CircuitState, worst
from domain.concurrency import ProviderSlots
from domain.events import (
    AnswerServed,
    AttemptEnded,
    CacheHit,
    CacheMiss,
    CachePurged,
    CircuitChanged,
    Coalesced,
    ComponentChanged,
    EntryUnreadable,
    Events,
    ExchangeEnded,
    FailedOver,
    FirstChunkServed,
    RateChecked,
    RequestTurnedAway,
    SessionFailed,
    StageTimed,
    StoreFailed,
    TokensSpent,
)
from infrastructure.telemetry.tallies import Count, Counts, Spread, Spreads

_CIRCUIT_LEVELS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
_SLOT_REFUSALS = {"at_capacity", "too_many_connections"}
_STREAM_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STAGE_BUCKETS = (0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


class PrometheusMetrics:
    """The process's metrics, kept by listening to `events`."""

    def __init__(
        self,
        *,
        events: Events,
        providers: Iterable[str],
        slots: Slots,
        calls: ProviderSlots,
        task_count: Callable[[], int],
        version: str,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._gauges("sse_build_info", "The running version", "version")(version).set(1)
        self._gauge("sse_active_connections", "Live streams").set_function(lambda: slots.taken_count)
        self._gauge("sse_waiting_connections", "Requests that wait for a slot").set_function(
            lambda: slots.waiting_count
        )
        self._gauge("sse_tasks", "Of the event loop; a handful while nothing is asked").set_function(task_count)
        self._count_requests(events)
        self._count_cache(events)
        self._count_limits(events)
        self._count_calls(providers, calls)
        self._count_providers(events, providers)
        self._count_usage(events)
        self._count_stores(events)

    content_type = CONTENT_TYPE_LATEST

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _count_requests(self, events: Events) -> None:
        requests = self._counters("sse_requests_total", "Requests", "method", "endpoint", "status")
        durations = self._histograms(
            "sse_request_duration_seconds", "To the last byte", _STREAM_BUCKETS, "method", "endpoint"
        )
        stages = self._histograms("sse_stage_duration_seconds", "Of tracked requests", _STAGE_BUCKETS, "stage")
        first_chunks = self._histograms(
            "sse_time_to_first_token_seconds",
            "From the request to its first chunk",
            _STREAM_BUCKETS,
            "provider",
            "cache",
        )

        def ended(event: ExchangeEnded) -> None:
            requests(event.method, event.endpoint, event.status).inc()
            durations(event.method, event.endpoint).observe(event.duration_s)

        events.subscribe(ExchangeEnded, ended)
        events.subscribe(StageTimed, lambda event: stages(event.stage).observe(event.duration_s))
        events.subscribe(
            FirstChunkServed, lambda event: first_chunks(event.provider, event.cache).observe(event.seconds)
        )

    def _count_cache(self, events: Events) -> None:
        hits = self._counters("sse_cache_hits_total", "Answers served from a store", "tier")
        misses = self._counter("sse_cache_misses_total", "Requests for which no stored answer would do")
        coalesced = self._counter("sse_coalesced_total", "Requests that joined an answer under way")
        saved = self._counter("sse_saved_usd_total", "What stored and joined answers would have cost")
        purges = self._counter("sse_cache_purges_total", "Times that stored answers were purged")
        events.subscribe(CachePurged, lambda _: purges.inc())
        events.subscribe(CacheHit, lambda event: hits(event.tier).inc())
        events.subscribe(CacheMiss, lambda _: misses.inc())
        events.subscribe(Coalesced, lambda _: coalesced.inc())
        events.subscribe(AnswerServed, lambda event: saved.inc(event.saved_usd))

    def _count_limits(self, events: Events) -> None:
        checks = self._counters("sse_rate_limit_checks_total", "Buckets asked", "path")
        exceeded = self._counters("sse_rate_limit_exceeded_total", "Requests over their rate", "tier")
        rejected = self._counters("sse_connections_rejected_total", "Requests without a slot", "reason")

        def turned_away(event: RequestTurnedAway) -> None:
            if event.code == "rate_limited":
                exceeded(event.caller.tier).inc()
            elif event.code in _SLOT_REFUSALS:
                rejected(event.code).inc()

        events.subscribe(RateChecked, lambda event: checks(event.path).inc())
        events.subscribe(RequestTurnedAway, turned_away)

    def _count_calls(self, providers: Iterable[str], calls: ProviderSlots) -> None:
        under_way = self._gauges("sse_provider_calls", "Calls under way", "provider")
        for provider in providers:
            under_way(provider).set_function(partial(calls.taken_count, provider))

    def _count_providers(self, events: Events, providers: Iterable[str]) -> None:
        attempts = self._counters("sse_provider_attempts_total", "Calls by how they ended", "provider", "outcome")
        failovers = self._counters("sse_failovers_total", "Turns to the next provider", "from", "to", "phase")
        states = self._gauges("sse_circuit_state", "0 closed, 1 half-open, 2 open: its worst model", "provider")
        transitions = self._counters("sse_circuit_transitions_total", "Changes of its circuits", "provider", "to")
        models: dict[str, dict[str, CircuitState]] = {provider: {} for provider in providers}
        for provider in models:
            states(provider).set(0)

        def changed(event: CircuitChanged) -> None:
            models[event.provider][event.model] = event.state
            states(event.provider).set(_CIRCUIT_LEVELS[worst(models[event.provider].values())])
            transitions(event.provider, event.state.value).inc()

        events.subscribe(AttemptEnded, lambda event: attempts(event.provider, event.outcome).inc())
        events.subscribe(FailedOver, lambda event: failovers(event.previous, event.provider, event.phase).inc())
        events.subscribe(CircuitChanged, changed)

    def _count_usage(self, events: Events) -> None:
        tokens = self._counters("sse_tokens_total", "As providers count them, or estimated", "provider", "direction")
        cost = self._counters("sse_cost_usd_total", "By the catalogue's prices", "provider")

        def spent(event: TokensSpent) -> None:
            tokens(event.provider, "in").inc(event.usage.prompt_tokens)
            tokens(event.provider, "out").inc(event.usage.completion_tokens)
            cost(event.provider).inc(event.cost_usd)

        events.subscribe(TokensSpent, spent)

    def _count_stores(self, events: Events) -> None:
        errors = self._counters("sse_redis_errors_total", "What Redis has not done", "operation")
        degraded = self._gauges("sse_degraded", "1 while the component cannot be used", "component")
        unreadable = self._counter("sse_cache_unreadable_total", "Stored answers that could not be read")
        degraded("redis").set(0)
        events.subscribe(StoreFailed, lambda event: errors(event.operation).inc())
        events.subscribe(SessionFailed, lambda _: errors("session").inc())
        events.subscribe(EntryUnreadable, lambda _: unreadable.inc())
        events.subscribe(ComponentChanged, lambda event: degraded(event.component).set(event.is_degraded))

    def _counter(self, name: str, text: str) -> Count:
        return self._counters(name, text)()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def _counters(self, name: str, text: str, *labels: str) -> Callable[..., Count]:
        return Counts(name, text, labels, self._registry).of

    def _gauges(self, name: str, text: str, *labels: str) -> Callable[..., Gauge]:
        """A gauge for each set of labels; the library takes longer to find one than to set it."""
        return cache(Gauge(name, text, labels, registry=self._registry).labels)

    def _histograms(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Callable[..., Spread]:
        return Spreads(name, text, bounds, labels, self._registry).of
