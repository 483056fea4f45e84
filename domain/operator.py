"""What those may do who run the service."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from domain.breaker import Circuit
from domain.caching import Purge, Purges
from domain.errors import UnknownModel, UnknownProvider
from domain.events import CachePurged, Publish
from domain.ports import CircuitBreakers

TellFleet = Callable[[Purge], Awaitable[bool]]
"""Says whether all instances are told of a purge now, and not only when they can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """A purge; unless `is_fleetwide`, other instances hear of it later."""

    purge: Purge
    is_fleetwide: bool


class Operator:
    """Empties the cache, and looks after circuits."""

    def __init__(
        self,
        *,
        purges: Purges,
        tell: TellFleet,
        breakers: CircuitBreakers,
        providers: Collection[str],
        models: Collection[str],
        publish: Publish,
        unix_now: Callable[[], float],
    ) -> None:
        self._purges = purges
        self._tell = tell
        self._breakers = breakers
        self._providers = providers
        self._models = models
        self._publish = publish
        self._unix_now = unix_now

    async def purge(self, model: str | None, scope: str | None) -> Purged:
        """No answer that was whole before is served any more: of this model and scope, of all where None.

        Raises:
            UnknownModel: the catalogue has no such model.
        """
        if model is not None and model not in self._models:
            raise UnknownModel(model, tuple(self._models))
        purge = Purge(at_s=self._unix_now(), model=model, scope=scope)
        if self._purges.add(purge):
            self._publish(CachePurged(model=model, scope=scope))
        return Purged(purge=purge, is_fleetwide=await self._tell(purge))

    def circuits(self) -> list[Circuit]:
        """How each provider's circuit stands."""
        return [self._breakers.circuit(provider) for provider in self._providers]

    def reset(self, provider: str) -> Circuit:
        """The provider's circuit is closed.

        Raises:
            UnknownProvider: there is none of that name.
        """
        if provider not in self._providers:
            raise UnknownProvider(provider, tuple(self._providers))
        self._breakers.reset(provider)
        return self._breakers.circuit(provider)


async def nothing_to_learn() -> None:
    """Nobody else has purged anything."""


async def alone(_: Purge) -> bool:
    """Nobody else has to be told."""
    return True
