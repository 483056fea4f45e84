"""Joining the rest of an answer to the part already sent.

A model that is asked for the rest may give just that; or repeat the last words first; or start the answer over; all
with other line breaks than before. What it repeats is not sent again.

Texts are compared without their whitespace. What has come is held back while all of it occurs in what was sent: until
then, it may still be a repeat. Of the ends of what was sent that it begins with, the longest is the repeat, if that
convinces: rests begin like the end of what was sent by chance too ("had had", "ha ha ha", the next row of a table, the
same line of code twice), and no rule can tell all of these apart. So it depends on how the route was asked.

    a repeat of                     instructed                             prefilled
    all that was sent               is one                                 of 8 characters or a word: is one
    the anchor                      is one, whatever longer could be       as any other end
    another end                     of 12 characters or glued on: is one   of 24 characters: is one
    the beginning, then other text  of 12 characters: Unaligned            of 48 characters: Unaligned

An instructed route was asked to repeat the end (`anchor`) first, so a repeat is expected of it: a rest that begins
like so much of the end by chance is cut short. A route that took the text as a prefill goes on with it to the letter,
so its rest stands when it can be one: also where what was sent repeats itself already, as lists and refrains do.
"""

from dataclasses import dataclass
from itertools import takewhile

from domain.errors import Unaligned

ANCHOR_CHARS = 80
"""How much of the end of what was sent an instructed route is asked to repeat, at most."""

_WINDOW_CHARS = 4_096
"""How far back a repeat may begin, unless it begins where the answer does."""

_BEFORE_CHARS = 16
"""How much before a repeat has to be as its end is, for a text that repeats itself."""

_DOTS = ".…"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """From how many characters on a repeat convinces; `glued_chars` when it would make one word of two."""

    whole_chars: int
    end_chars: int
    glued_chars: int
    beginning_chars: int


_INSTRUCTED = _Bounds(whole_chars=1, end_chars=12, glued_chars=3, beginning_chars=12)
_PREFILLED = _Bounds(whole_chars=8, end_chars=24, glued_chars=24, beginning_chars=48)


def anchor(sent: str) -> str:
    """The last words of `sent`, up to ANCHOR_CHARS; all of it if it is no longer."""
    end = sent.strip()[-ANCHOR_CHARS:]
    if len(end) < ANCHOR_CHARS:
        return end
    _, blank, words = end[: ANCHOR_CHARS // 2].partition(" ")
    return words + end[ANCHOR_CHARS // 2 :] if blank else end


class Splice:
    """The text of a continuation as it comes, without what repeats `sent`; see this module's docstring.

    `is_prefilled`: the route was given `sent` as the beginning of its answer, not asked for the rest in words. Takes
    time and memory linear in both texts; it holds back no more than can still be a repeat.
    """

    def __init__(self, sent: str, *, is_prefilled: bool = False) -> None:
        self._sent = sent
        self._is_prefilled = is_prefilled
        self._bounds = _PREFILLED if is_prefilled else _INSTRUCTED
        self._known = self._compared(sent)
        self._anchor = _squeezed(anchor(sent)).lstrip(_DOTS)
        self._end = _Overlap(self._known[-_WINDOW_CHARS:])
        self._held = ""
        self._pieces: list[str] = []
        self._come_chars = 0
        self._same_chars = 0
        self._is_aligned = not self._known

    def push(self, text: str) -> str:
        """What of the continuation is new, now that `text` of it has come; empty while it is held back.

        Raises:
            Unaligned: the answer was started over, and differs from what was sent.
        """
        if self._is_aligned:
            return text
        self._pieces.append(text)
        self._compare(_squeezed(text))
        return "" if self._may_be_a_repeat else self._align()

    def finish(self) -> str:
        """What was still held back and is new: the continuation has ended.

        Raises:
            Unaligned: the answer was started over, and ended before it came to where it had been.
        """
        if self._is_aligned:
            return ""
        self._end.close()
        return self._align()

    def _compared(self, text: str) -> str:
        """`text` without its whitespace, and without dots ahead: who repeats an end likes to say "…" first."""
        return _squeezed(text) if self._is_prefilled else _squeezed(text).lstrip(_DOTS)

    def _compare(self, letters: str) -> None:
        letters = letters if self._come_chars else self._compared(letters)
        if self._same_chars == self._come_chars:
            self._same_chars += _same(letters, self._known[self._come_chars : self._come_chars + len(letters)])
        self._come_chars += len(letters)
        self._end.extend(letters)

    @property
    def _repeated_chars(self) -> int:
        """The length of the repeat, convincing or not: of all, of the anchor, or of the longest end."""
        if self._same_chars == len(self._known):
            return self._same_chars
        return len(self._anchor) if self._is_anchored else self._end.length

    @property
    def _is_anchored(self) -> bool:
        return not self._is_prefilled and self._end.begins_with(self._anchor)

    @property
    def _may_be_a_repeat(self) -> bool:
        """Whether all that has come is a repeat, or the beginning of one."""
        if self._come_chars <= self._repeated_chars or self._come_chars == self._same_chars < len(self._known):
            return True
        return self._end.is_open and not self._is_anchored

    def _align(self) -> str:
        self._is_aligned = True
        self._held, self._pieces = "".join(self._pieces), []
        repeated_chars = self._repeated_chars
        if self._convinces(repeated_chars):
            return _joined(self._sent, self._after(repeated_chars))
        if self._same_chars >= self._bounds.beginning_chars:
            raise Unaligned
        return self._held

    def _convinces(self, chars: int) -> bool:
        bounds = self._bounds
        if not chars or (self._is_prefilled and self._is_repetitive(chars)):
            return False
        if chars == len(self._known):
            return chars >= bounds.whole_chars or self._is_word(chars)
        return chars >= bounds.end_chars or (chars >= bounds.glued_chars and self._is_glued(chars))

    def _is_repetitive(self, chars: int) -> bool:
        """Whether what was sent goes on with its last `chars` characters if it goes on as it did before."""
        end, before = self._known[-chars:], self._known[-chars - _BEFORE_CHARS : -chars]
        return (end + end).index(end, 1) < chars or (len(before) == _BEFORE_CHARS and end.endswith(before))

    def _is_glued(self, chars: int) -> bool:
        """Whether the rest, as it stands, would make one word of the end of `sent` and its repeat."""
        before = self._sent[: _start_of_last(self._sent, chars)][-1:]
        return self._sent[-1].isalpha() and self._held[:1].isalpha() and not before.isalnum()

    def _is_word(self, chars: int) -> bool:
        """Whether the repeat is glued on, and ends where a word does."""
        return self._is_glued(chars) and not self._after(chars)[:1].isalnum()

    def _after(self, chars: int) -> str:
        """What of the text held back stands behind its first `chars` compared characters."""
        ahead = len(self._held) - len(self._held.lstrip() if self._is_prefilled else _bare(self._held))
        return self._held[_end_of_first(self._held, chars, ahead) :]


class _Overlap:
    """The longest end of `text` that a growing pattern begins with. Source: Knuth, Morris and Pratt (1977).

    `length` is that end's once the search is not `is_open`: while all of the pattern occurs before the end of `text`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._pattern: list[str] = []
        self._borders: list[int] = []
        self._position = 0
        self.length = 0

    @property
    def is_open(self) -> bool:
        return self._position < len(self._text)

    def begins_with(self, end: str) -> bool:
        """Whether the pattern begins with `end`."""
        return "".join(self._pattern[: len(end)]) == end

    def extend(self, letters: str) -> None:
        """The pattern goes on with `letters`."""
        for letter in letters if self.is_open else "":
            self._add(letter)
        self._search(len(self._pattern))

    def close(self) -> None:
        """The pattern does not go on: its occurrences before the end do not matter."""
        while self._pattern and self.is_open:
            if self.length == len(self._pattern):
                self.length = self._borders[-1]
            self._search(len(self._pattern))

    def _add(self, letter: str) -> None:
        pattern, borders = self._pattern, self._borders
        border = borders[-1] if borders else 0
        while border and pattern[border] != letter:
            border = borders[border - 1]
        borders.append(border + 1 if pattern and pattern[border] == letter else 0)
        pattern.append(letter)

    def _search(self, size: int) -> None:
        """Look on in the text, until the whole pattern is found or the text ends."""
        text, pattern, borders, length, position = self._text, self._pattern, self._borders, self.length, self._position
        while position < len(text) and length < size:
            while length and text[position] != pattern[length]:
                length = borders[length - 1]
            length += text[position] == pattern[length]
            position += 1
        self.length, self._position = length, position


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _bare(text: str) -> str:
    """`text` without the whitespace and dots ahead."""
    bare = text.lstrip().lstrip(_DOTS)
    return bare if bare == text else _bare(bare)


def _same(one: str, other: str) -> int:
    """How many letters two texts have in common from their beginning."""
    if one == other:
        return len(one)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _end_of_first(text: str, chars: int, start: int) -> int:
    """Where the first `chars` characters from `start` on end, whitespace not counted."""
    while chars:
        chars -= not text[start].isspace()
        start += 1
    return start


def _start_of_last(text: str, chars: int) -> int:
    """Where the last `chars` characters begin, whitespace not counted."""
    end = len(text)
    while chars:
        end -= 1
        chars -= not text[end].isspace()
    return end


def _joined(sent: str, rest: str) -> str:
    """`rest`, which stands behind a repeat of `sent`'s end, without the whitespace that was sent already.

    Whitespace other than that is a line broken elsewhere, and goes too, unless it is all there is of a paragraph's end.
    """
    known = sent[len(sent.rstrip()) :]
    if rest.startswith(known):
        return rest[len(known) :]
    blank = rest[: len(rest) - len(rest.lstrip())]
    if blank.count("\n") > 1 and "\n" not in known:
        return rest
    return rest[len(blank) :]
