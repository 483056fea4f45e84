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

from domain.chat import WHOLE_REASONS, Chunk
from domain.prefilled import Prefilled
from domain.repeats import Bare, Instructed, has_letters

_CALLS = frozenset({"tool_calls", "function_call"})


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


def _seam(sent: str, *, is_prefilled: bool) -> Prefilled | Instructed | Bare:
    if not has_letters(sent):
        return Bare(sent)
    return Prefilled(sent) if is_prefilled else Instructed(sent)
