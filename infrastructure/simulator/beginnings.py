"""An answer that has begun: what a conversation says of it, and the ways to go on with it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from unicodedata import normalize

_IN_QUOTES = re.compile(r'"(.+)"', re.DOTALL)
_REPEATED_WORDS = 8
_REMARK = "Sure, here is the rest: "


class Continuing(StrEnum):
    """How a model goes on with an answer that has begun.

    EXACT: with the rest; asked in words to repeat its end first, it does. REFUSED: it takes no beginning, but can be
    asked in words. NOWHERE: the same, as it has no such address. STARTS_OVER: with all of the answer. REPEATS_TAIL:
    with the last words again, then the rest. REWRAPS: the same, with a line for each word. RECASES: as EXACT, but what
    it repeats is in capitals, with curly quotes and decomposed accents. DIFFERS: starts over, with another word in the
    midst of what there was. BREAKS_OFF: starts over, and ends before it comes to where it was. REMARKS: as EXACT,
    behind a remark of its own, and with all that there was if it was not asked in words. FENCES: starts over in a
    fence. NOTHING: stops at once.
    """

    EXACT = "exact"
    REFUSED = "refused"
    NOWHERE = "nowhere"
    STARTS_OVER = "starts_over"
    REPEATS_TAIL = "repeats_tail"
    REWRAPS = "rewraps"
    RECASES = "recases"
    DIFFERS = "differs"
    BREAKS_OFF = "breaks_off"
    REMARKS = "remarks"
    FENCES = "fences"
    NOTHING = "nothing"


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
        rest = whole.removeprefix(self.text)
        match how:
            case Continuing.NOTHING:
                return ""
            case Continuing.BREAKS_OFF:
                return self.text[: len(self.text) // 2]
            case Continuing.FENCES:
                return f"```\n{whole}\n```"
            case Continuing.REMARKS:
                return _REMARK + (self.end or self.text.rstrip()) + self._blank + rest
        return self._again(how) + rest

    @property
    def _blank(self) -> str:
        return self.text[len(self.text.rstrip()) :]

    def _again(self, how: Continuing) -> str:
        """What there was, or its last words, as it is said again."""
        again = self.end
        match how:
            case Continuing.REPEATS_TAIL:
                again = " ".join(self.text.split()[-_REPEATED_WORDS:])
            case Continuing.REWRAPS:
                again = "\n".join(self.text.split()[-_REPEATED_WORDS:])
            case Continuing.RECASES:
                again = _recased(self.end or self.text.rstrip())
            case Continuing.DIFFERS:
                again = _different(self.text.rstrip())
        return again + self._blank if again else ""


def _recased(text: str) -> str:
    return normalize("NFD", text.upper()).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


def _different(text: str) -> str:
    words = text.split(" ")
    words[len(words) // 2] = "otherwise"
    return " ".join(words)


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
