"""What can be gone on with, and how the rest is asked for."""

from dataclasses import replace

import pytest

from domain.chat import ChatRequest, Chunk
from domain.continuation import can_continue, continued, prefill_for
from domain.generation import ProviderChange
from domain.selection import Prefill, Route

ASKED = ChatRequest(model="m", messages=({"role": "user", "content": "?"},), options={})
SELECTED = ProviderChange(status="selected", provider="p", model="m")
TOOLS = {"tools": [{"type": "function"}]}


@pytest.mark.parametrize("options", [{}, TOOLS, {"n": 2}, {"response_format": {"type": "json_object"}}], ids=str)
def test_what_has_not_begun_is_asked_for_anew(options):
    """Whatever it is."""
    request = replace(ASKED, options=options)

    assert can_continue(request, [SELECTED])
    assert continued(request, "", Prefill.NONE, 0) is request
    assert continued(request, " \n", Prefill.NONE, 1) is request


@pytest.mark.parametrize(
    ("options", "chunk", "is_possible"),
    [
        ({}, Chunk("x"), True),
        (TOOLS, Chunk("x"), True),
        ({"tools": []}, Chunk("x"), True),
        ({"response_format": {"type": "text"}}, Chunk("x"), True),
        ({"response_format": None}, Chunk("x"), True),
        ({"response_format": {"type": "json_schema"}}, Chunk("x"), False),
        ({"response_format": {}}, Chunk("x"), False),
        ({"n": 2}, Chunk("x"), False),
        ({}, Chunk("x", index=1), False),
        ({}, Chunk(delta={"reasoning_content": "x"}), False),
        ({}, Chunk("x", choice={"logprobs": {}}), False),
        ({}, Chunk("x", choice={"content_filter_results": {}}), True),
        (TOOLS, Chunk(delta={"tool_calls": [{}]}), False),
        ({}, Chunk("x", delta={"annotations": [{}]}), False),
    ],
)
def test_of_what_has_begun_only_plain_text_is_gone_on_with(options, chunk, is_possible):
    """The rest of anything else would not fit."""
    assert can_continue(replace(ASKED, options=options), [SELECTED, chunk]) is is_possible


THOUGHT = Chunk(delta={"reasoning_content": "x"})


@pytest.mark.parametrize(
    ("chunks", "is_possible"),
    [
        ([THOUGHT, THOUGHT, Chunk("x")], True),
        ([THOUGHT, Chunk("x"), THOUGHT], False),
        ([THOUGHT, Chunk("x", delta={"reasoning_content": "x"})], False),
        ([Chunk("x"), Chunk(delta={"tool_calls": [{}]})], False),
        ([Chunk("x"), Chunk(delta={"tool_calls": [{}]}), Chunk("x")], False),
    ],
)
def test_thoughts_that_a_text_has_followed_are_over(chunks, is_possible):
    """What is under way is the text."""
    assert can_continue(ASKED, chunks) is is_possible


def test_a_short_beginning_is_given_in_words_whatever_the_route_takes():
    """A repeat of it could not be told from the rest."""
    route = Route(provider="p", model="m", prefill=Prefill.ASSISTANT)

    assert prefill_for("A weir holds back", route) is Prefill.NONE
    assert prefill_for(BEGUN * 2, route) is Prefill.ASSISTANT
    assert prefill_for(BEGUN * 2, replace(route, prefill=Prefill.NONE)) is Prefill.NONE


BEGUN = "A weir holds back what the mill will need by noon, "


@pytest.mark.parametrize(("prefill", "mark"), [(Prefill.ASSISTANT, {}), (Prefill.DEEPSEEK, {"prefix": True})])
def test_the_rest_is_asked_for_by_the_text_so_far(prefill, mark):
    """As the beginning of the assistant's turn; a beginning that the client gave itself is part of it."""
    given = replace(ASKED, messages=(*ASKED.messages, {"role": "assistant", "content": "So: ", "name": "n"}))

    rest = continued(ASKED, "A weir", prefill, 2)
    assert rest.messages == (*ASKED.messages, {"role": "assistant", "content": "A weir", **mark})
    rest = continued(given, "A weir", prefill, 2)
    assert rest.messages == (*ASKED.messages, {"role": "assistant", "content": "So: A weir", "name": "n", **mark})


def test_a_route_that_takes_no_beginning_is_asked_in_words():
    """And to repeat the end, so that the seam can be found."""
    *before, said, instruction = continued(ASKED, BEGUN, Prefill.NONE, 11).messages

    assert tuple(before) == ASKED.messages
    assert said == {"role": "assistant", "content": BEGUN}
    assert instruction["role"] == "user"
    assert f'"{BEGUN.strip()}"' in instruction["content"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_is_what_is_left_of_it(name):
    """Never nothing; what is repeated does not count, and has room enough."""
    request = replace(ASKED, options={name: 100, "temperature": 0})

    assert continued(request, BEGUN, Prefill.ASSISTANT, 11).options == {name: 89, "temperature": 0}
    assert continued(request, BEGUN, Prefill.ASSISTANT, 200).options[name] == 1
    assert continued(request, BEGUN, Prefill.NONE, 11).options[name] == 104
    assert continued(request, BEGUN * 4, Prefill.NONE, 44).options[name] == 56 + 23
