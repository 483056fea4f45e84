"""How many calls each provider had and how they ended, and waiting until that is so."""

import asyncio
import operator
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

_CONDITION = re.compile(r"(\w+)\.(\w+)(==|>=|<=)(\d+)")
_COMPARE: dict[str, Callable[[int, int], bool]] = {"==": operator.eq, ">=": operator.ge, "<=": operator.le}
_CALLS_KEPT = 200


class WrongCondition(ValueError):
    """What to wait for cannot be understood; the text says why."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """One provider's calls: each is live, then exactly one of finished, closed_by_client and faults.

    `tokens` counts those sent, in whole answers or not.
    """

    calls: int = 0
    live: int = 0
    finished: int = 0
    closed_by_client: int = 0
    faults: int = 0
    tokens: int = 0


class Board:
    """The counters and the latest calls of all providers, and who waits for them to change."""

    def __init__(self, providers: Iterable[str]) -> None:
        self._providers = tuple(providers)
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self.reset()

    def reset(self) -> None:
        """Start from zero; calls still live from before are counted no more."""
        self.counters = {provider: Counters() for provider in self._providers}
        self.calls: dict[str, deque[dict[str, Any]]] = {name: deque(maxlen=_CALLS_KEPT) for name in self._providers}
        self.changed()

    def changed(self) -> None:
        """Let go those whose condition holds now; to be called after each change of a counter."""
        if self._waiting:
            for waiter, holds in list(self._waiting.items()):
                if holds() and not waiter.done():
                    waiter.set_result(None)

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Return all counters by provider and name."""
        return {provider: asdict(counters) for provider, counters in self.counters.items()}

    async def until(self, condition: str, timeout_s: float) -> bool:
        """Return True as soon as `condition`, like `openai.live==0`, holds, False when `timeout_s` have passed.

        Raises:
            WrongCondition: it names no counter, or cannot be read.
        """
        holds = self._predicate(condition)
        if holds():
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = holds
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            del self._waiting[waiter]
        return True

    def _predicate(self, condition: str) -> Callable[[], bool]:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise WrongCondition(f"'{condition}' is not like openai.live==0, with ==, >= or <=")
        provider, name, compare, number = match.groups()
        if provider not in self._providers or name not in Counters.__slots__:
            raise WrongCondition(
                f"no counter '{provider}.{name}': {_choices(self._providers)}.{_choices(Counters.__slots__)}"
            )
        return lambda: _COMPARE[compare](getattr(self.counters[provider], name), int(number))


def _choices(names: Iterable[str]) -> str:
    return "{" + ", ".join(names) + "}"
