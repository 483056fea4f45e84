"""The rest of an answer joined to what was sent: nothing twice, nothing lost, or Unaligned."""

import re
import time
from unicodedata import normalize

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.chat import Chunk
from domain.errors import Unaligned
from domain.folding import folded, weight
from domain.prefilled import HELD_LETTERS, says_enough
from domain.repeats import ANCHOR_CHARS, END_LETTERS, anchor
from domain.splice import Splice

WORD = st.text("abcdefghijklmnop", min_size=1, max_size=7) | st.sampled_from(
    [
        "the",
        "The",
        "a",
        "- x",
        "}",
        "1.0",
        "**bold**",
        '"so"',
        "it's",
        "日本語の文章",
        "Größe",
        "café",
        "| a |",
        "```\nx\n```",
    ]
)
WORDS = st.lists(WORD, min_size=1, max_size=60)
BLANKS = st.sampled_from([" ", " ", " ", "\n", "\n\n", "  ", "\n    "])
ANY_TEXT = st.text("ab }1.\n", max_size=60) | st.text(max_size=40)
REMARKS = st.sampled_from(["Sure, here is the rest: ", "Of course! ", "Continuing:\n\n", "…", "> ", '"'])


@st.composite
def texts(draw, words=WORDS):
    """Words between blanks, as models write: lines, lists, tables and code among them, and what is said again."""
    line = "".join(word + draw(BLANKS) for word in draw(words))
    return line * draw(st.sampled_from([1, 1, 1, 2, 3]))


@st.composite
def cut_texts(draw, words=WORDS):
    """An answer as what was sent, which is something, and the rest."""
    whole = draw(texts(words))
    at = draw(st.integers(len(whole) - len(whole.lstrip()) + 1, len(whole)))
    return whole[:at], whole[at:]


@st.composite
def long_cut_texts(draw):
    """One of which so much was sent that a repeat shows."""
    whole = draw(texts(st.lists(WORD, min_size=20, max_size=60)))
    start = next((at for at in range(len(whole)) if says_enough(whole[:at])), len(whole))
    at = draw(st.integers(start, len(whole)))
    return whole[:at], whole[at:]


@st.composite
def chunked(draw, text):
    """`text` in pieces of any length, empty ones too."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def spliced(sent, pieces, *, is_prefilled=False):
    """All that a client has in the end; None: it is told of an interruption."""
    splice = Splice(sent, is_prefilled=is_prefilled)
    try:
        return sent + "".join([splice.push(piece) for piece in pieces]) + splice.finish()
    except Unaligned:
        return None


def said_again(sent):
    """The end that an instructed model repeats, with the blank behind it."""
    return anchor(sent) + sent[len(sent.rstrip()) :]


def differing(draw, text):
    """`text` with another word for one of its own."""
    words = list(re.finditer(r"\S+", text))
    word = words[draw(st.integers(0, len(words) - 1))]
    return f"{text[: word.start()]}Otherwise{text[word.end() :]}"


def _first_letter(text):
    return next((at for at, _ in enumerate(text, start=1) if folded(text[:at])), len(text))


KINDS = {
    "exact": lambda _draw, _sent, rest: rest,
    "over again": lambda _draw, sent, rest: sent + rest,
    "the end again": lambda _draw, sent, rest: said_again(sent) + rest,
    "over again, otherwise": lambda draw, sent, rest: differing(draw, sent) + rest,
    "over again, in capitals": lambda _draw, sent, rest: sent.upper() + rest,
    "over again, in other quotes and accents": lambda _draw, sent, rest: (
        normalize("NFD", sent).replace('"', "\N{RIGHT DOUBLE QUOTATION MARK}") + rest
    ),
    "over again, broken off": lambda draw, sent, _rest: sent[: draw(st.integers(_first_letter(sent), len(sent)))],
    "over again, behind a remark": lambda draw, sent, rest: draw(REMARKS) + sent + rest,
    "the end again, behind a remark": lambda draw, sent, rest: draw(REMARKS) + said_again(sent) + rest,
    "over again, in a fence": lambda _draw, sent, rest: f"```\n{sent}{rest}\n```",
    "the end again, in a fence": lambda _draw, sent, rest: f"```\n{said_again(sent)}{rest}\n```",
    "nothing": lambda _draw, _sent, _rest: "",
}
"""What a model says that is asked for the rest."""


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_was_asked_for_in_words_is_joined_exactly_or_not_at_all(kind, data):
    """Whatever the answer is, wherever it was cut and however the model goes on."""
    sent, rest = data.draw(cut_texts())
    come = KINDS[kind](data.draw, sent, rest)
    assume(kind != "exact" or not has_come_before(sent, rest))
    assume(weight(folded(sent)) >= END_LETTERS or kind in ALL_AGAIN or not folded(come).startswith(folded(sent)))

    told = spliced(sent, data.draw(chunked(come)))

    if kind in {"over again, broken off", "nothing"}:
        assert told is None or told.rstrip() in {sent.rstrip(), (sent + rest).rstrip()}
    else:
        assert told in {None, sent + rest}


ALL_AGAIN = {"over again", "the end again"}


def has_come_before(sent, rest):
    """Whether the bare rest begins with what was said already: who was asked to do that may be taken at his word."""
    start = folded(rest).lstrip(".")[: END_LETTERS // 3]
    return not start or start in folded(sent)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_goes_on_with_a_prefill_is_joined_exactly_or_not_at_all(kind, data):
    """Nothing of it is ever cut: it is the rest, or it is asked for in words."""
    sent, rest = data.draw(long_cut_texts())

    told = spliced(sent, data.draw(chunked(KINDS[kind](data.draw, sent, rest))), is_prefilled=True)

    assert told in {None, sent + rest}


LONG_TEXTS = texts(st.lists(st.text("abcdefghijklmnop", min_size=3, max_size=7), min_size=20, max_size=60, unique=True))


@given(data=st.data())
def test_what_is_asked_for_and_given_is_joined(data):
    """The end that was asked for, or all, however wrapped and in whatever letters: it is not refused for nothing."""
    text = data.draw(LONG_TEXTS)
    assume(text.count(text[:30]) == 1)
    at = data.draw(st.integers(1, len(text)))
    sent, rest = text[:at].rstrip(), text[at:]
    again = data.draw(st.sampled_from([sent, anchor(sent), anchor(sent).upper(), sent.replace(" ", "\n")]))
    assume(folded(sent))

    assert spliced(sent, data.draw(chunked(again + rest))) == sent + rest


@given(data=st.data())
def test_the_exact_rest_of_a_prefill_stands(data):
    """Unless it is like what was sent."""
    sent, rest = data.draw(LONG_TEXTS), data.draw(texts())
    assume(len(folded(rest)) > 2)
    assume(not any(folded(rest)[at : at + 3] in folded(sent) for at in range(len(folded(rest)) - 2)))

    assert spliced(sent, data.draw(chunked(rest)), is_prefilled=True) == sent + rest


@given(data=st.data(), is_prefilled=st.booleans())
def test_any_continuation_of_anything_is_sent_to_its_end_or_refused(data, is_prefilled):
    """No text makes it fail otherwise, and what comes out ends as what came in."""
    sent, rest = data.draw(ANY_TEXT), data.draw(ANY_TEXT)
    told = spliced(sent, data.draw(chunked(rest)), is_prefilled=is_prefilled)

    assert told is None or rest.endswith(told.removeprefix(sent))


SENT = "The weir holds back what the mill will need by noon. Nobody in the village remembers"
CODE = "Here is code:\n\n```python\ndef f(x):\n    y = x + 1\n"
ITEMS = "- item\n" * 40
HAN = "东京是日本的首都\N{FULLWIDTH COMMA}人口约一千四百万\N{FULLWIDTH COMMA}"


@pytest.mark.parametrize(
    ("sent", "come", "whole"),
    [
        ("The quick bro", "The quick brown fox", "The quick brown fox"),
        ("The quick", "quick brown fox", None),
        ("He is very", "very tired", None),
        ("I", "It is", "It is"),
        ("1", "1 boat", "1 boat"),
        ("**", "**Bold** it is", "**Bold** it is"),
        ("**", "Bold it is", None),
        ("", "  The weir", "  The weir"),
        (" \n", " The weir", " \nThe weir"),
        (SENT, "…in the village remembers who laid it.", SENT + " who laid it."),
        (SENT, "IN THE VILLAGE REMEMBERS who laid it.", SENT + " who laid it."),
        (SENT, "... who laid it.", None),
        (SENT, " who laid it.", None),
        (SENT, "", None),
        (SENT, SENT, SENT),
        (SENT, SENT[:60], None),
        (SENT, "Sure: " + SENT + " who", None),
        (SENT, f'"{SENT}" who', None),
        (SENT, f"**{SENT}** who", None),
        (SENT + " ", "in the\nvillage remembers\nwho", SENT + " who"),
        (SENT + ". ", "in the village remembers.\n\nSnow", SENT + ". \n\nSnow"),
        (SENT + ":\n", "in the village remembers:\n    x = 1", SENT + ":\n    x = 1"),
        (SENT + " **who**", "remembers **who** laid", SENT + " **who** laid"),
        (CODE, CODE + "    return y\n```", CODE + "    return y\n```"),
        (CODE, "```python\n    y = x + 1\n    return y\n```", None),
        (HAN, "人口约一千四百万\N{FULLWIDTH COMMA}是世界上最大的城市之一。", HAN + "是世界上最大的城市之一。"),
        (HAN, "是世界上最大的城市之一。", None),
        (SENT + " café", "remembers cafe\u0301 noir", SENT + " café noir"),
        (SENT + " cafe\u0301", "remembers café noir", SENT + " cafe\u0301 noir"),
        ("a f", "a \ufb01ne day", None),
        (ITEMS, anchor(ITEMS) + "\n- item\n", ITEMS + "- item\n"),
        ("ha " * 80, "ha " * 40, None),
        ("Yes:\n" + ITEMS, anchor(ITEMS) + "\n- item\n", "Yes:\n" + ITEMS + "- item\n"),
    ],
)
def test_an_instructed_seam(sent, come, whole):
    """As it is in texts that people read."""
    assert spliced(sent, [come]) == whole
    assert spliced(sent, list(come)) == whole


LINE = "self.assertEqual(result.status, expected.status)\n"
ROWS = "| name | age |\n|---|---|\n| Ann Smith of Leeds | 31 |\n| Bob Jones of York | 42 |\n"
STEPS = "1. Fill the kettle with fresh water.\n2. Wait until it boils, then pour.\n"


@pytest.mark.parametrize(
    ("sent", "come", "stands"),
    [
        (SENT, " who laid it.", True),
        (SENT, ", or so they say.", True),
        (SENT + ". ", "Snow in the hills becomes bread in the valley, which holds back nothing.", True),
        (SENT + " He had", " had enough", True),
        (SENT + " ha ha ha", " ha ha!", True),
        (SENT + "\n\n" + "if x {\n}\n", "}\n}\n", True),
        (CODE, "    return y\n```", True),
        (ROWS, "| Bea Brown of Hull | 27 |\n", True),
        (STEPS, "3. Wait again.\n4. Fill the cup with it.\n", True),
        (HAN * 2 + "是世", "界上最大的城市之一。", True),
        (SENT + " 1", "00 boats", True),
        (SENT, "", False),
        (SENT, "\n", False),
        (SENT, SENT + " who", False),
        (SENT, SENT[:31], False),
        (SENT, "The", False),
        (SENT, SENT.lower() + " who", False),
        (SENT, SENT.replace("weir", "dam") + " who", False),
        (SENT, "Of course! " + SENT, False),
        (SENT, "Here it is: " + SENT[-60:] + " who", False),
        (SENT, "```\n" + SENT, False),
        (SENT, "the village remembers who", False),
        (SENT, "remembers who", False),
        (SENT + "\n" + LINE * 2, LINE + "end", False),
        (HAN * 2, "人口约一千四百万\N{FULLWIDTH COMMA}是世界上", False),
    ],
)
def test_a_prefilled_seam(sent, come, stands):
    """What can be the rest is the rest; what looks like a repeat is asked for in words."""
    whole = sent + come if stands else None

    assert spliced(sent, [come], is_prefilled=True) == whole
    assert spliced(sent, list(come), is_prefilled=True) == whole


def test_a_prefilled_rest_that_goes_on_with_the_sentence_is_not_held_back():
    """A client need not wait for what is plainly new."""
    splice = Splice(SENT, is_prefilled=True)
    assert [splice.push(word) for word in [" who", " laid", " it"]] == [" who", " laid", " it"]
    splice = Splice(SENT, is_prefilled=True)
    assert [splice.push(word) for word in [" the", " mill", " was"]] == ["", "", " the mill was"]


def test_a_prefilled_rest_that_may_be_a_fresh_start_is_held_back_for_a_dozen_words():
    """And no longer."""
    splice = Splice(SENT + ". ", is_prefilled=True)
    words = [f"Word{number:02d} " for number in range(20)]

    new = [splice.push(word) for word in words]

    assert "".join(new) == "".join(words)
    assert new.index("".join(words[: HELD_LETTERS // 6])) == HELD_LETTERS // 6 - 1


def test_what_does_not_begin_as_asked_is_refused_at_once():
    """So that the next route can be asked."""
    splice = Splice(SENT)
    assert not any(splice.push(f"else{word} ") for word in range(ANCHOR_CHARS // 8))
    with pytest.raises(Unaligned):
        splice.push("or something else, at last")


def test_of_a_rest_the_text_is_taken_and_the_calls_of_tools_behind_it():
    """Thoughts in its midst would be of another answer."""
    call, thought = {"tool_calls": [{}]}, {"reasoning_content": "Hm"}
    splice = Splice(SENT, is_prefilled=True)

    chunks = [Chunk(delta=thought), Chunk(" Who"), Chunk(delta=call), Chunk(finish_reason="tool_calls")]
    assert [splice.join(chunk) for chunk in chunks] == [
        None,
        None,
        Chunk(" Who", delta=call),
        Chunk(finish_reason="tool_calls"),
    ]


def test_a_tool_may_be_called_at_once_by_who_goes_on_with_a_prefill():
    """The text was whole."""
    end = Chunk(delta={"tool_calls": [{}]})

    assert Splice(SENT, is_prefilled=True).join(end) == end
    with pytest.raises(Unaligned):
        Splice(SENT).join(end)


def test_a_rest_that_a_filter_has_ended_is_ended_by_it():
    """What was held back is not sent."""
    end = Chunk(finish_reason="content_filter")

    assert Splice(SENT).join(end) == end


def test_an_anchor_is_the_last_whole_words():
    """All of a short text, and more of one that says little."""
    assert anchor(" The weir ") == "The weir"
    assert SENT.endswith(f" {anchor(SENT)}")
    assert len(anchor("x" * 500)) == ANCHOR_CHARS
    assert "def f(x)" in anchor(CODE + " " * 200 + "}\n")


@pytest.mark.parametrize("is_prefilled", [False, True])
@pytest.mark.parametrize("unit", ["ab ", "a", "The weir holds back what the mill will need by noon. ", "水"])
def test_a_long_text_costs_time_in_proportion(unit, is_prefilled):
    """Of any kind; 400,000 characters started over, in pieces of four."""
    sent = "Once: " + unit * (200_000 // len(unit))
    again = sent * 2
    began_s = time.process_time()

    spliced(sent, (again[start : start + 4] for start in range(0, len(again), 4)), is_prefilled=is_prefilled)

    assert time.process_time() - began_s < 2.0
