"""How many streams are carried at once, in all and for each caller."""

from collections import Counter

from domain.errors import AtCapacity, TooManyConnections


class Slots:
    """`limit` places, of which one caller may have `limit_per_user` (0: all of them)."""

    def __init__(self, *, limit: int, limit_per_user: int) -> None:
        self._limit = limit
        self._limit_per_user = limit_per_user
        self._taken: Counter[str] = Counter()
        self.taken_count = 0

    def take(self, user: str, *, has_limit: bool = True) -> "Slot":
        """A place for one stream of `user`; release it when the stream has ended, however.

        Without `has_limit` the user may have all of them.

        Raises:
            AtCapacity: all places are taken.
            TooManyConnections: this user has all that one user may have.
        """
        if self.taken_count >= self._limit:
            raise AtCapacity
        if has_limit and self._limit_per_user and self._taken[user] >= self._limit_per_user:
            raise TooManyConnections(self._limit_per_user)
        self._taken[user] += 1
        self.taken_count += 1
        return Slot(self, user)

    def give_back(self, user: str) -> None:
        """One place less is taken by `user`."""
        self.taken_count -= 1
        self._taken[user] -= 1
        if not self._taken[user]:
            del self._taken[user]


class Slot:
    """One place, released at most once."""

    __slots__ = ("_is_taken", "_slots", "_user")

    def __init__(self, slots: Slots, user: str) -> None:
        self._slots = slots
        self._user = user
        self._is_taken = True

    def release(self) -> bool:
        """The place is free; False when it was already."""
        was_taken, self._is_taken = self._is_taken, False
        if was_taken:
            self._slots.give_back(self._user)
        return was_taken
