"""How many calls are open at each provider at once."""

from collections import Counter
from collections.abc import Mapping

from domain.errors import ProviderFull


class ProviderSlots:
    """As many calls at once as `limits` has for a provider; any number where it has None, or nothing."""

    def __init__(self, limits: Mapping[str, int | None]) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()

    def has_room(self, provider: str) -> bool:
        """Whether `take` would do now."""
        limit = self._limits.get(provider)
        return limit is None or self._taken[provider] < limit

    def taken_count(self, provider: str) -> int:
        """How many calls are open."""
        return self._taken[provider]

    def take(self, provider: str) -> None:
        """One call more is open; give it back when it has ended, however.

        Raises:
            ProviderFull: there are as many as there may be.
        """
        if not self.has_room(provider):
            raise ProviderFull
        self._taken[provider] += 1

    def give_back(self, provider: str) -> None:
        """One call less is open."""
        self._taken[provider] -= 1
