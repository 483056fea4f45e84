"""Commands in one round trip, scripts among them: a server is told their text once, and their digest from then on."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Protocol

from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError

from infrastructure.redis.batches import Command

_FULL = ("READONLY", "OOM command not allowed", "MISCONF")


class Pipeline(Protocol):
    """What is needed of the library's pipelines, alone and in a cluster."""

    def execute_command(self, *args: Any) -> Any:
        """Add a command."""
        ...

    def execute(self, raise_on_error: bool = True) -> Awaitable[list[Any]]:  # noqa: FBT001, FBT002  # the library's
        """Send what was added."""
        ...


class Connection(Protocol):
    """What is needed of the library's clients, alone, behind sentinels and in a cluster."""

    def pipeline(self, transaction: bool = True) -> Pipeline:  # noqa: FBT001, FBT002  # the library's
        """An empty pipeline."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, whose keys all are in one slot. The server knows it by its digest."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha1(self.text.encode()).hexdigest()  # noqa: S324  # the server's choice
        object.__setattr__(self, "digest", digest)


class Scripting:
    """Runs commands over `connection`, which it does not close, and knows which scripts the server has been told."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._scripts: dict[str, str] = {}
        self._told: set[str] = set()

    def command(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """The command that runs the script, whether or not the server knows it (any more)."""
        self._scripts[script.digest] = script.text
        return ("EVALSHA", script.digest, len(keys), *keys, *arguments)

    def forget(self) -> None:
        """Nobody knows what the server was told: it may be another by now."""
        self._told.clear()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to `commands`, which are done in their order, in one round trip.

        Scripts that the server has forgotten are done in one more, behind the rest.

        Raises:
            ReadOnlyError: the server takes nothing: it is a replica (by now), or is full.
        """
        pipeline = self._connection.pipeline(transaction=False)
        untold = {command[1] for command in commands if command[0] == "EVALSHA"} - self._told
        for command in map(self._spelled_out, commands) if untold else commands:
            pipeline.execute_command(*command)
        answers = await pipeline.execute(raise_on_error=False)
        errors = [at for at, answer in enumerate(answers) if isinstance(answer, Exception)]
        if any(_takes_nothing(answers[at]) for at in errors):
            raise ReadOnlyError(str(answers[errors[0]]))
        self._told |= untold
        forgotten = [at for at in errors if isinstance(answers[at], NoScriptError)]
        if forgotten:
            self.forget()
            for at, answer in zip(forgotten, await self.run([commands[at] for at in forgotten]), strict=True):
                answers[at] = answer
        return answers

    def _spelled_out(self, command: Command) -> Command:
        """`command`, with the script's text where the server may know nothing of it."""
        if command[0] == "EVALSHA" and command[1] not in self._told:
            return ("EVAL", self._scripts[command[1]], *command[2:])
        return command


def _takes_nothing(answer: Exception) -> bool:
    """Whether the server says so. Before version 7, a script's error has it within its words."""
    return isinstance(answer, ReadOnlyError | OutOfMemoryError) or any(word in str(answer) for word in _FULL)
