"""Bodies that are read once, and those that are read each time."""

import pytest

from app.recollection import Recollection
from domain.caching import NO_DIRECTIVES, CacheDirectives
from domain.chat import Caller
from domain.errors import FieldError, InvalidRequest

ANN, BEA = Caller(user="ann", tier="standard"), Caller(user="bea", tier="standard")


class Reading:
    """Says how often it has read."""

    def __init__(self):
        self.count = 0

    def __call__(self, body, max_query_chars):
        self.count += 1
        if len(body) > max_query_chars:
            raise InvalidRequest(FieldError("query", "too long"))
        return body.decode()


@pytest.fixture
def reading():
    return Reading()


@pytest.mark.parametrize(
    ("bodies", "directives", "count"),
    [
        ([b"a", b"a"], NO_DIRECTIVES, 1),
        ([b"a", b"b", b"a"], NO_DIRECTIVES, 2),
        ([b"a", b"a"], CacheDirectives(max_age_s=1), 1),
        ([b"a", b"a"], CacheDirectives(no_store=True), 2),
        ([b"a" * 5000, b"a" * 5000], NO_DIRECTIVES, 2),
    ],
)
def test_a_short_body_that_may_be_kept_is_read_once(reading, bodies, directives, count):
    """What is asked most costs least; long ones would fill the memory, and some clients want nothing stored."""
    recollection = Recollection(reading)

    assert [recollection.read(body, 9999, ANN, directives) for body in bodies] == [body.decode() for body in bodies]
    assert reading.count == count


def test_what_another_has_asked_is_read_all_the_same(reading):
    """The time it takes tells nobody that it was asked before."""
    recollection = Recollection(reading)
    for caller in (ANN, BEA, ANN):
        recollection.read(b"a", 99, caller, NO_DIRECTIVES)

    assert reading.count == 2


def test_a_body_that_cannot_be_right_is_refused_each_time(reading):
    """And under the limit that holds then."""
    recollection = Recollection(reading)
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            recollection.read(b"abc", 2, ANN, NO_DIRECTIVES)

    assert recollection.read(b"abc", 3, ANN, NO_DIRECTIVES) == "abc"


def test_only_the_last_ones_are_known(reading):
    """However many are asked, the memory does not grow."""
    recollection = Recollection(reading)
    for number in range(300):
        recollection.read(b"%d" % number, 99, ANN, NO_DIRECTIVES)
    recollection.read(b"299", 99, ANN, NO_DIRECTIVES)
    recollection.read(b"0", 99, ANN, NO_DIRECTIVES)

    assert reading.count == 301
