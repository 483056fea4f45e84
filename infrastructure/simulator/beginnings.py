"""An answer that has begun: what a conversation says of it, and the ways to go on with it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_IN_QUOTES = re.compile(r'"(.+)"', re.DOTALL)
_REPEATED_WORDS = 8


class Continuing(StrEnum):
    """How a model goes on with an answer that has begun.

    EXACT: with the rest; asked in words to repeat its end first, it does. REFUSED: it takes no beginning, but can be
    asked in words. STARTS_OVER: with all of the answer. REPEATS_TAIL: with the last words again, then the rest.
    REWRAPS: the same, with a line for each word.
    """

    EXACT = "exact"
    REFUSED = "refused"
    STARTS_OVER = "starts_over"
    REPEATS_TAIL = "repeats_tail"
    REWRAPS = "rewraps"


@dataclass(frozen=True, slots=True)
class Turn:
    """A message: who says it, and what."""

    is_model: bool
    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The answer so far; `end` is what of it shall be said again. `is_prefilled`: no words ask for it."""

    text: str = ""
    end: str = ""
    is_prefilled: bool = False

    def gone_on_with(self, whole: str, how: Continuing) -> str:
        """What a model says that would have said `whole`: all of it, when this is not its beginning."""
        if not whole.startswith(self.text) or how is Continuing.STARTS_OVER:
            return whole
        again = self._again(how)
        return again + whole.removeprefix(self.text)

    def _again(self, how: Continuing) -> str:
        blank = self.text[len(self.text.rstrip()) :]
        if how in {Continuing.REPEATS_TAIL, Continuing.REWRAPS}:
            words = self.text.split()[-_REPEATED_WORDS:]
            return ("\n" if how is Continuing.REWRAPS else " ").join(words) + blank
        return self.end + blank if self.end else ""


NOTHING = Begun()


def begun(turns: Sequence[Turn]) -> Begun:
    """How far the answer has come: the model's turn at the end, or before words that ask to go on with it."""
    if turns and turns[-1].is_model:
        return Begun(text=turns[-1].text, is_prefilled=True)
    if not any(turn.is_model for turn in turns[-2:-1]) or "cut off" not in turns[-1].text:
        return NOTHING
    quoted = _IN_QUOTES.search(turns[-1].text)
    return Begun(text=turns[-2].text, end=quoted[1] if quoted else "")


def question(turns: Sequence[Turn]) -> str:
    """What is to be answered: the last that was said to the model, but for words that ask to go on."""
    asked = turns[:-2] if begun(turns).text and not turns[-1].is_model else turns
    return next((turn.text for turn in reversed(asked) if not turn.is_model and turn.text), "")
