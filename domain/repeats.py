"""The rest of an answer from a route that was asked to repeat the end of it first: see domain/splice.py."""

from unicodedata import normalize

from domain.errors import Unaligned
from domain.folding import MARKS, end_of, folded, tail, weight

ANCHOR_CHARS = 80
"""How much of the end of what was sent an instructed route is asked to repeat, at most, unless that says too little."""

END_LETTERS = 12
"""So many of the end are a repeat when they come first, in words, from who was asked to repeat it."""

_ENOUGH_LETTERS = 32
_DOTS = "."
_FENCE = "```"


def anchor(sent: str) -> str:
    """The last words of `sent`, up to ANCHOR_CHARS, or more where these are all but blank; all of a short text."""
    text = sent.strip()
    size = ANCHOR_CHARS
    while size < len(text) and weight(folded(text[-size:])) < _ENOUGH_LETTERS:
        size *= 2
    if size >= len(text):
        return text
    end = text[-size:]
    _, blank, words = end[: size // 2].partition(" ")
    return words.lstrip() + end[size // 2 :] if blank and words.strip() else end


def has_letters(sent: str) -> bool:
    """Whether a repeat of `sent` can be known by its letters."""
    return bool(folded(sent).lstrip(_DOTS))


class Bare:
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


class Instructed:
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


def _is_said_once(letters: str, known: str) -> bool:
    """Whether `known` has them, in one place."""
    at = known.find(letters)
    return at >= 0 and known.find(letters, at + 1) < 0


def _words(letters: str) -> str:
    """`letters` without a quotation mark and the like ahead."""
    at = next((at for at, letter in enumerate(letters) if letter.isalnum()), 0)
    return letters[at:]


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
