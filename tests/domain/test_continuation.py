"""What can be gone on with, and how the rest is asked for."""

from dataclasses import replace

import pytest

from domain.chat import ChatRequest, Chunk
from domain.continuation import can_continue, continued
from domain.generation import ProviderChange
from domain.selection import Prefill

ASKED = ChatRequest(model="m", messages=({"role": "user", "content": "?"},), options={})
SELECTED = ProviderChange(status="selected", provider="p", model="m")
TOOLS = {"tools": [{"type": "function"}]}


@pytest.mark.parametrize("options", [{}, TOOLS, {"n": 2}, {"response_format": {"type": "json_object"}}], ids=str)
def test_what_has_not_begun_is_asked_for_anew(options):
    """Whatever it is."""
    request = replace(ASKED, options=options)

    assert can_continue(request, [SELECTED])


@pytest.mark.parametrize(
    ("options", "chunk", "is_possible"),
    [
        ({}, Chunk("x"), True),
        (TOOLS, Chunk("x"), False),
        ({"response_format": {}}, Chunk("x"), False),
        ({"n": 2}, Chunk("x"), False),
        ({}, Chunk(delta={"reasoning_content": "x"}), False),
        ({}, Chunk("x", choice={"logprobs": {}}), False),
    ],
)
def test_of_what_has_begun_only_plain_text_is_gone_on_with(options, chunk, is_possible):
    """The rest of anything else would not fit."""
    assert can_continue(replace(ASKED, options=options), [SELECTED, chunk]) is is_possible


def test_the_rest_is_asked_for_by_the_text_so_far():
    """As the beginning of the assistant's turn."""
    rest = continued(ASKED, "A weir", Prefill.ASSISTANT)

    assert rest.messages == (*ASKED.messages, {"role": "assistant", "content": "A weir"})
