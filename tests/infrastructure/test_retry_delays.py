"""The waits between attempts."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from infrastructure.retry_delays import full_jitter_delays


@given(st.floats(0.001, 60.0), st.floats(0.001, 3600.0))
def test_each_wait_is_within_a_bound_that_doubles_up_to_the_longest(base_s, max_s):
    """Also the first one: a crowd that failed together must not come back together."""
    delays_s = list(islice(full_jitter_delays(base_s, max_s), 20))

    assert all(0.0 <= delay_s <= min(base_s * 2**n, max_s) for n, delay_s in enumerate(delays_s))


def test_waits_are_spread_over_the_whole_bound():
    """Full jitter, not a wait with a little noise."""
    first_s = [next(full_jitter_delays(1.0, 30.0)) for _ in range(500)]

    assert min(first_s) < 0.1
    assert max(first_s) > 0.9
