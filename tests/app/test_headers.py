"""What a caller is told of its limits."""

import pytest

from app.headers import duration, quota_headers
from domain.limiting import Quota, Rate

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
    """Rounded up: who waits so long has waited long enough."""
    assert quota_headers((REQUESTS, TOKENS)) == {
        "ratelimit-policy": '"premium";q=1000;w=60, "premium-tokens";q=90000;qu="tokens";w=60',
        "ratelimit": '"premium";r=999;t=1, "premium-tokens";r=0;t=362',
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "999",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m2s",
    }


def test_who_has_no_limit_is_told_nothing():
    """An empty list would not be a structured field."""
    assert quota_headers(()) == {}
