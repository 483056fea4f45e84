"""When a route is left alone: the circuit's states, the window that trips it, and the ramp after it has closed again.

CLOSED ──tripped──► OPEN ──rested──► HALF_OPEN ──succeeded──► CLOSED
                      ▲                  └──failed──► OPEN
                      └──────────────────────┘
An operator's reset closes it from anywhere.

Each route (a provider's model) has a circuit of its own, named PROVIDER/MODEL: one model may be down.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class CircuitState(Enum):
    """Whether calls go through: all, none, or one probe at a time."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Signal(Enum):
    """What a circuit reacts to.

    `TRIPPED` is a failure that fills the window, `RESTED` the end of the open time, `RESET` an operator's word.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRIPPED = "tripped"
    RESTED = "rested"
    RESET = "reset"


MOVES: dict[tuple[CircuitState, Signal], CircuitState] = {
    (CircuitState.CLOSED, Signal.TRIPPED): CircuitState.OPEN,
    (CircuitState.OPEN, Signal.RESTED): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, Signal.SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, Signal.FAILED): CircuitState.OPEN,
    (CircuitState.HALF_OPEN, Signal.TRIPPED): CircuitState.OPEN,
    (CircuitState.OPEN, Signal.RESET): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, Signal.RESET): CircuitState.CLOSED,
}
"""The moves; every other pair leaves the state as it is (a late answer to a call from before, say)."""


def next_state(state: CircuitState, signal: Signal) -> CircuitState:
    """The state after `signal`."""
    return MOVES.get((state, signal), state)


def circuit_name(provider: str, model: str) -> str:
    """The name of a route's circuit."""
    return f"{provider}/{model}"


def provider_of(circuit: str) -> str:
    """The provider of the route whose circuit has that name: providers' names have no slash, models' may."""
    return circuit.partition("/")[0]


def model_of(circuit: str) -> str:
    """That route's model."""
    return circuit.partition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How a circuit stands now: a permit can be had in `wait_s` seconds; 0.0: at once.

    `is_resting`: that is because its route has asked for a rest, and for nothing else.
    """

    name: str
    state: CircuitState
    wait_s: float
    is_resting: bool = False


_BY_HARM = (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN)


def worst(states: Iterable[CircuitState]) -> CircuitState:
    """What is said of a provider whose routes' circuits are in these states; CLOSED when it has none."""
    return max(states, key=_BY_HARM.index, default=CircuitState.CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """`failures` among the last `window` calls open the circuit for `open_s` seconds."""

    failures: int = 5
    window: int = 10
    open_s: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.failures <= self.window or self.open_s <= 0:
            raise ValueError(f"1 <= failures <= window and open_s > 0, not {self}")


class Window:
    """The outcomes of the last calls, one of each call."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._outcomes: deque[bool] = deque(maxlen=policy.window)

    def succeeded(self) -> None:
        """Count a call as a success, which it is unless it fails after all."""
        self._outcomes.append(True)

    def failed(self, *, after_success: bool) -> Signal:
        """Count a failure, of a call that was counted as a success before or not: TRIPPED when it is one too many.

        The latest success gives way to one that comes after its own: streams that break long after they began, when
        many others have begun, are not outweighed by all these beginnings.
        """
        if after_success and True in self._outcomes:
            latest = next(place for place in range(1, len(self._outcomes) + 1) if self._outcomes[-place])
            self._outcomes[-latest] = False
        else:
            self._outcomes.append(False)
        return Signal.TRIPPED if self._outcomes.count(False) >= self._policy.failures else Signal.FAILED


RAMP_CALLS = 64
"""Calls at once that a circuit which has closed again carries before it is believed to carry any number."""


class Ramp:
    """How many calls may wait for their first token at once, after a probe has closed the circuit.

    Two at first, and one more for each that succeeds, which doubles them from round to round: what has just come back
    is not met by everybody at once. A failure adds none; whether it opens the circuit again is the window's matter.
    """

    def __init__(self) -> None:
        self._limit = 2
        self._waiting_count = 0

    @property
    def is_full(self) -> bool:
        """Whether another call is one too many now."""
        return self._waiting_count >= self._limit

    @property
    def is_over(self) -> bool:
        """Whether the circuit carries any number of calls."""
        return self._limit > RAMP_CALLS

    def began(self) -> None:
        """Count a call that waits."""
        self._waiting_count += 1

    def ended(self, *, has_succeeded: bool) -> None:
        """Count a call that waits no more."""
        self._waiting_count -= 1
        self._limit += has_succeeded
