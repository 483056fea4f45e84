"""The body of one response as frames, and how a fault changes it: decided here, done in streaming.py.

A frame is what leaves in one write: one or more chunks of HTTP/1.1's chunked coding, encoded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from infrastructure.simulator.behaviour import Behaviour, Fault


class Ending(Enum):
    """What happens to the connection after the last frame."""

    WHOLE = auto()  # the body ends as it should
    SILENCE = auto()  # nothing more, until the client leaves
    CUT = auto()  # closed in the middle of the body
    RESET = auto()  # the same, with a TCP reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A response body without faults, and the two frames that faults put into it.

    Attributes:
        opening: sent together with the first step.
        steps: one frame for each token, `count` in all.
        closing: finish reason, usage.
        end_mark: what says that nothing more comes, where there is such a thing.
        tokens_per_step: more than one when there are several choices.
    """

    opening: bytes
    steps: Iterator[bytes]
    count: int
    closing: bytes
    end_mark: bytes = b""
    malformed: bytes
    error_event: bytes
    tokens_per_step: int = 1

    @property
    def whole_closing(self) -> bytes:
        """What is sent behind the last step."""
        return self.closing + self.end_mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What is really sent: opening and steps at their pace, the rest in one, then the ending."""

    opening: bytes
    steps: Iterator[bytes]
    rest: bytes
    ending: Ending


_STOPS: Mapping[Fault | None, tuple[Callable[[Script], bytes], Ending]] = {
    Fault.STALL: (lambda _: b"", Ending.SILENCE),
    Fault.CUT: (lambda _: b"", Ending.CUT),
    Fault.RESET_MIDSTREAM: (lambda _: b"", Ending.RESET),
    Fault.NO_FINISH: (lambda _: b"", Ending.WHOLE),
    Fault.DONE_UNFINISHED: (lambda script: script.end_mark, Ending.WHOLE),
    Fault.ERROR_EVENT: (lambda script: script.error_event, Ending.WHOLE),
}
"""What comes behind the last token of an answer that stops, and how its body ends."""


def chunked(data: bytes) -> bytes:
    """Return `data` as one chunk of the chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stage(script: Script, behaviour: Behaviour) -> Staged:
    """Return `script` as `behaviour` lets it happen."""
    fault, until = behaviour.fault, min(behaviour.position, script.count)
    if fault is Fault.SILENCE_FIRST_TOKEN:
        return Staged(opening=b"", steps=iter(()), rest=b"", ending=Ending.SILENCE)
    if fault in _STOPS:
        rest, ending = _STOPS[fault]
        return _stopped(script, until, rest(script), ending)
    if fault is Fault.MALFORMED:
        return _spoiled(script, until)
    if fault is Fault.HELD_OPEN:
        return _stopped(script, script.count, script.closing, Ending.SILENCE)
    return Staged(opening=script.opening, steps=script.steps, rest=script.whole_closing, ending=Ending.WHOLE)


def _stopped(script: Script, until: int, rest: bytes, ending: Ending) -> Staged:
    return Staged(opening=script.opening, steps=islice(script.steps, until), rest=rest, ending=ending)


def _spoiled(script: Script, until: int) -> Staged:
    """Put the broken line behind token `until`, in its frame, so that it is not counted as a token."""
    steps = (step + script.malformed if index == until else step for index, step in enumerate(script.steps, start=1))
    opening = script.opening if until else script.opening + script.malformed
    return Staged(opening=opening, steps=steps, rest=script.whole_closing, ending=Ending.WHOLE)
