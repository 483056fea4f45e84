"""What is remembered of callers, in bounded memory: a crowd of addresses makes nobody's key forgotten."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

from domain.chat import Caller

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LOOKED_AT = 4
"""Of those used longest ago, so many are looked at for each new one: more go than come, while they are idle."""


class Crowd(Generic[K, V]):
    """Something of each name, at most `most` for addresses and as many for users of keys.

    What is idle goes first, of what was used longest ago: nothing is lost with it. Only when there is too much and
    nothing of that is idle, the one that was used longest ago goes.
    """

    def __init__(self, *, most: int, is_idle: Callable[[V, float], bool]) -> None:
        self._most = most
        self._is_idle = is_idle
        self._of_addresses: OrderedDict[K, V] = OrderedDict()
        self._of_keys: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of_addresses) + len(self._of_keys)

    def get(self, name: K) -> V | None:
        """What is remembered under that name."""
        return self._of_keys[name] if name in self._of_keys else self._of_addresses.get(name)

    def of(self, caller: Caller, name: K, now_s: float, new: Callable[[], V]) -> V:
        """The same, which is `new` if there was nothing; it is used now."""
        those = self._of_addresses if caller.is_address else self._of_keys
        known = those.get(name)
        if known is None:
            self._make_room(those, now_s)
            known = those[name] = new()
        else:
            those.move_to_end(name)
        return known

    def _make_room(self, those: OrderedDict[K, V], now_s: float) -> None:
        for name, oldest in list(islice(those.items(), _LOOKED_AT)):
            if self._is_idle(oldest, now_s):
                del those[name]
        if len(those) >= self._most:
            those.popitem(last=False)
