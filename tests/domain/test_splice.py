"""The rest of an answer joined to what was sent: nothing twice, nothing lost, or Unaligned."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.errors import Unaligned
from domain.splice import ANCHOR_CHARS, Splice, anchor

WORD = st.text("abcdefghijklmnop", min_size=1, max_size=7) | st.sampled_from(["the", "a", "- x", "}", "1.0", "日本語"])
WORDS = st.lists(WORD, min_size=1, max_size=60)
MANY_WORDS = st.lists(WORD, min_size=12, max_size=60, unique=True)
BLANKS = st.sampled_from([" ", " ", " ", "\n", "\n\n", "  ", "\n    "])
ANY_TEXT = st.text("ab }1.\n", max_size=60) | st.text(max_size=40)


@st.composite
def texts(draw, words=WORDS):
    """Words between blanks, as models write."""
    return "".join(word + draw(BLANKS) for word in draw(words))


TEXTS = texts()
LONG_TEXTS = texts(MANY_WORDS)


@st.composite
def cut_texts(draw, whole):
    """A text as what was sent and the rest."""
    text = draw(whole)
    at = draw(st.integers(0, len(text)))
    return text[:at], text[at:]


@st.composite
def chunked(draw, text):
    """`text` in pieces of any length, empty ones too."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def spliced(sent, pieces, *, is_prefilled=False):
    """All that a client has in the end."""
    splice = Splice(sent, is_prefilled=is_prefilled)
    return sent + "".join([splice.push(piece) for piece in pieces]) + splice.finish()


def squeezed(text):
    return "".join(text.split())


def repeated(sent, rest):
    """The lengths of all ends of `sent` that `rest` begins with, whitespace not counted."""
    known, come = squeezed(sent).lstrip(".…"), squeezed(rest).lstrip(".…")
    return [chars for chars in range(1, min(len(known), len(come)) + 1) if known[-chars:] == come[:chars]]


def begins_anew(sent, rest, chars):
    known, come = squeezed(sent).lstrip(".…"), squeezed(rest).lstrip(".…")
    return known[:chars] == come[:chars] and len(known) >= chars


@given(data=st.data(), is_prefilled=st.booleans())
def test_what_is_started_over_is_cut_to_its_remainder(data, is_prefilled):
    """Wherever the answer was cut, and however the continuation comes."""
    sent, rest = data.draw(LONG_TEXTS if is_prefilled else TEXTS), data.draw(TEXTS)
    if is_prefilled:
        assume((squeezed(sent) * 2).index(squeezed(sent), 1) == len(squeezed(sent)))

    assert spliced(sent, data.draw(chunked(sent + rest)), is_prefilled=is_prefilled) == sent + rest


@given(data=st.data())
def test_a_repeat_of_the_end_is_sent_once(data):
    """Of the ends that it could be, the longest: where there is a longer one by chance, none can tell."""
    sent, rest = data.draw(LONG_TEXTS), data.draw(TEXTS)
    first = next(at for at in range(len(sent), -1, -1) if len(squeezed(sent[at:])) >= 12)
    end = sent[data.draw(st.integers(0, first)) :]
    assume(max(repeated(sent, end + rest)) == len(squeezed(end)))

    assert spliced(sent, data.draw(chunked(end + rest))) == sent + rest


@given(data=st.data())
def test_a_repeat_of_the_anchor_is_sent_once_whatever_longer_one_there_could_be(data):
    """It is what an instructed route was asked to begin with."""
    long = LONG_TEXTS.filter(lambda text: len(text.strip()) > ANCHOR_CHARS)
    repetitive = st.sampled_from(["- item\n", "ha ", "}\n}\n"]).map(lambda line: "Yes: " + line * 60)
    sent, rest = data.draw(long | repetitive), data.draw(TEXTS | repetitive.map(lambda text: text[5:80]))
    end = sent[sent.rindex(anchor(sent)) :]

    assert spliced(sent, data.draw(chunked(end + rest))) == sent + rest


@given(data=st.data())
def test_the_exact_rest_stands(data):
    """Where it does not look like a repeat."""
    sent, rest = data.draw(cut_texts(ANY_TEXT))
    assume(max(repeated(sent, rest), default=0) < 3)
    assume(not begins_anew(sent, rest, min(12, len(squeezed(sent).lstrip(".…")) or 1)))

    assert spliced(sent, data.draw(chunked(rest))) == sent + rest


@given(data=st.data())
def test_the_exact_rest_of_a_prefill_stands_even_if_it_looks_like_a_repeat(data):
    """Of less than 24 characters, and not of all that was sent."""
    sent, rest = data.draw(cut_texts(ANY_TEXT))
    assume(max(repeated(sent, rest), default=0) < 24)
    assume(not begins_anew(sent, rest, min(48, len(squeezed(sent)) or 1)))

    assert spliced(sent, data.draw(chunked(rest)), is_prefilled=True) == sent + rest


@given(data=st.data(), is_prefilled=st.booleans())
def test_a_repeat_with_other_whitespace_is_a_repeat(data, is_prefilled):
    """Models break lines anew; what is sent after the seam is as they write it."""
    words, more = data.draw(MANY_WORDS), data.draw(WORDS)
    sent = "".join(word + data.draw(BLANKS) for word in words).rstrip()
    assume((squeezed(sent) * 2).index(squeezed(sent), 1) == len(squeezed(sent)))
    again = data.draw(BLANKS) + "".join(word + data.draw(BLANKS) for word in words).rstrip()
    rest = " " + " ".join(more)

    assert spliced(sent, data.draw(chunked(again + rest)), is_prefilled=is_prefilled) == sent + rest


@given(data=st.data(), is_prefilled=st.booleans())
def test_any_continuation_of_anything_is_sent_to_its_end_or_refused(data, is_prefilled):
    """No text makes it fail otherwise, and what comes out ends as what came in."""
    sent, rest = data.draw(ANY_TEXT), data.draw(ANY_TEXT)
    splice = Splice(sent, is_prefilled=is_prefilled)
    try:
        new = "".join([splice.push(piece) for piece in data.draw(chunked(rest))]) + splice.finish()
    except Unaligned:
        return
    assert rest.endswith(new)


SENT = "The weir holds back what the mill will need by noon. Nobody in the village remembers"


@pytest.mark.parametrize(
    ("sent", "come", "whole"),
    [
        ("He had", " had enough", "He had had enough"),
        ("ha ha ha", " ha ha!", "ha ha ha ha ha!"),
        ("if x {\n}\n", "}\n}\n", "if x {\n}\n}\n}\n"),
        ("| a |\n|---|", "---|\n", "| a |\n|---|---|\n"),
        ("The quick", "quick brown fox", "The quick brown fox"),
        ("The quick bro", "brown fox", "The quick brown fox"),
        ("No end of the", "of the river", "No end of the river"),
        ("It costs 100", "100 dollars", "It costs 100100 dollars"),
        ("I", "It is", "It is"),
        (SENT, "…in the village remembers who laid it.", SENT + " who laid it."),
        (SENT, "... who laid it.", SENT + "... who laid it."),
        (SENT + " ", "in the\nvillage remembers\nwho", SENT + " who"),
        (SENT + ". ", "in the village remembers.\n\nSnow", SENT + ". \n\nSnow"),
        (SENT + ":\n", "in the village remembers:\n    x = 1", SENT + ":\n    x = 1"),
        ("", "  The weir", "  The weir"),
        (" \n", " The weir", " \n The weir"),
    ],
)
def test_an_instructed_seam(sent, come, whole):
    """As it is in texts that people read."""
    assert spliced(sent, [come]) == whole
    assert spliced(sent, list(come)) == whole


LINE = "self.assertEqual(result.status, expected.status)\n"
CYCLE = "".join(f"Sentence number {number} is not like another.\n" for number in range(9))


@pytest.mark.parametrize(
    ("sent", "come", "whole"),
    [
        ("ha ha ha ha ha ha", " ha ha ha ha ha ha ha", "ha " * 12 + "ha"),
        ("The", "The weir", "The weir"),
        ("ha", "haha", "hahaha"),
        ("1", "1 boat", "11 boat"),
        ("He had", " had enough", "He had had enough"),
        (SENT, " " + SENT[-40:] + " who", SENT + " who"),
        ("x\n" + LINE * 2, LINE + "end", "x\n" + LINE * 3 + "end"),
        (CYCLE + CYCLE[:100], CYCLE[100:] + CYCLE, CYCLE * 3),
    ],
)
def test_a_prefilled_seam(sent, come, whole):
    """What can be the rest is the rest."""
    assert spliced(sent, [come], is_prefilled=True) == whole
    assert spliced(sent, list(come), is_prefilled=True) == whole


@pytest.mark.parametrize("is_prefilled", [False, True])
@pytest.mark.parametrize("come", [SENT[:60] + "when it will come.", SENT[:70]])
def test_an_answer_that_is_started_over_and_is_another_cannot_be_gone_on_with(come, is_prefilled):
    """Nor one that ends before it comes to where it was."""
    with pytest.raises(Unaligned):
        spliced(SENT, list(come), is_prefilled=is_prefilled)


def test_no_more_is_held_back_than_can_be_a_repeat():
    """A client need not wait for what is plainly new."""
    splice = Splice(SENT)

    assert [splice.push(word) for word in [" who", " laid", " it"]] == [" who", " laid", " it"]
    splice = Splice(SENT)
    assert [splice.push(word) for word in ["the", " mill", " was", " sold"]] == ["", "", "the mill was", " sold"]


def test_an_anchor_is_the_last_whole_words():
    """All of a short text."""
    assert anchor(" The weir ") == "The weir"
    assert SENT.endswith(f" {anchor(SENT)}")
    assert len(anchor("x" * 500)) == ANCHOR_CHARS


@pytest.mark.parametrize("unit", ["ab ", "a", "The weir holds back what the mill will need by noon. "])
def test_a_long_text_costs_time_in_proportion(unit):
    """Of any kind; 400,000 characters started over, in pieces of four."""
    sent = unit * (200_000 // len(unit))
    again = sent * 2
    began_s = time.process_time()

    splice = Splice(sent)
    for start in range(0, len(again), 4):
        splice.push(again[start : start + 4])

    assert time.process_time() - began_s < 2.0
