"""Cache-Control as a request says it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.caching import NO_DIRECTIVES, CacheDirectives, parse_cache_control
from domain.errors import InvalidRequest


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, NO_DIRECTIVES),
        ("", NO_DIRECTIVES),
        (" , ,", NO_DIRECTIVES),
        ("no-cache", CacheDirectives(no_cache=True)),
        ("NO-STORE", CacheDirectives(no_store=True)),
        ("only-if-cached,no-cache", CacheDirectives(only_if_cached=True, no_cache=True)),
        ("max-age=5", CacheDirectives(max_age_s=5)),
        ("Max-Age = 5", CacheDirectives(max_age_s=5)),
        ('max-age="5"', CacheDirectives(max_age_s=5)),
        ("max-age=0", CacheDirectives(max_age_s=0)),
        ("min-fresh=7 , max-age=5", CacheDirectives(max_age_s=5, min_fresh_s=7)),
        ("max-age=99999999999999999999", CacheDirectives(max_age_s=2**31)),
        ("max-stale", NO_DIRECTIVES),
        ("max-stale=60, no-transform, community=UCI", NO_DIRECTIVES),
        ("x-no-cache, no-cached", NO_DIRECTIVES),
        ('community="a, no-cache", no-store', CacheDirectives(no_store=True)),
        ('no-cache="field"', CacheDirectives(no_cache=True)),
    ],
)
def test_a_header_says_what_rfc_9111_lets_it_say(header, expected):
    """Names in any case, arguments as tokens or quoted, and what is unknown is ignored."""
    assert parse_cache_control(header) == expected


@pytest.mark.parametrize("value", ["", "=", "=x", "=-1", "=1.5", '=""', "=٣", "=1 2"])
@pytest.mark.parametrize("name", ["max-age", "min-fresh"])
def test_a_time_that_is_none_is_refused(name, value):
    """By the header's name and what is wrong with it."""
    with pytest.raises(InvalidRequest) as refused:
        parse_cache_control(name + value)

    assert refused.value.errors[0].field == "Cache-Control"
    assert name in refused.value.errors[0].reason


@given(st.text(max_size=60))
def test_no_header_is_a_defect(header):
    """Whatever a client sends is read or refused."""
    try:
        assert isinstance(parse_cache_control(header), CacheDirectives)
    except InvalidRequest:
        assert "max-age" in header.lower() or "min-fresh" in header.lower()


@pytest.mark.parametrize(
    ("directives", "is_accepted"),
    [
        (CacheDirectives(), True),
        (CacheDirectives(no_store=True), True),
        (CacheDirectives(no_cache=True), False),
        (CacheDirectives(max_age_s=60), True),
        (CacheDirectives(max_age_s=59), False),
        (CacheDirectives(min_fresh_s=40), True),
        (CacheDirectives(min_fresh_s=41), False),
    ],
)
def test_an_answer_is_accepted_when_it_is_as_fresh_as_asked(directives, is_accepted):
    """One that is 60 s old and fresh for 100 s in all."""
    assert directives.accepts(60.0, 100.0) is is_accepted


def test_nothing_stale_is_accepted():
    """Not even by a client that asks for nothing."""
    assert not NO_DIRECTIVES.accepts(100.5, 100.0)
