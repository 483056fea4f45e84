"""The rest of an answer from a route that was given its beginning as a prefix: see domain/splice.py."""

from itertools import accumulate

from domain.errors import Unaligned
from domain.folding import MARKS, folded, weight

ALIKE_LETTERS = 16
"""So many letters in a row are not the same by chance; see folding.weight for scripts that need fewer."""

STAMMERED_LETTERS = 8
"""So many of the end may be a repeat when they come first in a prefilled rest."""

HELD_LETTERS = 3 * ALIKE_LETTERS
"""So much of a prefilled rest shows whether it begins anew, with another word anywhere or behind a short remark.

While less than that has been sent, the rest is asked for in words.
"""

_BEGINNING_LETTERS = 4 * ALIKE_LETTERS
_ENDING_LETTERS = 400
_GOING_ON = ",;:!?)]}%"


def says_enough(sent: str) -> bool:
    """Whether so much has been sent that a prefilled rest shows whether it begins anew."""
    return weight(folded(sent)) >= HELD_LETTERS


class Prefilled:
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


def _last_word(text: str) -> int:
    """Where the last word of `text` begins; its end if it does not end in one."""
    at = len(text)
    while at and text[at - 1].isalnum():
        at -= 1
    return at
