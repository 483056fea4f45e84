"""A circuit for each provider in this process's memory.

purgatory keeps each circuit's state and announces its changes. Its own counting is not used: it trips on consecutive
failures only, lets any number of probes through and knows no neutral outcome (docs/decisions/0002).
"""

from collections.abc import Callable

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import ClosedState, Context, HalfOpenedState, OpenedState, State

from domain.breaker import BreakerPolicy, Circuit, CircuitState, Signal, Window, next_state
from domain.errors import CircuitOpen
from domain.events import CircuitChanged, Publish
from domain.ports import Permit

_STATES = {
    "closed": CircuitState.CLOSED,
    "opened": CircuitState.OPEN,
    "half-opened": CircuitState.HALF_OPEN,
}


class PurgatoryCircuitBreakers:
    """Gives permits by provider, and publishes every change of a circuit. `clock` is in monotonic seconds.

    `on_change` is told of the changes that were decided here, and not of those that were adopted.
    """

    def __init__(self, *, policy: BreakerPolicy, publish: Publish, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._publish = publish
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}
        self.on_change: Callable[[Circuit], object] = lambda _: None

    def can_try(self, provider: str) -> bool:
        """Whether `acquire` would give a permit now."""
        return self._circuit(provider).wait_s() <= 0

    async def acquire(self, provider: str) -> Permit:
        """A permit: always while closed, one at a time while half-open.

        Raises:
            CircuitOpen: with the time until the next probe.
        """
        return self.permit(provider)

    def permit(self, provider: str) -> Permit:
        """As `acquire`, at once."""
        return self._circuit(provider).acquire()

    def circuit(self, provider: str) -> Circuit:
        """How the circuit stands."""
        circuit = self._circuit(provider)
        return Circuit(provider=provider, state=circuit.state, wait_s=circuit.wait_s())

    def reset(self, provider: str) -> None:
        """The circuit is closed, and what was counted is forgotten."""
        circuit = self._circuit(provider)
        circuit.window.clear()
        circuit.react(Signal.RESET)

    def adopt(self, circuit: Circuit) -> None:
        """The circuit is as another process says; who has a probe out here no longer decides anything."""
        self._circuit(circuit.provider).adopt(circuit)

    def _circuit(self, provider: str) -> "_Circuit":
        circuit = self._circuits.get(provider)
        if circuit is None:
            circuit = self._circuits[provider] = _Circuit(
                provider, self._policy, self._publish, self._clock, self._changed
            )
        return circuit

    def _changed(self, circuit: Circuit) -> None:
        self.on_change(circuit)


class _Circuit:
    def __init__(
        self,
        name: str,
        policy: BreakerPolicy,
        publish: Publish,
        clock: Callable[[], float],
        on_change: Callable[[Circuit], object],
    ) -> None:
        self._context = Context(name, threshold=policy.failures, ttl=policy.open_s)
        self._policy = policy
        self._publish = publish
        self._clock = clock
        self._on_change = on_change
        self._probe: _Permit | None = None
        self.window = Window(policy)

    def acquire(self) -> "_Permit":
        wait_s = self.wait_s()
        if wait_s > 0:
            raise CircuitOpen(self._context.name, wait_s)
        if self.state is CircuitState.OPEN:
            self.react(Signal.RESTED)
        permit = _Permit(self)
        if self.state is CircuitState.HALF_OPEN:
            self._probe = permit
        return permit

    def wait_s(self) -> float:
        """Seconds until a permit can be had; 0.0: now."""
        match self.state:
            case CircuitState.OPEN:
                return max(0.0, (self._context.opened_at or 0.0) + self._policy.open_s - self._clock())
            case CircuitState.HALF_OPEN if self._probe is not None:
                return PROBE_WAIT_S
            case _:
                return 0.0

    def succeeded(self, permit: "_Permit") -> None:
        self.window.succeeded()
        self._settle(permit, Signal.SUCCEEDED)

    def failed(self, permit: "_Permit") -> None:
        self._settle(permit, self.window.failed())

    def abandoned(self, permit: "_Permit") -> None:
        if permit is self._probe:
            self._probe = None

    def react(self, signal: Signal) -> None:
        """Move as the table says, and tell of it."""
        after = next_state(self.state, signal)
        if after is not self.state:
            self._enter(after, self._clock())
            self._on_change(Circuit(provider=self._context.name, state=after, wait_s=self.wait_s()))

    def adopt(self, circuit: Circuit) -> None:
        """Stand as `circuit` does; one that was open already may have been opened again."""
        self._probe = None
        opened_at_s = self._clock() + min(circuit.wait_s, self._policy.open_s) - self._policy.open_s
        if circuit.state is not self.state:
            self._enter(circuit.state, opened_at_s)
        elif circuit.state is CircuitState.OPEN:
            self._context.set_state(self._new_state(CircuitState.OPEN, opened_at_s))
            self._context.messages.clear()

    @property
    def state(self) -> CircuitState:
        """How calls are let through."""
        return _STATES[self._context.state]

    def _enter(self, state: CircuitState, opened_at_s: float) -> None:
        """Purgatory holds the new state and says that it has changed."""
        self.window.clear()
        self._context.set_state(self._new_state(state, opened_at_s))
        for message in self._context.messages:
            if isinstance(message, ContextChanged):
                self._publish(CircuitChanged(provider=message.name, state=_STATES[message.state]))
        self._context.messages.clear()

    def _settle(self, permit: "_Permit", signal: Signal) -> None:
        """While half-open only the probe decides: what began before says nothing of the provider now."""
        if self.state is not CircuitState.HALF_OPEN or permit is self._probe:
            self.react(signal)
        self.abandoned(permit)

    def _new_state(self, state: CircuitState, opened_at_s: float) -> State:
        if state is CircuitState.OPEN:
            opened = OpenedState(self._context.name)
            opened.opened_at = opened_at_s
            return opened
        return HalfOpenedState() if state is CircuitState.HALF_OPEN else ClosedState()


PROBE_WAIT_S = 1.0
"""What a caller is told to wait while another's probe is out."""


class _Permit:
    __slots__ = ("_circuit",)

    def __init__(self, circuit: _Circuit) -> None:
        self._circuit = circuit

    def success(self) -> None:
        """The provider has begun to answer."""
        self._circuit.succeeded(self)

    def failure(self) -> None:
        """The provider has failed, before its first token or after."""
        self._circuit.failed(self)

    def abandon(self) -> None:
        """The call ended for a reason that says nothing of the provider; a probe's place is free again."""
        self._circuit.abandoned(self)
