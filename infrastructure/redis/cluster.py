"""A cluster's nodes, asked side by side: one that is away costs the slots it has, and no others."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, cast

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoTime

from infrastructure.redis.client import RedisAway

_ELSEWHERE = (MovedError, AskError, TryAgainError)
_NOBODY = (ClusterDownError, SlotNotCoveredError)
_GONE = (NoConnection, NoTime, OSError)
_TRIES = 2

Command = tuple[Any, ...]


class ClusterCommands:
    """Runs commands that have one key each, at the node of its slot; PING, which has none, looks for what is away."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self._away: set[str] = set()

    def pipeline(self, transaction: bool = True) -> "_Batch":  # noqa: ARG002, FBT001, FBT002  # the library's
        """An empty batch."""
        return _Batch(self)

    async def aclose(self) -> None:
        """All connections are closed; the nodes are asked anew who they are when there are commands again."""
        await self._cluster.aclose()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Each command's answer, or the error that it got; RedisAway for what is in slots that nobody answers for.

        Raises:
            RedisClusterException: no node answers.
        """
        await self._cluster.initialize()
        places: dict[ClusterNode | None, list[int]] = defaultdict(list)
        for at, command in enumerate(commands):
            places[self._node(command)].append(at)
        answers: list[Any] = [RedisAway()] * len(commands)
        await asyncio.gather(*(self._run_at(node, places[node], commands, answers) for node in places))
        return answers

    def _node(self, command: Command) -> ClusterNode | None:
        """Where `command` is to be asked; None: everywhere, or nowhere."""
        if len(command) == 1:
            return None
        try:
            node = self._cluster.get_node_from_key(command[3] if command[0].startswith("EVAL") else command[1])
        except SlotNotCoveredError:
            return None
        return None if node is None or node.name in self._away else node

    async def _run_at(
        self, node: ClusterNode | None, places: Sequence[int], commands: Sequence[Command], answers: list[Any]
    ) -> None:
        """Put what `node` says to the commands at `places` into `answers`."""
        if node is None:
            for at in places:
                if len(commands[at]) == 1:
                    answers[at] = await self._look()
            return
        asked = await _ask(node, [commands[at] for at in places])
        for at, answer in zip(places, asked, strict=True):
            answers[at] = await self._redirected(commands[at], answer)
        if any(isinstance(answer, _GONE) for answer in asked):
            self._away.add(node.name)

    async def _redirected(self, command: Command, answer: Any) -> Any:
        """What is said where the slot is now, if it has moved."""
        if isinstance(answer, _ELSEWHERE):
            try:
                answer = await self._cluster.execute_command(*command)
            except (RedisError, RedisClusterException, OSError) as error:
                answer = error
        return RedisAway() if isinstance(answer, (*_NOBODY, *_GONE)) else answer

    async def _look(self) -> Any:
        """Find out who has which slots and who answers; RedisAway: somebody does not."""
        if self._away:
            await self._cluster.nodes_manager.initialize()
        nodes = self._cluster.get_primaries()
        pings = await asyncio.gather(*(_ask(node, [("PING",)]) for node in nodes))
        answers = [answer for ping in pings for answer in ping]
        self._away = {
            node.name for node, answer in zip(nodes, answers, strict=True) if isinstance(answer, (*_GONE, *_NOBODY))
        }
        return RedisAway() if self._away else answers[0]


class _Batch:
    """Commands that are sent together."""

    def __init__(self, cluster: ClusterCommands) -> None:
        self._cluster = cluster
        self._commands: list[Command] = []

    def execute_command(self, *args: Any) -> None:
        """Add a command."""
        self._commands.append(args)

    def execute(self, raise_on_error: bool = True) -> Awaitable[list[Any]]:  # noqa: ARG002, FBT001, FBT002  # the library's
        """Send them."""
        return self._cluster.run(self._commands)


class _Pipelined(Protocol):
    """What the library's nodes can do, and does not say with types."""

    async def execute_pipeline(self, commands: Sequence[PipelineCommand]) -> bool:
        """Every command has its result."""
        ...


async def _ask(node: ClusterNode, commands: Sequence[Command]) -> list[Any]:
    """The node's answers and errors; a connection that has died since it was used last is tried once more."""
    results: list[Any] = []
    for _ in range(_TRIES):
        sent = [PipelineCommand(at, *command) for at, command in enumerate(commands)]
        try:
            await cast("_Pipelined", node).execute_pipeline(sent)
            results = [command.result for command in sent]
        except _GONE as error:
            results = [error] * len(commands)
        if not any(isinstance(result, _GONE) for result in results):
            break
    return results
