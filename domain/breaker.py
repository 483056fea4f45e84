"""When a provider is left alone: the circuit's states, and the window that trips it.

CLOSED ──tripped──► OPEN ──rested──► HALF_OPEN ──succeeded──► CLOSED
                      ▲                  └──failed──► OPEN
                      └──────────────────────┘
An operator's reset closes it from anywhere.
"""

from collections import deque
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How a provider's circuit stands now: a permit can be had in `wait_s` seconds; 0.0: at once."""

    provider: str
    state: CircuitState
    wait_s: float


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
    """The outcomes of the last calls."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._outcomes: deque[bool] = deque(maxlen=policy.window)

    def succeeded(self) -> Signal:
        """Count a success."""
        self._outcomes.append(True)
        return Signal.SUCCEEDED

    def failed(self) -> Signal:
        """Count a failure: TRIPPED when it is one too many."""
        self._outcomes.append(False)
        return Signal.TRIPPED if self._outcomes.count(False) >= self._policy.failures else Signal.FAILED

    def clear(self) -> None:
        """Forget all outcomes."""
        self._outcomes.clear()
