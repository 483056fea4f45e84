"""One Redis client for the process: what is asked for together leaves together, and a dead server is not waited for."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from domain.events import ComponentChanged, Publish, StoreFailed
from infrastructure.redis.batches import Command
from infrastructure.redis.patience import BATCH_BYTES
from infrastructure.redis.scripting import Connection, Script, Scripting
from infrastructure.redis.unfit import why_unfit

PROBE_S = 0.25
"""How often a server that is away is looked for."""

PAUSE_S = 1.5
"""None but a huge command takes so long: when one did, this process may have been stopped."""

MAX_BATCH = 256
"""Commands that leave together, if they have no more than BATCH_BYTES: of many more than that, the last answer would
come too late."""

PROBE = (("PING",), ("SET", "weir:probe", 1, "PX", 1000))
"""What is asked of a server that is away: one that takes nothing is no use. In a cluster the first asks every node."""

COMPONENT = "redis"

_FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)


class RedisAway(Exception):
    """The server did not answer in time, or has not since; nothing was waited for."""


NO_ANSWER = (RedisAway, RedisError, RedisClusterException)
"""What a command that was submitted can fail with."""


Batch = Sequence[tuple[Command, asyncio.Future[Any]]]


class RedisClient:
    """Runs commands. While a batch is under way the next one gathers, for at most `linger_s` seconds.

    What nobody waits for can `linger`: `on_leaving` submits it when a batch leaves, for others or because it is time.

    After a failure the server counts as away: commands are refused at once until it answers again. So does one that has
    become a replica: connections are made anew, and find who leads now. Of a cluster, part can be away.
    """

    def __init__(self, connection: Connection, *, linger_s: float, publish: Publish) -> None:
        self._connection = connection
        self._scripting = Scripting(connection)
        self._linger_s = linger_s
        self._publish = publish
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._left_s = -math.inf
        self._lingering: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._sending: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None
        self._reason: str | None = None
        self.is_away = False
        self.has_answered = False
        self.on_loss: list[Callable[[], None]] = []
        self.on_return: list[Callable[[], None]] = []
        self.on_leaving: list[Callable[[], None]] = []

    def submit(self, *command: Any) -> asyncio.Future[Any]:
        """The server's answer to come.

        It fails with RedisAway when the server has not answered in time, or is known not to; with a RedisError when it
        answers with one.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self.is_away:
            future.set_exception(RedisAway())
            return future
        self._waiting.append((command, future))
        if len(self._waiting) == 1 and not self._is_leaving:
            self._send_soon(loop)
        return future

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what is submitted in this turn; while a batch is under way, what is until that is answered."""
        if not self._sending:
            loop.call_soon(self._send_waiting)
            return
        self._due_s = loop.time() + self._linger_s
        if self._timer is None:
            self._timer = loop.call_later(self._linger_s, self._send_due)

    def _send_due(self) -> None:
        """Send what has waited for long enough. One timer looks after many batches: most leave before they are due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._waiting and loop.time() < self._due_s:
            self._timer = loop.call_at(self._due_s, self._send_due)
        else:
            self._send_waiting()

    def linger(self) -> None:
        """A batch leaves `linger_s` after the last one, in this turn if that was longer ago, or before, with others."""
        loop = asyncio.get_running_loop()
        due_s = self._left_s + self._linger_s
        if due_s <= loop.time():
            loop.call_soon(self._send_waiting)
        elif self._lingering is None:
            self._lingering = loop.call_at(due_s, self._end_linger)

    def _end_linger(self) -> None:
        """Send what lingers; one timer looks after many batches."""
        self._lingering = None
        if asyncio.get_running_loop().time() < self._left_s + self._linger_s:
            self.linger()
        else:
            self._send_waiting()

    def submit_script(self, script: Script, keys: Sequence[str], *arguments: Any) -> asyncio.Future[Any]:
        """As `submit`, for a script, whether or not the server knows it (any more)."""
        return self.submit(*self._scripting.command(script, keys, arguments))

    def start(self) -> None:
        """Commands can be submitted, until `close`."""

    async def close(self) -> None:
        """Everything that was submitted, or lingers, has ended, and all connections are closed; Redis is away."""
        if self._probing is not None:
            self._probing.cancel()
        self._send_waiting()
        while self._waiting or self._sending:
            await asyncio.gather(*self._sending, return_exceptions=True)
            self._send_waiting()
        self.is_away = True
        await self._connection.aclose()

    def _send_waiting(self) -> None:
        self._is_leaving = True
        try:
            for leaving in self.on_leaving:
                leaving()
        finally:
            self._is_leaving = False
        count = self._count_together()
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if batch:
            self._left_s = asyncio.get_running_loop().time()
            task = asyncio.get_running_loop().create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _count_together(self) -> int:
        """How many of those that wait leave together."""
        if len(self._waiting) <= 1:
            return len(self._waiting)
        size_bytes = count = 0
        for command, _ in self._waiting[:MAX_BATCH]:
            size_bytes += _size_bytes(command)
            if count and size_bytes > BATCH_BYTES:
                break
            count += 1
        return count

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if self._waiting and not self._sending:
            self._send_waiting()

    async def _send(self, batch: Batch) -> None:
        try:
            answers = await self._ask([command for command, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as failure:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            self._went_away(batch, failure)
            return
        for (command, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                self._publish(StoreFailed(operation=str(command[0]).lower(), error=answer))
            if isinstance(answer, RedisAway):
                self._look_for_it(answer)
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers; a failure says nothing of the server when this process was stopped meanwhile."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            answers = await self._scripting.run(commands)
        except _FAILURES:
            if loop.time() - began_s < PAUSE_S:
                raise
            answers = await self._scripting.run(commands)
        self.has_answered = True
        return answers

    def _went_away(self, batch: Batch, failure: BaseException) -> None:
        """Tell those who wait, and everybody else until the server is back."""
        unsent, self._waiting = self._waiting, []
        for command, future in (*batch, *unsent):
            self._publish(StoreFailed(operation=str(command[0]).lower(), error=failure))
            if not future.done():
                future.set_exception(RedisAway())
        self._scripting.forget()
        self._lost()
        self._look_for_it(failure)

    def _lost(self) -> None:
        """Nothing is asked of the server until it answers again; who wants to know is told once."""
        if not self.is_away:
            self.is_away = True
            for lost in self.on_loss:
                lost()

    def _look_for_it(self, failure: BaseException) -> None:
        """Say that something is away, and see when it is back."""
        if self._probing is None or self._probing.done():
            self._tell(failure)
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    def _tell(self, failure: BaseException) -> None:
        self._reason = why_unfit(failure)
        changed = ComponentChanged(
            component=COMPONENT, is_degraded=True, error=failure, reason=self._reason, is_public=True
        )
        self._publish(changed)

    async def _probe(self) -> None:
        """Ask until everything answers."""
        is_whole = False
        while not is_whole:
            await asyncio.sleep(PROBE_S)
            is_whole = await self._is_whole()
        self._publish(ComponentChanged(component=COMPONENT, is_degraded=False))

    async def _is_whole(self) -> bool:
        """Whether all there is answers; what does answer is used again."""
        try:
            if self.is_away:
                await self._connection.aclose()
            answers = await self._scripting.run(PROBE)
            self.has_answered = True
        except Exception as failure:  # noqa: BLE001  # whatever it is, it must go on being looked for
            self._lost()
            if why_unfit(failure) not in {None, self._reason}:
                self._tell(failure)
            return False
        is_whole = not any(isinstance(answer, RedisAway) for answer in answers)
        if self.is_away or is_whole:
            self.is_away = False
            for returned in self.on_return:
                returned()
        return is_whole


def _size_bytes(command: Command) -> int:
    """About what it takes on its way. It is asked of each command: a generator would take as long as packing it."""
    size_bytes = 0
    for part in command:
        if type(part) is bytes or type(part) is str:
            size_bytes += len(part)
    return size_bytes


def unheard(answer: asyncio.Future[Any]) -> None:
    """For an answer that nobody waits for: that it is an error concerns nobody either, and has been published."""
    if not answer.cancelled():
        answer.exception()
