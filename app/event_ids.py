"""The ids of events: their numbers, with as many zeros before them as say in which fork they were told, if in one.

That is the number all the same, and a client sends it back as it came: what it has seen can be told from what another
leader has told under that number (docs/decisions/0021-a-fork-is-seen-in-its-ids.md).
"""

import re

from domain.errors import FieldError, InvalidRequest
from domain.generation import NOWHERE, Generation, Seen

_WRITTEN = re.compile(rb"(?<=^id: )\d+$", re.MULTILINE)
EVENT_ID = re.compile("0{0,99}[0-9]{1,9}")
"""No stream has a billion events, and no answer a hundred forks."""


def with_fork(events: bytes, generation: Generation) -> bytes:
    """Those whole events of the generation, of which those in a fork say in which."""
    if not generation.has_forked:
        return events
    return _WRITTEN.sub(lambda number: b"0" * generation.fork_of(int(number[0])) + number[0], events)


def fitting_nowhere(event: bytes) -> bytes:
    """The event under an id that a client can come back with as often as it wants: it is told the same again."""
    return _WRITTEN.sub(lambda number: b"0" * NOWHERE + number[0], event)


def seen(last_event_id: str | None) -> Seen | None:
    """What the client has seen that sends this; nothing when there is nothing.

    Raises:
        InvalidRequest: it is no event's number.
    """
    if not last_event_id:
        return None
    if not EVENT_ID.fullmatch(last_event_id):
        reason = f"{last_event_id!r}: the number of an event is needed, such as 17"
        raise InvalidRequest(FieldError("Last-Event-ID", reason))
    number = int(last_event_id)
    return Seen(number, fork=len(last_event_id) - len(str(number)))
