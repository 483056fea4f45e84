"""Requests are reported stage by stage when they are sampled, and when they fail."""

import pytest

from domain.events import StageTimed
from domain.tracking import Tracker
from tests.fakes import FakeClock, RememberedEvents


class Request:
    """A request that is tracked through two stages."""

    def __init__(self, ratio):
        self.clock = FakeClock()
        self.events = RememberedEvents()
        self.trace = Tracker(ratio, self.events.publish, self.clock).begin("t")

    def run(self, error=None):
        with self.trace.stage("1"):
            self.clock.advance(2.0)
        with self.trace.stage("2"):
            self.clock.advance(0.5)
            if error:
                raise error

    def fail(self):
        with pytest.raises(ValueError, match="defect"):
            self.run(ValueError("a defect"))


def test_a_sampled_request_is_reported():
    """Each stage with its time, in order, when the request is over and not before."""
    request = Request(1.0)
    request.run()
    assert request.events.all == []

    request.trace.close()

    assert request.events.all == [
        StageTimed(thread_id="t", stage="1", duration_s=2.0),
        StageTimed(thread_id="t", stage="2", duration_s=0.5),
    ]


def test_a_failed_request_is_reported_though_not_sampled():
    """With what ended it, and the stages before."""
    request = Request(0.0)
    request.fail()
    request.trace.close()

    assert [(event.stage, event.error_type) for event in request.events.all] == [("1", None), ("2", "ValueError")]


def test_any_other_request_is_not_reported():
    """It costs nothing."""
    request = Request(0.0)
    request.run()
    request.trace.close()

    assert request.events.all == []


def test_nothing_is_reported_twice():
    """Whoever closes last has nothing left to say."""
    request = Request(1.0)
    request.run()
    request.trace.close()
    request.trace.close()

    assert len(request.events.all) == 2


def test_the_sample_is_of_about_the_ratio():
    """A quarter of two thousand, give or take five standard deviations."""
    events = RememberedEvents()
    tracker = Tracker(0.25, events.publish, FakeClock())
    for number in range(2000):
        trace = tracker.begin(str(number))
        with trace.stage("1"):
            pass
        trace.close()

    assert 400 < len(events.all) < 600
