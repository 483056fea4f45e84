"""Exchanges begin in turn: who opens a thousand at once keeps others waiting for a few of them, not for all."""

import asyncio

from domain.fair_queue import FairQueue

_A_ROUND = 4
"""Exchanges that begin in one round of the event loop: a millisecond's work."""


class Entrance:
    """Lets so many exchanges begin in a round of the loop; of those that have to wait, each address's next in turn.

    It looks for the next round when so many have begun, not before: to come round costs the loop more than all this.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: FairQueue[None] = FairQueue()

    def pass_by(self, address: str) -> "asyncio.Future[None] | None":
        """None: begin now; else begin when this future is done."""
        if self._begun == _A_ROUND:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.join(address, turn)
            return turn
        self._begin_one()
        return None

    def _begin_one(self) -> None:
        self._begun += 1
        if self._begun == _A_ROUND:
            asyncio.get_running_loop().call_soon(self._begin_round)

    def _begin_round(self) -> None:
        self._begun = 0
        while self._begun < _A_ROUND and (following := self._waiting.pop()):
            following[1].set_result(None)
            self._begin_one()
