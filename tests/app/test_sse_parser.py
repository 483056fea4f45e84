"""The client of these tests reads as the standard says; its mistakes would hide the service's."""

import pytest

from tests.sse_parser import Comment, Event, EventParser, events_of, parse


def event(data, kind="message", last_event_id=""):
    return Event(type=kind, data=data, last_event_id=last_event_id)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_all_three_line_ends_end_a_line(end):
    """Section 9.2.5 allows each of them."""
    body = f"event: a{end}id: 1{end}data: x{end}{end}".encode()

    assert parse(body) == [event("x", "a", "1")]


def test_a_cut_between_cr_and_lf_is_one_line_end():
    """Otherwise the LF would be an empty line, and dispatch half an event."""
    parser = EventParser()

    assert parser.feed(b"data: x\r") == []
    assert parser.feed(b"\ndata: y\r\n\r\n") == [event("x\ny")]


def test_every_cut_of_the_bytes_gives_the_same_events():
    """The network cuts where it likes, inside a character too."""
    body = "\ufeffid: 1\ndata: wéir €\ndata: 𝄞\n\n: note\n\nevent: b\ndata\n\n".encode()
    whole = parse(body)

    for cut in range(len(body)):
        parser = EventParser()
        assert parser.feed(body[:cut]) + parser.feed(body[cut:]) == whole
    assert whole == [
        event("wéir €\n𝄞", last_event_id="1"),
        Comment(text=" note", is_between_events=True),
        event("", "b", "1"),
    ]


def test_an_event_without_an_empty_line_behind_it_never_was():
    """So a body that is cut short cannot end in half an event."""
    assert parse(b"data: x\n\ndata: y\n") == [event("x")]


@pytest.mark.parametrize(
    ("line", "data"),
    [("data:x", "x"), ("data: x", "x"), ("data:  x", " x"), ("data:\tx", "\tx"), ("data: a: b", "a: b"), ("data", "")],
)
def test_one_space_behind_the_colon_is_not_of_the_value(line, data):
    """Exactly one, and only a space."""
    assert parse(f"{line}\n\n".encode()) == [event(data)]


def test_an_event_without_data_is_not_dispatched_and_leaves_no_type_behind():
    """Section 9.2.6: an empty data buffer resets the type too."""
    assert parse(b"event: a\n\ndata: x\n\n") == [event("x")]


def test_the_id_lasts_until_the_next_one_and_an_id_with_null_is_none():
    """What EventSource sends as Last-Event-ID."""
    ids = [
        each.last_event_id for each in events_of(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n")
    ]

    assert ids == ["1", "1", "1", ""]


@pytest.mark.parametrize(("text", "retry_ms"), [("10", 10), ("-1", None), ("1s", None), ("", None), ("\uff11", None)])
def test_retry_is_ascii_digits_or_nothing(text, retry_ms):
    """All else is ignored."""
    parser = EventParser()
    parser.feed(f"retry: {text}\n\n".encode())

    assert parser.retry_ms == retry_ms


def test_fields_that_are_unknown_or_in_another_case_are_ignored():
    """Names are compared as they are."""
    assert parse(b"Data: no\nwhatever: no\ndata: yes\n\n") == [event("yes")]


def test_a_comment_inside_an_event_is_told_from_one_between_events():
    """The contract allows only the latter."""
    assert parse(b":\n\ndata: a\n:in\n\n") == [
        Comment(text="", is_between_events=True),
        Comment(text="in", is_between_events=False),
        event("a"),
    ]
