"""Reads Server-Sent Events from bytes that arrive cut anywhere. Does no I/O.

Source: WHATWG HTML, section 9.2.6, as known 2026-11. Only the data of an event is kept: what providers have to say of
it stands inside the data.
"""

MAX_EVENT_BYTES = 32 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event has grown past all measure without ending."""


class EventParser:
    """Gives back the data of each event once the event is whole."""

    __slots__ = ("_ended_in_cr", "_has_begun", "_lines", "_max_event_bytes", "_pieces", "_size")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pieces: list[bytes] = []  # of the line that has not ended
        self._lines: list[bytes] = []  # of data, of the event that has not ended
        self._size = 0  # of both
        self._ended_in_cr = False
        self._has_begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that `data` completes.

        Raises:
            EventTooLarge: the event under way is longer than `max_event_bytes`.
        """
        events = _whole_events(data) if not self._size and data[:6] == b"data: " else None
        if events is None:
            return self._feed(data)
        self._has_begun, self._ended_in_cr = True, False
        return events

    def close(self) -> list[bytes]:
        """The data of the event that lacks only its blank line when the body ends, as some servers leave their last."""
        return self._take([b"".join(self._pieces), b""]) if self._size else []

    def _feed(self, data: bytes) -> list[bytes]:
        if self._ended_in_cr and data:
            self._ended_in_cr = False
            data = data.removeprefix(b"\n")
        lines = data.splitlines()
        if not lines:
            return []
        self._pieces.append(lines[0])
        if len(lines) == 1 and data[-1:] not in b"\r\n":
            return self._grown(len(data))
        return self._ended(data, lines)

    def _ended(self, data: bytes, lines: list[bytes]) -> list[bytes]:
        """Take the lines that have ended, and keep the rest of `data` for later."""
        self._ended_in_cr = data.endswith(b"\r")
        lines[0] = b"".join(self._pieces)
        self._pieces = [] if data[-1:] in b"\r\n" else [lines.pop()]
        events = self._take(lines)
        self._size = sum(map(len, self._pieces)) + sum(len(line) + 1 for line in self._lines)
        self._grown(0)
        return events

    def _grown(self, count: int) -> list[bytes]:
        self._size += count
        if self._size > self._max_event_bytes:
            raise EventTooLarge
        return []

    def _take(self, lines: list[bytes]) -> list[bytes]:
        if not self._has_begun:
            self._has_begun = True
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[bytes] = []
        for line in lines:
            if line:
                self._take_field(line)
            elif self._lines:
                events.append(b"\n".join(self._lines))
                self._lines.clear()
        return events

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._lines.append(value.removeprefix(b" "))


def _whole_events(data: bytes) -> list[bytes] | None:
    """The events, where there is nothing but whole ones of one line of data each; None otherwise."""
    end = b"\r\n\r\n" if data[-4:] == b"\r\n\r\n" else b"\n\n"
    if data[-len(end) :] != end:
        return None
    events = data[6 : -len(end)].split(end + b"data: ")
    line_ends = 2 * len(events)
    if data.count(b"\n") != line_ends or data.count(b"\r") != (line_ends if len(end) > 2 else 0):  # noqa: PLR2004
        return None
    return events
