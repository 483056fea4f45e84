"""What happened reaches who asked for it, and a listener's defect reaches nobody else."""

from domain.events import CacheMiss, DefectFound, Events, RateChecked


def told_of(events, *kinds):
    """A list that grows by what is told of `kinds`."""
    told = []
    for kind in kinds:
        events.subscribe(kind, told.append)
    return told


def defective(_):
    raise ZeroDivisionError


def test_listeners_hear_of_exactly_their_kind_in_the_order_they_subscribed():
    """No listener depends on what others want to know."""
    events, heard = Events(), []
    events.subscribe(CacheMiss, lambda event: heard.append((1, event)))
    events.subscribe(RateChecked, lambda event: heard.append((2, event)))
    events.subscribe(CacheMiss, lambda event: heard.append((3, event)))

    event = CacheMiss(thread_id="t")
    events.publish(event)

    assert heard == [(1, event), (3, event)]


def test_an_event_that_nobody_waits_for_is_no_error():
    """Nor does it leave anything behind."""
    events = Events()

    events.publish(CacheMiss(thread_id="t"))

    assert not events._listeners


def test_a_listener_that_fails_stops_neither_the_rest_nor_the_request():
    """Its defect is told instead."""
    events = Events()
    events.subscribe(CacheMiss, defective)
    told, defects = told_of(events, CacheMiss), told_of(events, DefectFound)

    events.publish(CacheMiss(thread_id="t"))

    assert len(told) == 1
    assert [type(defect.error) for defect in defects] == [ZeroDivisionError]


def test_a_listener_that_fails_to_hear_of_a_defect_does_not_go_round_in_circles():
    """There is nobody left to tell."""
    events = Events()
    events.subscribe(DefectFound, defective)
    defects = told_of(events, DefectFound)

    events.publish(DefectFound(thread_id="t", error=ValueError()))

    assert len(defects) == 1
