"""The waits between attempts, from the backoff library."""

from collections.abc import Iterator
from itertools import islice

import backoff


def full_jitter_delays(base_s: float, max_s: float) -> Iterator[float]:
    """Seconds to wait, each drawn from 0 to a bound that doubles from `base_s` up to `max_s`.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015-03-04: full jitter.
    """
    bounds = backoff.expo(base=2, factor=base_s, max_value=max_s)
    return (backoff.full_jitter(bound) for bound in islice(bounds, 1, None))
