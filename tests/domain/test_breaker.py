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


@given(policies(), st.lists(st.sampled_from(["succeeds", "fails", "breaks"]), max_size=60))
def test_the_window_trips_when_so_many_of_the_last_calls_have_failed(policy, events):
    """Against the plainest model there is: the list of all outcomes."""
    window, outcomes = Window(policy), []

    for event in events:
        if event == "succeeds":
            window.succeeded()
            outcomes.append("good")
            continue
        last = "".join(each[0] for each in outcomes[-policy.window :])
        if event == "breaks" and "g" in last:
            outcomes[last.rindex("g") - len(last)] = "bad"
        else:
            outcomes.append("bad")
        is_trip = outcomes[-policy.window :].count("bad") >= policy.failures
        signal = window.failed(after_success=event == "breaks")
        assert signal is (Signal.TRIPPED if is_trip else Signal.FAILED)


@pytest.mark.parametrize("under_way", [1, 5, 50])
@pytest.mark.parametrize("failures", [1, 6, 10])
def test_a_route_that_breaks_every_stream_trips_however_many_are_under_way(failures, under_way):
    """That all of them have begun well does not outweigh that all of them end badly."""
    window, signals = Window(BreakerPolicy(failures=failures, window=10)), []

    for number in range(100):
        window.succeeded()
        if number >= under_way:
            signals.append(window.failed(after_success=True))

    assert Signal.TRIPPED in signals


@pytest.mark.parametrize("under_way", [0, 5, 50])
def test_a_route_that_breaks_some_streams_does_not_trip(under_way):
    """Four of ten are not five of ten."""
    window = Window(BreakerPolicy(failures=5, window=10))

    for number in range(200):
        window.succeeded()
        if number >= under_way and number % 10 in {1, 3, 6, 8}:
            assert window.failed(after_success=True) is Signal.FAILED


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"failures": 11}, {"open_s": 0.0}, {"open_s": -1.0}])
def test_a_policy_that_cannot_work_cannot_be_built(wrong):
    """More failures than the window holds would never trip."""
    with pytest.raises(ValueError, match="failures <= window"):
        BreakerPolicy(**wrong)
