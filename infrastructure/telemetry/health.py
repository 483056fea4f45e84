"""Whether the service can do its work, and what stands in its way."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from domain.breaker import CircuitState, circuit_name, worst
from domain.events import AttemptEnded, CacheHit, CacheMiss, CircuitChanged, ComponentChanged, Events


class Health:
    """The checks of /health, kept by listening to `events`. `can_try` says whether a circuit gives a permit now.

    A provider can be used while one of its models can that has been called; none has been called, while it is not known
    better. `components` (redis) can be missed: without one the service is degraded, and still ready.
    """

    def __init__(
        self,
        *,
        events: Events,
        providers: Iterable[str],
        can_try: Callable[[str], bool],
        cache_size: Callable[[], Mapping[str, int]],
        components: Iterable[str] = (),
    ) -> None:
        self._models: dict[str, dict[str, CircuitState]] = {provider: {} for provider in providers}
        self._last_outcomes: dict[str, str] = {}
        self._can_try = can_try
        self._cache_size = cache_size
        self._is_degraded = dict.fromkeys(components, False)
        self._reasons: dict[str, str | None] = {}
        self._hits = self._misses = 0
        events.subscribe(CircuitChanged, self._circuit_changed)
        events.subscribe(AttemptEnded, self._attempt_ended)
        events.subscribe(CacheHit, self._hit)
        events.subscribe(CacheMiss, self._missed)
        events.subscribe(ComponentChanged, self._component_changed)

    @property
    def is_ready(self) -> bool:
        """Whether work may be sent here: at least one provider can be used."""
        return any(map(self._is_usable, self._models))

    @property
    def status(self) -> str:
        """All in one word: healthy, degraded or unhealthy."""
        if not self.is_ready:
            return "unhealthy"
        return "degraded" if any(self._is_degraded.values()) else "healthy"

    def checks(self) -> dict[str, Any]:
        """Every check, by name."""
        asked = self._hits + self._misses
        return {
            "providers": {name: self._provider(name) for name in self._models},
            **{name: self._component(name) for name in self._is_degraded},
            "cache": {"status": "healthy", "hit_rate": self._hits / asked if asked else None, **self._cache_size()},
        }

    def _provider(self, name: str) -> dict[str, Any]:
        return {
            "status": "healthy" if self._is_usable(name) else "unhealthy",
            "circuit": worst(self._models[name].values()).value,
            "last_outcome": self._last_outcomes.get(name),
        }

    def _component(self, name: str) -> dict[str, Any]:
        reason = self._reasons.get(name)
        status = "degraded" if self._is_degraded[name] else "healthy"
        return {"status": status} | ({"reason": reason} if reason else {})

    def _is_usable(self, provider: str) -> bool:
        models = self._models[provider]
        return not models or any(self._can_try(circuit_name(provider, model)) for model in models)

    def _circuit_changed(self, event: CircuitChanged) -> None:
        self._models[event.provider][event.model] = event.state

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._last_outcomes[event.provider] = event.outcome
        self._models[event.provider].setdefault(event.model, CircuitState.CLOSED)

    def _component_changed(self, event: ComponentChanged) -> None:
        self._is_degraded[event.component] = event.is_degraded
        self._reasons[event.component] = event.reason if event.is_public else None

    def _hit(self, _: CacheHit) -> None:
        self._hits += 1

    def _missed(self, _: CacheMiss) -> None:
        self._misses += 1
