"""How many streams are carried at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.admission import Slots
from domain.errors import AtCapacity, TooManyConnections

STEPS = st.lists(st.one_of(st.sampled_from("abc"), st.integers(0, 20)), max_size=60)


@given(STEPS, st.integers(1, 6), st.integers(0, 4))
def test_slots_are_what_the_plainest_model_says(steps, limit, limit_per_user):
    """Take for a letter, release the n-th ever taken for a number, once more or twice."""
    slots, taken, ever = Slots(limit=limit, limit_per_user=limit_per_user), [], []
    for step in steps:
        if isinstance(step, int):
            if ever:
                user, slot = ever[step % len(ever)]
                assert slot.release() is ((user, slot) in taken)
                taken = [one for one in taken if one[1] is not slot]
            continue
        users = [user for user, _ in taken]
        if len(users) >= limit:
            with pytest.raises(AtCapacity):
                slots.take(step)
        elif limit_per_user and users.count(step) >= limit_per_user:
            with pytest.raises(TooManyConnections, match=str(limit_per_user)):
                slots.take(step)
        else:
            taken.append((step, slots.take(step)))
            ever.append(taken[-1])
        assert slots.taken_count == len(taken)
        assert set(slots._taken) == {user for user, _ in taken}


def test_refusals_say_when_to_come_back():
    """A place may be free any moment."""
    slots = Slots(limit=2, limit_per_user=1)
    slots.take("a")
    with pytest.raises(TooManyConnections) as refused:
        slots.take("a")
    slots.take("b")
    with pytest.raises(AtCapacity) as full:
        slots.take("c")

    assert (refused.value.retry_after_s, full.value.retry_after_s) == (1.0, 1.0)
