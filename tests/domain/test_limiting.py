"""The token bucket by itself; what a limiter makes of it: tests/contracts/test_rate_limiter.py."""

import pytest

from domain.limiting import Quota, Rate, TokenBucket

RATE = Rate(amount=4, per_s=8.0)


def test_a_token_comes_back_every_so_often():
    """Half of one every second."""
    assert RATE.refill_per_s == 0.5


@pytest.mark.parametrize(
    ("tokens", "waited_s", "wait_s", "left"),
    [(4.0, 0.0, 0.0, 3.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0), (0.0, 1.0, 1.0, 0.5), (0.0, 2.0, 0.0, 0.0),
     (0.0, 3.0, 0.0, 0.5), (4.0, 99.0, 0.0, 3.0)],
)  # fmt: skip
def test_spending_takes_a_token_or_says_how_long_to_wait(tokens, waited_s, wait_s, left):
    """A refusal takes nothing."""
    bucket = TokenBucket(RATE, tokens, 100.0)

    assert bucket.spend(100.0 + waited_s) == wait_s
    assert bucket.tokens == left


def test_a_clock_that_goes_back_gives_and_takes_nothing():
    """As far as the moment itself goes."""
    bucket = TokenBucket(RATE, 2.0, 100.0)

    assert bucket.quota("p", 90.0) == Quota(policy="p", rate=RATE, remaining=2, reset_s=4.0)


def test_what_passes_for_a_token_is_told_as_one():
    """A rounding error is neither a refusal nor a token less in the headers."""
    bucket = TokenBucket(RATE, 1 - 1e-9, 100.0)

    assert bucket.quota("p", 100.0).remaining == 1
    assert bucket.spend(100.0) == 0.0
    assert bucket.quota("p", 100.0).remaining == 0
