"""What waits in memory until Redis is back."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def _nothing_to_do(_: object) -> None:
    """Nobody needs to know."""


class Waiting(Generic[T]):
    """Each thing waits once, by its key: the latest `max_entries` and `max_bytes` of all; the very latest whatever it
    takes.

    `given_up` is called with each that had to go for later ones.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, given_up: Callable[[T], None] = _nothing_to_do) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._given_up = given_up
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, key: str) -> bool:
        return key in self._things

    def add(self, key: str, thing: T, size_bytes: int) -> None:
        """It waits, in place of what waited under that key."""
        self.remove(key)
        self._things[key] = thing, size_bytes
        self.size_bytes += size_bytes
        while len(self) > 1 and (len(self) > self._max_entries or self.size_bytes > self._max_bytes):
            self._given_up(self.pop()[1])

    def pop(self) -> tuple[str, T]:
        """The earliest, by its key, which waits no more.

        Raises:
            KeyError: nothing waits.
        """
        key, (thing, size_bytes) = self._things.popitem(last=False)
        self.size_bytes -= size_bytes
        return key, thing

    def remove(self, key: str) -> None:
        """It waits no more, if it did."""
        if key in self._things:
            _, size_bytes = self._things.pop(key)
            self.size_bytes -= size_bytes
