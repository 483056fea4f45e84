"""What can be decided without a server: answers, behaviours, their order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.simulator.answers import answer_tokens, split_tokens
from infrastructure.simulator.behaviour import Behaviour, Fault, WrongBehaviour, behaviour_of, named_behaviour
from infrastructure.simulator.examples import example
from infrastructure.simulator.schedule import Entry, Schedule


@given(question=st.text(), tokens=st.integers(0, 500))
def test_an_answer_is_as_long_as_asked_and_longer_ones_go_on_with_it(question, tokens):
    words = answer_tokens(question, tokens)

    assert len(words) == tokens
    assert all(words)
    assert answer_tokens(question, tokens + 7)[:tokens] == words


def test_different_questions_get_different_answers():
    answers = {answer_tokens(f"Question {number}?", 25) for number in range(100)}

    assert len(answers) > 90


@given(st.text())
def test_split_text_joins_to_itself(text):
    assert "".join(split_tokens(text)) == text


def test_a_model_name_without_at_sign_has_no_behaviour():
    assert named_behaviour("gpt-4o-mini") is None


def test_a_model_name_describes_a_behaviour():
    named = named_behaviour("gpt-4o@tokens=50,gap_ms=2,ttft_ms=10,fault=cut,at=10,retry_after=2,queued_s=1.5,blocked=1")

    assert named == Behaviour(
        tokens=50, gap_s=0.002, ttft_s=0.01, fault=Fault.CUT, at=10, retry_after_s=2.0, queued_s=1.5, blocked=True
    )


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        ("", "'' is not field=value"),
        ("tokens", "'tokens' is not field=value"),
        ("speed=3", "unknown field 'speed'"),
        ("tokens=-1", "'tokens=-1'"),
        ("tokens=2.5", "'tokens=2.5'"),
        ("gap_ms=soon", "'gap_ms=soon': a number of milliseconds"),
        ("ttft_s=nan", "'ttft_s=nan'"),
        ("ttft_s=-1", "'ttft_s=-1'"),
        ("fault=refuse", "'fault=refuse': one of reset,"),
        ("continues=backwards", "'continues=backwards': one of exact, refused,"),
        ("tool_call=perhaps", "'tool_call=perhaps': true or false"),
    ],
)
def test_a_part_that_is_wrong_is_named(grammar, complaint):
    with pytest.raises(WrongBehaviour) as wrong:
        named_behaviour(f"gpt-4o@{grammar}")

    assert complaint in str(wrong.value)


def test_json_fields_are_read_by_type():
    read = behaviour_of({"tokens": 3, "gap_ms": 2, "fault": 503, "tool_call": True, "text": "a, b", "retry_after": 0.5})

    assert read == Behaviour(
        tokens=3, gap_s=0.002, fault=Fault.UNAVAILABLE, tool_call=True, text="a, b", retry_after_s=0.5
    )
    for wrong in ({"tokens": True}, {"tokens": 1.5}, {"text": 1}, {"ttft_s": None}, {"gap_s": False}):
        with pytest.raises(WrongBehaviour):
            behaviour_of(wrong)


def test_an_example_satisfies_its_schema():
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "STRING"},
            "days": {"type": "integer"},
            "units": {"enum": ["metric", "imperial"]},
            "tags": {"type": "array", "items": {"type": ["string", "null"]}},
            "exact": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "kind": {"const": "weather"},
            "inner": {"properties": {"ratio": {"type": "number"}}},
        },
    }

    assert example(schema, "Leeds") == {
        "city": "Leeds",
        "days": 1,
        "units": "metric",
        "tags": ["Leeds"],
        "exact": True,
        "kind": "weather",
        "inner": {"ratio": 1.5},
    }


def test_counted_entries_go_first_and_the_lasting_one_remains():
    schedule, slow, cut, fast = Schedule(), Behaviour(gap_s=1), Behaviour(fault=Fault.CUT), Behaviour(gap_s=0)
    schedule.put("openai", None, Entry(behaviour=slow))
    schedule.put("openai", None, Entry(behaviour=cut, times=2))
    schedule.put("openai", None, Entry(behaviour=fast, times=1))

    assert [schedule.take("openai", "m") for _ in range(5)] == [cut, cut, fast, slow, slow]


def test_what_is_for_the_model_goes_before_what_is_for_all():
    schedule, exact, general = Schedule(), Behaviour(tokens=1), Behaviour(tokens=2)
    schedule.put("openai", None, Entry(behaviour=general))
    schedule.put("openai", "m", Entry(behaviour=exact, times=1))

    assert schedule.take("openai", "other") == general
    assert [schedule.take("openai", "m") for _ in range(2)] == [exact, general]
    assert schedule.take("gemini", "m") is None


def test_clearing_one_provider_leaves_the_others():
    schedule, behaviour = Schedule(), Behaviour(tokens=1)
    schedule.put("openai", "m", Entry(behaviour=behaviour))
    schedule.put("gemini", None, Entry(behaviour=behaviour))
    schedule.clear("openai")

    assert schedule.take("openai", "m") is None
    assert schedule.take("gemini", "m") == behaviour
    schedule.clear()
    assert schedule.take("gemini", "m") is None
