"""What a caller is told of its limits."""

from dataclasses import replace

import pytest

from app.headers import duration, quota_headers
from domain.limiting import Quota, Rate, TokenBucket

REQUESTS = Quota(policy="premium", rate=Rate(amount=1000, per_s=60.0), remaining=999, reset_s=0.06)
TOKENS = Quota(policy="premium-tokens", rate=Rate(amount=90_000, per_s=60.0), remaining=0, reset_s=361.5, unit="tokens")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (1, "1s"), (59, "59s"), (60, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"),
     (86_399, "23h59m59s")],
)  # fmt: skip
def test_a_duration_is_written_as_openai_does(seconds, written):
    """Its users' parsers know no other form."""
    assert duration(seconds) == written


def test_each_limit_is_a_member_of_both_fields_and_a_family_of_openais():
    """Rounded up: who waits so long has waited long enough. The unit of tokens is registered nowhere."""
    assert quota_headers((REQUESTS, TOKENS)) == {
        "ratelimit-policy": '"premium";q=1000;w=60, "premium-tokens";q=90000;w=60;weir-unit="tokens"',
        "ratelimit": '"premium";r=999;t=1, "premium-tokens";r=0;t=302',
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "999",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m2s",
    }


@pytest.mark.parametrize(
    ("tokens", "told"),
    [(2.0, "r=2;t=30"), (1.99, "r=1;t=1"), (1.5, "r=1;t=15"), (1.0, "r=1;t=30"), (0.5, "r=0;t=15"), (0.0, "r=0;t=30"),
     (-1.0, "r=0;t=60")],
)  # fmt: skip
def test_for_the_effective_window_no_more_than_what_is_left_can_be_used(tokens, told):
    """Section 4.1.2 of the draft: not until all of it is back, but until there is one more."""
    rate = Rate(amount=2, per_s=60.0)
    quota = TokenBucket(rate=rate, tokens=tokens, at_s=0.0).quota("p", 0.0)

    assert quota_headers((quota,))["ratelimit"] == f'"p";{told}'


def test_who_is_told_when_to_come_back_is_told_no_window_that_ends_later():
    """Section 6 of the draft: what has not run out may have a longer one."""
    slow = Quota(policy="slow", rate=Rate(amount=2, per_s=60.0), remaining=1, reset_s=30.0)
    spent = Quota(policy="spent", rate=Rate(amount=60, per_s=60.0), remaining=0, reset_s=59.2)

    assert quota_headers((slow, spent), 0.2)["ratelimit"] == '"slow";r=1, "spent";r=0;t=1'


def test_names_and_numbers_are_written_as_structured_fields_are():
    """RFC 9651: a String escapes two characters, and an Integer has 15 digits at most."""
    odd = replace(REQUESTS, policy='a"\\', rate=Rate(amount=10**16, per_s=0.5))

    assert quota_headers((odd,))["ratelimit-policy"] == '"a\\"\\\\";q=999999999999999;w=1'


def test_who_has_no_limit_is_told_nothing():
    """An empty list would not be a structured field."""
    assert quota_headers(()) == {}
