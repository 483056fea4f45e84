"""Circuits in this process's memory.

purgatory keeps each circuit's state and announces its changes. Its own counting is not used: it trips on consecutive
failures only, lets any number of probes through and knows no neutral outcome (docs/decisions/0002).
"""

from collections.abc import Callable

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import ClosedState, Context, HalfOpenedState, OpenedState, State

from domain.breaker import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    Ramp,
    Signal,
    Window,
    model_of,
    next_state,
    provider_of,
)
from domain.errors import CircuitOpen
from domain.events import CircuitChanged, Publish
from domain.ports import Permit

_STATES = {
    "closed": CircuitState.CLOSED,
    "opened": CircuitState.OPEN,
    "half-opened": CircuitState.HALF_OPEN,
}


class PurgatoryCircuitBreakers:
    """Gives permits by circuit, and publishes every change of a circuit. `clock` is in monotonic seconds.

    `on_change` is told of the changes that were decided here, and not of those that were adopted.
    """

    def __init__(self, *, policy: BreakerPolicy, publish: Publish, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._publish = publish
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}
        self.on_change: Callable[[Circuit], object] = lambda _: None

    def can_try(self, circuit: str) -> bool:
        """Whether `acquire` would give a permit now."""
        return self._named(circuit).wait_s() <= 0

    async def acquire(self, circuit: str) -> Permit:
        """A permit: always while closed, one at a time while half-open, few at first after that.

        Raises:
            CircuitOpen: with the time until the next probe, or until a permit is worth asking for.
        """
        return self.permit(circuit)

    def permit(self, circuit: str) -> Permit:
        """As `acquire`, at once."""
        return self._named(circuit).acquire()

    def rest(self, circuit: str, wait_s: float) -> None:
        """No permit is given for `wait_s` seconds."""
        self._named(circuit).rest(wait_s)

    def circuit(self, circuit: str) -> Circuit:
        """How the circuit stands."""
        named = self._named(circuit)
        return Circuit(name=circuit, state=named.state, wait_s=named.wait_s(), is_resting=named.is_resting)

    def reset(self, circuit: str) -> None:
        """The circuit is closed, and what was counted or asked for is forgotten."""
        self._named(circuit).reset()

    def adopt(self, circuit: Circuit) -> None:
        """The circuit is as another process says; who has a probe out here no longer decides anything."""
        self._named(circuit.name).adopt(circuit)

    def _named(self, name: str) -> "_Circuit":
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = _Circuit(name, self._policy, self._publish, self._clock, self._changed)
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
        self._believed: _Permit | None = None
        """The probe on whose word the circuit is closed, until enough others have succeeded."""
        self._ramp: Ramp | None = None
        self._rests_until_s = 0.0
        self._window = Window(policy)

    def acquire(self) -> "_Permit":
        wait_s = self.wait_s()
        if wait_s > 0:
            raise CircuitOpen(self._context.name, wait_s, is_resting=self.is_resting)
        if self.state is CircuitState.OPEN:
            self.react(Signal.RESTED)
        permit = _Permit(self, self._window, self._ramp)
        if self.state is CircuitState.HALF_OPEN:
            self._probe = permit
        return permit

    def rest(self, wait_s: float) -> None:
        self._rests_until_s = max(self._rests_until_s, self._clock() + wait_s)

    def wait_s(self) -> float:
        """Seconds until a permit can be had; 0.0: now."""
        return max(self._closed_for_s(), self._rests_until_s - self._clock() if self._rests_until_s else 0.0, 0.0)

    @property
    def is_resting(self) -> bool:
        """Whether a permit could be had now, had the route not asked for a rest."""
        return self._closed_for_s() <= 0 < self.wait_s()

    def _closed_for_s(self) -> float:
        match self.state:
            case CircuitState.OPEN:
                return (self._context.opened_at or 0.0) + self._policy.open_s - self._clock()
            case CircuitState.HALF_OPEN if self._probe is not None:
                return PROBE_WAIT_S
            case _ if self._ramp is not None and self._ramp.is_full:
                return PROBE_WAIT_S
            case _:
                return 0.0

    def succeeded(self, permit: "_Permit") -> None:
        """While half-open only the probe decides: what began before says nothing of the provider now."""
        if permit is self._probe:
            self.react(Signal.SUCCEEDED)
            self._believed, permit.window = permit, self._window
        permit.window.succeeded()
        if self._ramp is not None and self._ramp.is_over:
            self._ramp = self._believed = None

    def failed(self, permit: "_Permit") -> None:
        """As `succeeded`; a probe that was believed and breaks takes its word back."""
        if permit is self._probe:
            self.react(Signal.FAILED)
        elif permit is self._believed:
            self.react(Signal.TRIPPED)
        elif permit.window is self._window:
            self.react(self._window.failed(after_success=permit.has_succeeded))

    def abandoned(self, permit: "_Permit") -> None:
        if permit is self._probe:
            self._probe = None

    def reset(self) -> None:
        self._window = Window(self._policy)
        self._rests_until_s = 0.0
        self.react(Signal.RESET)
        self._ramp = None

    def react(self, signal: Signal) -> None:
        """Move as the table says, and tell of it."""
        after = next_state(self.state, signal)
        if after is not self.state:
            self._enter(after, self._clock())
            self._on_change(Circuit(name=self._context.name, state=after, wait_s=self.wait_s()))

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
        self._window = Window(self._policy)
        self._probe = self._believed = None
        self._ramp = Ramp() if state is CircuitState.CLOSED else None
        self._context.set_state(self._new_state(state, opened_at_s))
        for message in self._context.messages:
            if isinstance(message, ContextChanged):
                name, entered = message.name, _STATES[message.state]
                self._publish(CircuitChanged(provider=provider_of(name), model=model_of(name), state=entered))
        self._context.messages.clear()

    def _new_state(self, state: CircuitState, opened_at_s: float) -> State:
        if state is CircuitState.OPEN:
            opened = OpenedState(self._context.name)
            opened.opened_at = opened_at_s
            return opened
        return HalfOpenedState() if state is CircuitState.HALF_OPEN else ClosedState()


PROBE_WAIT_S = 1.0
"""What a caller is told to wait while another's probe is out."""


class _Permit:
    """`window` is where its call counts, `has_succeeded` whether it counts as a success there."""

    __slots__ = ("_circuit", "_is_over", "_ramp", "has_succeeded", "window")

    def __init__(self, circuit: _Circuit, window: Window, ramp: Ramp | None) -> None:
        self._circuit = circuit
        self._ramp = ramp
        self._is_over = False
        self.window = window
        self.has_succeeded = False
        if ramp is not None:
            ramp.began()

    def success(self) -> None:
        """See the port."""
        self._waits_no_more(has_succeeded=True)
        if not (self._is_over or self.has_succeeded):
            self._circuit.succeeded(self)
            self.has_succeeded = True

    def failure(self) -> None:
        """See the port."""
        if not self._is_over:
            self._circuit.failed(self)
        self.abandon()

    def abandon(self) -> None:
        """See the port."""
        self._is_over = True
        self._waits_no_more(has_succeeded=False)
        self._circuit.abandoned(self)

    def _waits_no_more(self, *, has_succeeded: bool) -> None:
        ramp, self._ramp = self._ramp, None
        if ramp is not None:
            ramp.ended(has_succeeded=has_succeeded)
