"""What instances tell each other."""

from dataclasses import replace

import pytest

from domain.chat import ChatRequest, Chunk, Turn
from domain.generation import Opened, ProviderChange, Sealed, State
from infrastructure.redis.wire import (
    decode_record,
    decode_recording,
    decode_request,
    encode_record,
    encode_recording,
    encode_request,
)

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


@pytest.mark.parametrize(
    "record",
    [ProviderChange(status="continued", provider="a", model="a-1", fork=7), Sealed(state=State.DONE, fork=30)],
    ids=["change", "end"],
)
def test_another_instance_knows_which_fork_begins(record):
    """From the log and from a stored answer."""
    assert decode_record(encode_record(record)) == record
    assert decode_recording(encode_recording(1.5, [OPENED, record])) == (1.5, [OPENED, record])


BEYOND = {"seed": 2**64, "deep": [-(2**70), {"n": 10**30}]}
"""What JSON can have, and msgpack cannot."""


def test_integers_of_any_size_pass():
    """Whatever a provider sends, or a client asks for, goes through Redis as it does without."""
    chunk = Chunk("x", delta=BEYOND)
    records = [OPENED, chunk, Sealed(state=State.DONE)]
    request = ChatRequest(model="m", messages=({"role": "user", "content": "?", **BEYOND},), options=BEYOND)

    assert decode_record(encode_record(chunk)) == chunk
    assert decode_recording(encode_recording(1.5, records)) == (1.5, records)
    assert decode_request(encode_request(request)) == request


def test_a_stored_answer_has_no_turn():
    """What was asked in a conversation is its asker's alone."""
    _, [opened, *_] = decode_recording(encode_recording(1.5, [replace(OPENED, turn=TURN), Sealed(state=State.DONE)]))

    assert opened == OPENED
