"""The circuit only ever moves along the table, and the window counts the last calls."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.breaker import BreakerPolicy, CircuitState, Signal, Window, next_state

CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN
EXPECTED = {
    CLOSED: {Signal.TRIPPED: OPEN},
    OPEN: {Signal.RESTED: HALF_OPEN, Signal.RESET: CLOSED},
    HALF_OPEN: {Signal.SUCCEEDED: CLOSED, Signal.FAILED: OPEN, Signal.TRIPPED: OPEN, Signal.RESET: CLOSED},
}


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(CircuitState, Signal)))
def test_every_signal_moves_as_drawn_or_changes_nothing(state, signal):
    """A late answer to a call from before is not a defect: it is no news."""
    assert next_state(state, signal) is EXPECTED[state].get(signal, state)


@st.composite
def policies(draw):
    window = draw(st.integers(1, 12))
    return BreakerPolicy(failures=draw(st.integers(1, window)), window=window)


@given(policies(), st.lists(st.sampled_from(["succeeded", "failed", "clear"]), max_size=60))
def test_the_window_trips_when_so_many_of_the_last_calls_have_failed(policy, calls):
    """Against the plainest model there is: the list of all outcomes."""
    window, outcomes = Window(policy), []

    for call in calls:
        signal = getattr(window, call)()
        if call == "clear":
            outcomes.clear()
            continue
        outcomes.append(call)
        is_trip = call == "failed" and outcomes[-policy.window :].count("failed") >= policy.failures
        assert signal is (Signal.TRIPPED if is_trip else Signal(call))


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"failures": 11}, {"open_s": 0.0}, {"open_s": -1.0}])
def test_a_policy_that_cannot_work_cannot_be_built(wrong):
    """More failures than the window holds would never trip."""
    with pytest.raises(ValueError, match="failures <= window"):
        BreakerPolicy(**wrong)
