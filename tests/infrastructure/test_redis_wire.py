"""What instances tell each other."""

from dataclasses import replace

import pytest

from domain.chat import Turn
from domain.generation import Opened
from infrastructure.redis.wire import decode_record, encode_record

OPENED = Opened(
    generation_id="g",
    fingerprint="f",
    created_at_s=1.5,
    thread_id="t",
    user="ann",
    scope="acme",
    model="m",
)
TURN = Turn(session_id="s", birth_id="b", turn_id="1", place=2, messages=({"role": "user", "content": "?"},))


@pytest.mark.parametrize("change", [{}, {"is_shared": False}, {"is_kept": False}, {"turn": TURN}], ids=str)
def test_another_instance_knows_all_that_was_opened(change):
    """Who may read it, whether it may be kept, and in which conversation it was asked."""
    opened = replace(OPENED, **change)

    assert decode_record(encode_record(opened)) == opened
