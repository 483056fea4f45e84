"""Server-Sent Events out of bytes that arrive cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.providers.sse import EventParser, EventTooLarge

DATA = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
FIELDS = st.one_of(
    DATA.map(lambda text: f"data: {text}"),
    DATA.map(lambda text: f"data:{text}"),
    DATA.map(lambda text: f": {text}"),
    st.sampled_from(["data", "event: x", "id: 7", "retry: 1", "database: 1", "", "\u2028"]),
)
STREAMS = st.lists(st.tuples(FIELDS, st.sampled_from(["\n", "\r\n", "\r"])), max_size=24).map(
    lambda lines: "".join(map("".join, lines)).encode()
)


def events(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)] + parser.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=30))
def test_where_the_bytes_are_cut_makes_no_difference(data, places):
    """A network cuts between any two bytes, and proxies put pieces together again."""
    assert events(*cut(data, places)) == events(*(bytes([byte]) for byte in data))


@given(st.lists(DATA.map(str.encode), max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_of_one_line_come_out_as_they_went_in(said, end):
    assert events(b"".join(b"data: %b%b%b" % (text, end, end) for text in said)) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": hello\n\ndata: a\n\n", [b"a"]),
        (b"data: a\n\n: hello\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"event: x\ndata: a\nid: 1\n\n", [b"a"]),
        (b"data: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data\n\n", [b""]),
        (b"data: a", [b"a"]),
        (b"", []),
    ],
)
def test_the_standard_is_kept(data, said):
    assert events(data) == said


def test_a_line_break_of_unicode_ends_no_line():
    """JSON may hold U+2028 and U+0085 as they are."""
    text = "data: a\u2028b\u0085c\n\n".encode()

    assert events(text[:9], text[9:]) == ["a\u2028b\u0085c".encode()]


def test_an_event_that_never_ends_is_given_up():
    """A broken server must not fill our memory."""
    parser = EventParser(max_event_bytes=1000)
    for _ in range(10):
        parser.feed(b"x" * 100)

    with pytest.raises(EventTooLarge):
        parser.feed(b"x")


def test_many_small_events_are_not_one_large_one():
    parser = EventParser(max_event_bytes=100)

    assert sum(len(parser.feed(b"data: 0123456789\r\ndata: a\n\nda" + b"ta: x\n\n")) for _ in range(50)) == 100
