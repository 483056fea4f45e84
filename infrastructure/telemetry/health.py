"""Whether the service can do its work, and what stands in its way."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from domain.breaker import CircuitState
from domain.events import AttemptEnded, CacheHit, CacheMiss, CircuitChanged, Events


class Health:
    """The checks of /health, kept by listening to `events`. `can_try` says whether a provider may be called now."""

    def __init__(
        self,
        *,
        events: Events,
        providers: Iterable[str],
        can_try: Callable[[str], bool],
        cache_size: Callable[[], Mapping[str, int]],
    ) -> None:
        self._circuits = dict.fromkeys(providers, CircuitState.CLOSED)
        self._last_outcomes: dict[str, str] = {}
        self._can_try = can_try
        self._cache_size = cache_size
        self._hits = self._misses = 0
        events.subscribe(CircuitChanged, self._circuit_changed)
        events.subscribe(AttemptEnded, self._attempt_ended)
        events.subscribe(CacheHit, self._hit)
        events.subscribe(CacheMiss, self._missed)

    @property
    def is_ready(self) -> bool:
        """Whether work may be sent here: at least one provider can be used."""
        return any(map(self._can_try, self._circuits))

    def checks(self) -> dict[str, Any]:
        """Every check, by name."""
        asked = self._hits + self._misses
        return {
            "providers": {name: self._provider(name) for name in self._circuits},
            "cache": {"status": "healthy", "hit_rate": self._hits / asked if asked else None, **self._cache_size()},
        }

    def _provider(self, name: str) -> dict[str, Any]:
        is_usable = self._can_try(name)
        return {
            "status": "healthy" if is_usable else "unhealthy",
            "circuit": self._circuits[name].value,
            "last_outcome": self._last_outcomes.get(name),
        }

    def _circuit_changed(self, event: CircuitChanged) -> None:
        self._circuits[event.provider] = event.state

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._last_outcomes[event.provider] = event.outcome

    def _hit(self, _: CacheHit) -> None:
        self._hits += 1

    def _missed(self, _: CacheMiss) -> None:
        self._misses += 1
