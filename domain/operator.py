"""What those may do who run the service."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from domain.breaker import Circuit, CircuitState, model_of, provider_of, worst
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCircuits:
    """How the circuits of a provider's models stand; the provider is as its worst one."""

    provider: str
    circuits: Sequence[Circuit]

    @property
    def state(self) -> CircuitState:
        """The worst of the circuits' states."""
        return worst(circuit.state for circuit in self.circuits)

    @property
    def wait_s(self) -> float:
        """Seconds until all of its models can be called."""
        return max((circuit.wait_s for circuit in self.circuits), default=0.0)

    @property
    def models(self) -> dict[str, Circuit]:
        """The circuits by model."""
        return {model_of(circuit.name): circuit for circuit in self.circuits}


class Operator:
    """Empties the cache, and looks after circuits."""

    def __init__(
        self,
        *,
        purges: Purges,
        tell: TellFleet,
        breakers: CircuitBreakers,
        providers: Collection[str],
        circuits: Collection[str],
        models: Collection[str],
        publish: Publish,
        unix_now: Callable[[], float],
    ) -> None:
        self._purges = purges
        self._tell = tell
        self._breakers = breakers
        self._providers = providers
        self._circuits = circuits
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

    def circuits(self) -> list[ProviderCircuits]:
        """How each provider's circuits stand."""
        return [self._circuits_of(provider) for provider in self._providers]

    def reset(self, provider: str) -> ProviderCircuits:
        """All of the provider's circuits are closed.

        Raises:
            UnknownProvider: there is none of that name.
        """
        if provider not in self._providers:
            raise UnknownProvider(provider, tuple(self._providers))
        for circuit in self._names_of(provider):
            self._breakers.reset(circuit)
        return self._circuits_of(provider)

    def _circuits_of(self, provider: str) -> ProviderCircuits:
        circuits = [self._breakers.circuit(circuit) for circuit in self._names_of(provider)]
        return ProviderCircuits(provider=provider, circuits=circuits)

    def _names_of(self, provider: str) -> list[str]:
        return [circuit for circuit in self._circuits if provider_of(circuit) == provider]


async def nothing_to_learn() -> None:
    """Nobody else has purged anything."""


async def alone(_: Purge) -> bool:
    """Nobody else has to be told."""
    return True
