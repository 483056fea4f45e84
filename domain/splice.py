"""Joining the rest of an answer to the part already sent: exactly, or not at all.

A model that is asked for the rest may give just that; or repeat the last words first; or start the answer over, with
small differences, or behind a remark, or in a fence; or say nothing. What can be told for certain is joined, all else
is Unaligned: nothing is sent twice and nothing is dropped by a guess. Texts are compared by their letters
(domain/folding.py).

A route that was given the text as a prefill goes on with it to the letter, or it does not honour it. So nothing is
ever cut from its rest: it stands, unless it looks as if it repeated what was sent. Rests do that by chance too
("had had", the next row of a table), and no rule can tell them apart; such a one is asked for again in words.

    a prefilled rest that …                                           is held back until it
    begins in small letters or with a comma behind a blank or word    is not like what was sent
    begins otherwise                                                  has come to HELD_LETTERS

A route that was asked in words was asked to repeat the end first, its `anchor`, so it says itself where it goes on.

    what comes first from a route asked in words
    all that was sent                              is cut behind it
    the anchor                                     is cut behind it
    another end, long enough and said but once     is cut behind it
    anything else                                  is Unaligned
"""

from itertools import accumulate
from unicodedata import normalize

from domain.chat import WHOLE_REASONS, Chunk
from domain.errors import Unaligned
from domain.folding import MARKS, end_of, folded, tail, weight

ANCHOR_CHARS = 80
"""How much of the end of what was sent an instructed route is asked to repeat, at most, unless that says too little."""

ALIKE_LETTERS = 16
"""So many letters in a row are not the same by chance; see folding.weight for scripts that need fewer."""

END_LETTERS = 12
"""So many of the end are a repeat when they come first, in words, from who was asked to repeat it."""

STAMMERED_LETTERS = 8
"""So many of the end may be a repeat when they come first in a prefilled rest."""

HELD_LETTERS = 3 * ALIKE_LETTERS
"""So much of a prefilled rest shows whether it begins anew, with another word anywhere or behind a short remark.

While less than that has been sent, the rest is asked for in words.
"""

_BEGINNING_LETTERS = 4 * ALIKE_LETTERS
_ENDING_LETTERS = 400
_DOTS = "."
_FENCE = "```"
_GOING_ON = ",;:!?)]}%"


def anchor(sent: str) -> str:
    """The last words of `sent`, up to ANCHOR_CHARS, or more where these are all but blank; all of a short text."""
    text = sent.strip()
    size = ANCHOR_CHARS
    while size < len(text) and weight(folded(text[-size:])) < 2 * ALIKE_LETTERS:
        size *= 2
    if size >= len(text):
        return text
    end = text[-size:]
    _, blank, words = end[: size // 2].partition(" ")
    return words.lstrip() + end[size // 2 :] if blank and words.strip() else end


def says_enough(sent: str) -> bool:
    """Whether so much has been sent that a prefilled rest shows whether it begins anew."""
    return weight(folded(sent)) >= HELD_LETTERS


class Splice:
    """The text of a continuation as it comes, without what repeats `sent`; see this module's docstring.

    `is_prefilled`: the route was given `sent` as the beginning of its answer, not asked for the rest in words. Takes
    time and memory linear in both texts.
    """

    def __init__(self, sent: str, *, is_prefilled: bool = False) -> None:
        self._sent = sent
        self._seam = _seam(sent, is_prefilled=is_prefilled)
        self._pieces: list[str] = []
        self._is_aligned = not sent

    def join(self, chunk: Chunk) -> Chunk | None:
        """What of `chunk` is new: text, and the calls of tools that follow on it; None while it is held back.

        What else stands beside a text is of another beginning.

        Raises:
            Unaligned: what has come cannot be joined to what was sent.
        """
        calls = {name: value for name, value in (chunk.delta or {}).items() if name in _CALLS} or None
        new = self.push(chunk.content) if chunk.content else ""
        if calls or chunk.finish_reason in WHOLE_REASONS:
            new += self.finish(is_followed=calls is not None)
        if not (new or calls or chunk.finish_reason):
            return None
        return Chunk(new, chunk.finish_reason, chunk.index, calls, None, chunk.usage)

    def push(self, text: str) -> str:
        """What of the continuation is new, now that `text` of it has come; empty while it is held back.

        Raises:
            Unaligned: it is not the rest, or that cannot be told.
        """
        if self._is_aligned:
            return text
        self._pieces.append(text)
        return self._rest() if self._seam.come(text) else ""

    def finish(self, *, is_followed: bool = False) -> str:
        """What was still held back and is new: the continuation has ended, or `is_followed` by what is not text.

        Raises:
            Unaligned: it is not the rest, or that cannot be told.
        """
        if self._is_aligned:
            return ""
        self._seam.end(is_followed=is_followed)
        return self._rest()

    def _rest(self) -> str:
        self._is_aligned = True
        come, self._pieces = "".join(self._pieces), []
        return self._seam.rest(come)


_CALLS = frozenset({"tool_calls", "function_call"})


def _seam(sent: str, *, is_prefilled: bool) -> "_Prefilled | _Instructed | _Bare":
    if not folded(sent).lstrip(_DOTS):
        return _Bare(sent)
    return _Prefilled(sent) if is_prefilled else _Instructed(sent)


class _Bare:
    """Without a letter nothing can be compared but the text itself: it has to be said again."""

    def __init__(self, sent: str) -> None:
        self._sent = sent
        self._come = ""

    def come(self, text: str) -> bool:
        self._come += text
        return len(self._come.strip()) > len(self._sent.strip())

    def end(self, *, is_followed: bool) -> None:
        """It is seen when the rest is asked for."""

    def rest(self, come: str) -> str:
        again = self._sent.strip()
        if not come.lstrip().startswith(again):
            raise Unaligned
        if not again:
            return come.removeprefix(self._sent) if come.startswith(self._sent) else come.lstrip()
        return _without_blank(self._sent, come.lstrip()[len(again) :])


class _Prefilled:
    """The rest of a route that goes on with what it was given, unless it does not."""

    def __init__(self, sent: str) -> None:
        self._sent = sent
        self._known = folded(sent)
        self._runs = _runs(self._known[:_BEGINNING_LETTERS])
        self._ending = self._known[-_ENDING_LETTERS:]
        self._end = _shortest_end(self._ending)
        self._text = ""
        self._letters = ""

    def come(self, text: str) -> bool:
        self._text += text
        self._letters += folded(text)
        if self._is_a_repeat:
            raise Unaligned
        return weight(self._letters) >= HELD_LETTERS or (self._goes_on and not self._is_like_what_was_sent)

    def end(self, *, is_followed: bool) -> None:
        is_nothing = not (self._text.strip() or is_followed)
        if is_nothing or (self._letters and self._known.startswith(self._letters)):
            raise Unaligned

    def rest(self, come: str) -> str:
        return come

    @property
    def _is_a_repeat(self) -> bool:
        """Whether it says what was sent: all of it, or so much of its beginning or end as is not said by chance."""
        letters = self._letters
        if letters.startswith(self._known) or self._stammers or self._begins_with_the_end:
            return True
        if len(letters) < ALIKE_LETTERS and weight(letters) < ALIKE_LETTERS:
            return False
        return self._begins_anew or self._is_within_the_end or (bool(self._end) and self._end in _head(letters))

    @property
    def _begins_anew(self) -> bool:
        head = _head(self._letters)
        return any(run in head for run in self._runs)

    @property
    def _is_within_the_end(self) -> bool:
        """Whether all of it that is looked at, but for what may be a remark, is of the end of what was sent."""
        head = _head(self._letters)
        rests = (head[at:] for at in range(len(head))) if weight(head) >= HELD_LETTERS else ()
        return any(rest in self._ending for rest in rests if weight(rest) >= ALIKE_LETTERS)

    @property
    def _begins_with_the_end(self) -> bool:
        head = _head(self._letters)
        ends = (head[:size] for size in range(1, len(head) + 1) if self._ending.endswith(head[:size]))
        return any(weight(end) >= STAMMERED_LETTERS for end in ends)

    @property
    def _stammers(self) -> bool:
        """Whether, as it stands, it would put the last word that was sent twice without a blank."""
        word = self._sent[_last_word(self._sent) :]
        return word.isalpha() and self._text.startswith(word) and not self._text[len(word) :][:1].isalnum()

    @property
    def _goes_on(self) -> bool:
        """Whether it begins as only the rest of a sentence does."""
        first, beginning = self._text.lstrip()[:1], self._sent.lstrip(" \n" + MARKS)[:1]
        if first and first in _GOING_ON:
            return beginning not in _GOING_ON
        is_apart = self._text[:1].isspace() and not self._sent[-1:].isspace()
        return first.islower() and is_apart and not beginning.islower()

    @property
    def _is_like_what_was_sent(self) -> bool:
        return self._known.startswith(self._letters) or self._letters in self._ending


class _Instructed:
    """The rest of a route that was asked to say first where it goes on."""

    def __init__(self, sent: str) -> None:
        self._sent = sent
        self._known = folded(sent).lstrip(_DOTS)
        self._anchor = folded(anchor(sent)).lstrip(_DOTS)
        self._is_periodic = self._known.startswith(self._anchor) and self._known != self._anchor
        self._head = ""
        self._size = 0
        self._start = 0
        self._is_same = True
        self._is_begun = False
        self._repeat: int | None = None

    def come(self, text: str) -> bool:
        letters = folded(text) if self._size else folded(text).lstrip(_DOTS)
        self._compare(letters)
        if not self._is_begun:
            self._head += letters
        return self._look(is_end=False)

    def end(self, *, is_followed: bool) -> None:  # noqa: ARG002  # as the others
        if not self._look(is_end=True):
            raise Unaligned

    def rest(self, come: str) -> str:
        size = self._repeat or 0
        dots = len(folded(come)) - len(folded(come).lstrip(_DOTS))
        end = end_of(come, dots + size)
        is_cut_between_letters = len(folded(come[:end])) == dots + size
        if not (is_cut_between_letters and _is_marked_alike(self._sent, come[:end], size)):
            raise Unaligned
        return _joined(self._sent, _without_accents(self._sent, come[end:]))

    def _compare(self, letters: str) -> None:
        """Whether all that has come is what was sent, from where the repeat would start."""
        at = self._start + self._size
        self._is_same = self._is_same and self._known.startswith(letters[: len(self._known) - at], at)
        self._size += len(letters)

    def _look(self, *, is_end: bool) -> bool:
        """Whether it is known where the rest begins, and a letter of it has come: the blanks before are whole."""
        if self._repeat is None:
            self._seek(is_end=is_end)
        return self._repeat is not None and (is_end or self._size > self._repeat)

    def _seek(self, *, is_end: bool) -> None:
        """Find the repeat, if its end shows yet."""
        if self._is_periodic:
            raise Unaligned
        if not self._is_begun and (is_end or len(self._head) >= len(self._anchor)):
            self._begin()
        if self._is_begun and not self._is_same:
            raise Unaligned
        if self._is_same and self._size >= len(self._known) - self._start:
            self._repeat = self._repeat or len(self._known) - self._start

    def _begin(self) -> None:
        """What has come begins with the anchor or another short end; else it goes on from where it has begun."""
        self._is_begun = True
        end = self._anchor if self._head.startswith(self._anchor) else self._short_end
        if not self._is_same or end == self._anchor:
            start = len(self._known) - len(end) if end else self._known.find(self._head[: len(self._anchor)])
            is_told = end or _is_said_once(self._head[: len(self._anchor)], self._known)
            letters, self._size, self._start, self._is_same = self._head, 0, max(start, 0), bool(is_told)
            self._compare(letters)

    @property
    def _short_end(self) -> str:
        """The end of what was sent that has come first: none if it could be two, or was said before."""
        sizes = range(1, min(len(self._anchor), len(self._head) + 1))
        ends = [self._known[-size:] for size in sizes if self._head.startswith(self._known[-size:])]
        convincing = [end for end in ends if weight(end) >= END_LETTERS]
        return convincing[0] if len(convincing) == 1 and _is_said_once(_words(convincing[0]), self._known) else ""


def _head(letters: str) -> str:
    """As much of `letters` as weighs HELD_LETTERS."""
    head = letters[:HELD_LETTERS]
    return head if head.isascii() else _shortest(head, HELD_LETTERS) or head


def _runs(letters: str) -> tuple[str, ...]:
    """All runs of `letters` that are just long enough to convince."""
    runs = (_shortest(letters[start:], ALIKE_LETTERS) for start in range(len(letters)))
    return tuple(run for run in runs if run)


def _shortest_end(letters: str) -> str:
    """The end of `letters` that is just long enough to convince; empty: there is none."""
    return _shortest(letters[: -ALIKE_LETTERS - 1 : -1], ALIKE_LETTERS)[::-1]


def _shortest(letters: str, enough: int) -> str:
    """The shortest beginning of `letters` that weighs `enough`; empty: there is none."""
    weights = accumulate(weight(letter) for letter in letters[:enough])
    return next((letters[: size + 1] for size, total in enumerate(weights) if total >= enough), "")


def _is_said_once(letters: str, known: str) -> bool:
    """Whether `known` has them, in one place."""
    at = known.find(letters)
    return at >= 0 and known.find(letters, at + 1) < 0


def _words(letters: str) -> str:
    """`letters` without a quotation mark and the like ahead."""
    at = next((at for at, letter in enumerate(letters) if letter.isalnum()), 0)
    return letters[at:]


def _last_word(text: str) -> int:
    """Where the last word of `text` begins; its end if it does not end in one."""
    at = len(text)
    while at and text[at - 1].isalnum():
        at -= 1
    return at


def _is_marked_alike(sent: str, again: str, size: int) -> bool:
    """Whether a repeat of the last `size` letters, whose marks are not compared, has the marks that `sent` has there.

    A rest behind "**Note" that follows on "Note" would close what was never opened.
    """
    sent_lead, sent_part = _last_letters(sent[: len(sent) - len(tail(sent))], size)
    again_lead, again_part = _last_letters(again, size)
    if _marks(sent_part) != _marks(again_part):
        return False
    if not folded(sent_lead).lstrip(_DOTS):
        return _marks(sent_lead) == _marks(again_lead)
    if _FENCE in again_lead:
        return _marks(again_lead) == _marks(_lead(anchor(sent)))
    return _marks(tail(sent_lead)).endswith(_marks(again_lead))


def _last_letters(text: str, size: int) -> tuple[str, str]:
    """`text` cut before its last `size` letters."""
    at = len(text)
    while size > 0:
        at -= 1
        size -= len(folded(text[at]))
    return text[:at], text[at:]


def _lead(text: str) -> str:
    """The marks and blanks that `text` begins with."""
    return text[: len(text) - len(text.lstrip(MARKS + " \n\t"))]


def _marks(text: str) -> str:
    return "".join(each for each in text if each in MARKS)


def _without_accents(sent: str, rest: str) -> str:
    """`rest` without the accents of the letter that it stands behind, if `sent` has these in one with it."""
    last = sent[: len(sent) - len(tail(sent))][-1]
    accents = normalize("NFD", last)[1:]
    return rest.removeprefix(accents) if not folded(accents) else rest


def _joined(sent: str, rest: str) -> str:
    """`rest`, which stands behind a repeat of the letters of `sent`, without the marks and blanks sent already.

    Raises:
        Unaligned: there are other marks.
    """
    known = tail(sent)
    if rest.startswith(known):
        return rest[len(known) :]
    marks, lead = _marks(known), _marks(_lead(rest))
    if marks and lead:
        if not lead.startswith(marks):
            raise Unaligned
        for mark in marks:
            rest = rest[rest.index(mark) + 1 :]
    return _without_blank(known, rest)


def _without_blank(sent: str, rest: str) -> str:
    """`rest` without the whitespace that `sent` ends with.

    Whitespace other than that is a line broken elsewhere, and goes too, unless it is all there is of a paragraph's end.
    """
    known = sent[len(sent.rstrip()) :]
    if rest.startswith(known):
        return rest[len(known) :]
    blank = rest[: len(rest) - len(rest.lstrip())]
    if blank.count("\n") > 1 and "\n" not in known:
        return rest
    return rest[len(blank) :]
