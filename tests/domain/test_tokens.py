"""Tokens without a tokenizer: about right, and rather too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import ChatRequest
from domain.tokens import estimated_prompt_tokens, estimated_tokens

PROSE = "The weir holds back what the mill will need by noon, and nobody in the village remembers who laid it."


def test_prose_is_estimated_a_little_too_high():
    """OpenAI's o200k_base makes 24 tokens of it."""
    assert 24 <= estimated_tokens(PROSE) <= 32


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(one, other):
    """And two texts together no more than apart."""
    together = estimated_tokens(one + other)

    assert max(estimated_tokens(one), estimated_tokens(other)) <= together
    assert together <= estimated_tokens(one) + estimated_tokens(other)
    assert estimated_tokens(one) >= bool(one)


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"role": "user", "content": "x" * 35}, 14),
        ({"role": "user", "content": None}, 4),
        ({"role": "user", "content": [{"type": "text", "text": "x" * 35}, {"type": "image_url"}]}, 1014),
        ({"role": "assistant", "tool_calls": [{"a": "x" * 20}]}, 13),
    ],
)
def test_a_message_is_its_role_its_texts_and_what_it_shows(message, tokens):
    """Whatever form its content has."""
    assert estimated_prompt_tokens(ChatRequest(model="m", messages=(message,))) == tokens


def test_tools_are_read_too():
    """By whoever may call them."""
    message = {"role": "user", "content": "x"}
    asked = ChatRequest(model="m", messages=(message,), options={"tools": [{"type": "function"}]})

    assert estimated_prompt_tokens(asked) > estimated_prompt_tokens(ChatRequest(model="m", messages=(message,)))
