"""Exchanges begin in turn: who opens a thousand at once keeps others waiting for a few of them, not for all."""

import asyncio
from collections.abc import Callable

from domain.fair_queue import FairQueue

_A_ROUND = 4
"""Exchanges that begin in one round of the event loop: a millisecond's work."""

_NEWCOMERS = 4
"""So many more begin in the round in which they come, past those that wait: of addresses none of which waits."""

_CALM_ROUNDS = 100
"""For so many rounds after that only one of those that wait begins in each: what has come past them gets on."""

IN_A_CROWD = "in_a_crowd"
"""Stands in the state of a scope whose exchange had to wait."""


class Entrance:
    """Lets so many exchanges begin in a round of the loop; of those that have to wait, each address's next in turn.

    It looks for the next round when so many have begun, not before: to come round costs the loop more than all this.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._newcomers = 0
        self._calm_rounds = 0
        self._waiting: FairQueue[None] = FairQueue()

    def pass_by(self, address: Callable[[], str]) -> "asyncio.Future[None] | None":
        """None: begin now; else begin when this future is done. Only while others wait is the address looked at."""
        if self._begun == _A_ROUND or self._waiting.length:
            return self._pass_by_who_waits(address())
        self._begun += 1
        if self._begun == _A_ROUND:
            asyncio.get_running_loop().call_soon(self._begin_round)
        return None

    def _pass_by_who_waits(self, address: str) -> "asyncio.Future[None] | None":
        if self._waiting.length and self._newcomers < _NEWCOMERS and not self._waiting.length_of(address):
            self._newcomers += 1
            self._calm_rounds = _CALM_ROUNDS
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.join(address, turn)
        return turn

    def _begin_round(self) -> None:
        self._begun = self._newcomers = 0
        self._calm_rounds = max(0, self._calm_rounds - 1)
        most = 1 if self._calm_rounds else _A_ROUND
        while self._begun < most and (following := self._waiting.pop()):
            following[1].set_result(None)
            self._begun += 1
        if self._begun == _A_ROUND or self._waiting.length:
            asyncio.get_running_loop().call_soon(self._begin_round)
