"""What a browser's EventSource understands, and nothing more.

Source: WHATWG HTML, section 9.2.5 and 9.2.6 (parsing and interpreting an event stream).
"""

import codecs
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as it is dispatched."""

    type: str
    data: str
    last_event_id: str

    @property
    def json(self) -> Any:
        """The data, decoded."""
        return json.loads(self.data)

    @property
    def number(self) -> int:
        """The id as a number."""
        return int(self.last_event_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A line that starts with a colon; `is_between_events` when no event was begun before it."""

    text: str
    is_between_events: bool


class EventParser:
    """Turns bytes, however they are cut, into events and comments. What is not ended by an empty line never was."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_at_start = True
        self._is_after_cr = False
        self._line = ""
        self._type = self._data = self._id = ""
        self._is_begun = False

    def feed(self, data: bytes) -> list[Event | Comment]:
        """The events and comments that are complete with `data`."""
        found: list[Event | Comment] = []
        for character in self._without_mark(self._decoder.decode(data)):
            if character == "\n" and self._is_after_cr:
                self._is_after_cr = False
                continue
            self._is_after_cr = character == "\r"
            if character in "\r\n":
                line, self._line = self._line, ""
                found.extend(self._interpret(line))
            else:
                self._line += character
        return found

    def _without_mark(self, text: str) -> str:
        if self._is_at_start and text:
            self._is_at_start = False
            return text.removeprefix("\ufeff")
        return text

    def _interpret(self, line: str) -> list[Event | Comment]:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return [Comment(text=line[1:], is_between_events=not self._is_begun)]
        self._is_begun = True
        name, _, value = line.partition(":")
        self._process(name, value.removeprefix(" "))
        return []

    def _process(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._type = value
            case "data":
                self._data += value + "\n"
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)

    def _dispatch(self) -> list[Event | Comment]:
        kind, data = self._type or "message", self._data
        self._type = self._data = ""
        self._is_begun = False
        return [Event(type=kind, data=data.removesuffix("\n"), last_event_id=self._id)] if data else []


def parse(body: bytes) -> list[Event | Comment]:
    """The events and comments of a whole body."""
    return EventParser().feed(body)


def events_of(body: bytes) -> list[Event]:
    """The events of a whole body, without its comments."""
    return [item for item in parse(body) if isinstance(item, Event)]
