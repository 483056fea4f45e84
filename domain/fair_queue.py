"""A queue in which whoever asks for most waits longest."""

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Futures that wait, by whose they are: everybody's next one comes before anybody's second."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[T], None]] = OrderedDict()
        self.length = 0

    def length_of(self, user: str) -> int:
        """How many are that user's."""
        return len(self._waiting.get(user, ()))

    def join(self, user: str, place: "asyncio.Future[T]") -> None:
        """The future is the last of its user's."""
        self._waiting.setdefault(user, OrderedDict())[place] = None
        self.length += 1

    def leave(self, user: str, place: "asyncio.Future[T]") -> None:
        """The future is not in it, whether it was or not."""
        own = self._waiting.get(user)
        if own is not None and place in own:
            self._remove(user, own, place)

    def pop(self) -> "tuple[str, asyncio.Future[T]] | None":
        """The next one that is not done, and whose it is; None when there is none."""
        while self._waiting:
            user, own = next(iter(self._waiting.items()))
            place = next(iter(own))
            self._remove(user, own, place)
            if own:
                self._waiting.move_to_end(user)
            if not place.done():
                return user, place
        return None

    def _remove(self, user: str, own: "OrderedDict[asyncio.Future[T], None]", place: "asyncio.Future[T]") -> None:
        del own[place]
        self.length -= 1
        if not own:
            del self._waiting[user]
