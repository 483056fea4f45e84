"""What the domain needs from the outside world. Each contract is a test suite, named in its docstring.

Each suite runs on all adapters of its port, those over Redis on one server and on a cluster of three; those of
Provider and CircuitBreakers on the fakes of tests/fakes.py too. The adapters in memory are the fakes of the others.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from domain.audit import Audited, AuditEntry
from domain.breaker import Circuit
from domain.chat import Caller, ChatRequest, Chunk, Message, Turn
from domain.generation import Generation, Opened, Record
from domain.keys import ApiKey
from domain.limiting import Quota
from domain.selection import Route
from domain.usage import Reservation, Use


class Provider(Protocol):
    """A source of completions. Contract: tests/contracts/test_provider.py."""

    def open(self, route: Route, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Open a stream; leaving the context ends the provider's call at once.

        Entering waits until the provider has accepted. The iterator ends only when the answer has ended by the
        provider's own word (a finish reason, or its end mark), and gives the usage if the provider counts it. Waiting
        for the first chunk and between chunks is not limited here.

        Raises:
            ProviderError: the leaf that says what to do about it, on entering and while iterating.
        """
        ...

    async def check(self) -> None:
        """The provider has answered a question that costs nothing (which models it has), with our key.

        Raises:
            ProviderError: it has not.
        """
        ...

    async def close(self) -> None:
        """All calls are ended and all connections closed; the provider is not used again."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to append to `generation`, until a later epoch is claimed."""

    generation: Generation
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The generation that answers a question, and the lease for whoever has to lead it; None: follow.

    `may_be_stored`: an answer may have been stored since its asker looked, and before the claim.
    """

    generation: Generation
    lease: Lease | None
    may_be_stored: bool = True


class GenerationLog(Protocol):
    """Where generations are kept, while they run and afterwards. Contract: tests/contracts/test_generation_log.py."""

    async def under_way(self, fingerprint: str) -> Generation | None:
        """The shared generation that is answering this question now."""
        ...

    took_over: Callable[[Lease, ChatRequest], None]
    """Called when this process has to go on with a generation whose leader is gone, and what it was asked."""

    asked_to_stop: Callable[[str], object]
    """Called when another process wants the generation of that id stopped, should this one lead it."""

    async def claim(self, opened: Opened, request: ChatRequest) -> Claim:
        """Join the generation under way for the question of `opened`, or begin that generation and lead it.

        One that is not shared is always begun. `request` is kept for whoever has to go on with it.
        """
        ...

    async def append(self, lease: Lease, record: Record) -> None:
        """`record` is in the log, and readers are told. A Sealed record ends the generation; it can be read on.

        Raises:
            StaleEpoch: another leader has claimed the generation.
        """
        ...

    async def is_read_elsewhere(self, generation: Generation) -> bool:
        """Whether a generation that is led here may have readers in another process; if not, none there will join it.

        While nobody can tell, it may. Of one that had some, it may take several looks to know that it has none.
        """
        ...

    async def catch_up(self, generation: Generation, number: int) -> None:
        """The record of that number is here too, if another process, which leads the generation, has written it.

        Raises:
            StreamUnavailable: nobody can tell now, or it may still come.
        """
        ...

    async def can_go_on_elsewhere(self, generation: Generation) -> bool:
        """Whether a generation that was led here, by nobody now, can be gone on with by another process."""
        ...

    async def request_stop(self, generation_id: str) -> None:
        """Whoever leads that generation in another process has been asked to stop it."""
        ...

    async def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, while it runs and for the time that ended ones are kept.

        Raises:
            StreamUnavailable: nobody can tell now.
        """
        ...


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Recording:
    """A whole answer: the sealed log of the generation that gave it, and when that was (Unix seconds)."""

    generation: Generation
    sealed_at_s: float


class ResponseCache(Protocol):
    """Whole answers by fingerprint, each for a limited time. Contract: tests/contracts/test_response_cache.py."""

    async def get(self, fingerprint: str) -> Recording | None:
        """The recording, if it is there, its time has not passed, and no purge conceals it."""
        ...

    async def put(self, fingerprint: str, recording: Recording) -> None:
        """Keep the recording, in place of an earlier one; others may have to go for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is kept under `session_id` until `expires_at_s` (Unix seconds), oldest message first.

    `birth_id` tells it from those that had the id before and were forgotten, and is empty while it has not begun;
    `turn_count` is how many turns it has had.
    """

    session_id: str
    birth_id: str
    turn_count: int
    messages: tuple[Message, ...]
    expires_at_s: float


class SessionStore(Protocol):
    """Conversations, bounded in messages, bytes and time since their last use.

    A `session_id` is OWNER/NAME: each is its owner's alone. Those of one owner are bounded in number as well: whoever
    begins more loses its own.
    One that has had no turn yet lasts for as long as an answer may take.

    Contract: tests/contracts/test_session_store.py.
    """

    async def open(self, session_id: str) -> Conversation:
        """The conversation, used now; an empty one if there is none, which has not begun for that.

        Raises:
            SessionUnavailable: nobody can tell now.
        """
        ...

    async def begin(self, session_id: str) -> str:
        """The birth id of the conversation, which begins if there is none; it has been used now.

        Raises:
            SessionUnavailable: nobody can tell now.
        """
        ...

    async def read(self, session_id: str) -> Conversation:
        """The conversation, as it was left.

        Raises:
            UnknownSession: there is none.
            SessionUnavailable: nobody can tell now.
        """
        ...

    async def append(self, turn: Turn) -> None:
        """All messages of the turn are kept behind those of earlier turns, once; the oldest turns go, each whole.

        Nothing is kept of a turn that is too large by itself, nor in a conversation that has been forgotten since, nor
        behind so many turns that this one would have gone already. When the store is away, it is kept later.
        """
        ...

    async def forget(self, session_id: str) -> None:
        """The conversation is gone, and what was in its place and could not be read.

        Raises:
            UnknownSession: there was none.
            SessionUnavailable: nobody can tell now.
        """
        ...


class KeyStore(Protocol):
    """API keys by their ids. Contract: tests/contracts/test_key_store.py.

    What another process changes is known here within a second. For a limited time a store that cannot be read still
    tells what it knew.
    """

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of that id, also one that has been revoked; None: there is none.

        Raises:
            KeysUnavailable: nobody can tell now.
        """
        ...

    async def add(self, key: ApiKey) -> bool:
        """The key is kept; False: there is one of its id.

        Raises:
            KeysUnavailable: it cannot be kept now.
        """
        ...

    async def revoke(self, key_id: str, at_s: float) -> ApiKey | None:
        """The key of that id, which was revoked at `at_s` (Unix seconds) or before; None: there is none.

        Raises:
            KeysUnavailable: it may or may not be revoked.
        """
        ...

    async def all(self) -> list[ApiKey]:
        """Every key, the oldest first.

        Raises:
            KeysUnavailable: nobody can tell now.
        """
        ...


class AuditTrail(Protocol):
    """What became of all requests, in the order of their ends. Contract: tests/contracts/test_audit_trail.py.

    The oldest entries go when there are too many.
    """

    def append(self, entry: AuditEntry) -> None:
        """The entry is in the trail, or will be soon; it is not waited for."""
        ...

    async def read(self, limit: int, before: str | None = None) -> list[Audited]:
        """The last entries, the newest first, at most `limit`; of those that are older than the position `before`.

        Whatever was appended in this process is among them. A position is two numbers with a hyphen between them.

        Raises:
            AuditUnavailable: nobody can tell now.
        """
        ...


class RateLimiter(Protocol):
    """What each caller may still cause. Contract: tests/contracts/test_rate_limiter.py."""

    async def spend(self, caller: Caller) -> None:
        """Take one token.

        Raises:
            RateLimited: there is none; `retry_after_s` is never less than the time until there is one.
        """
        ...

    def refund(self, caller: Caller) -> None:
        """Give back a token whose work was not needed."""
        ...

    def quota(self, caller: Caller) -> Quota | None:
        """What is left, as far as is known here; None: no limit."""
        ...


class UsageLimiter(Protocol):
    """What each caller's answers may still take: tokens a minute, US dollars a day.

    Contract: tests/contracts/test_usage_limiter.py.
    """

    async def reserve(self, caller: Caller, use: Use) -> Reservation | None:
        """Take what an answer may use; of a limit that is less than that, all of it. None: the caller has no limit.

        Raises:
            RateLimited: there is less left; `retry_after_s` is never less than the time until there is enough.
        """
        ...

    def settle(self, reservation: Reservation, use: Use) -> None:
        """What was used is taken, instead of what was reserved; told once."""
        ...

    def quota(self, caller: Caller) -> Quota | None:
        """What is left of a minute's tokens, as far as is known here; None: no limit."""
        ...


class Permit(Protocol):
    """Leave to call a route once. Tell it how the call went; what is not told counts for nothing.

    A call counts once: a failure after a success takes its place.
    """

    def success(self) -> None:
        """The route has begun to answer."""
        ...

    def failure(self) -> None:
        """The route has failed, before its first token or after: a probe that had closed the circuit opens it again."""
        ...

    def abandon(self) -> None:
        """The call is over. Unless it was told, it says nothing of the route; a probe's place is free again."""
        ...


class CircuitBreakers(Protocol):
    """Circuits by name: one for each route. Contract: tests/contracts/test_circuit_breakers.py."""

    def can_try(self, circuit: str) -> bool:
        """Whether `acquire` would give a permit now."""
        ...

    async def acquire(self, circuit: str) -> Permit:
        """A permit: always while closed, one at a time while half-open, in all processes that share the circuits.

        In a process whose circuit has just closed again, no more at once than its ramp allows.

        Raises:
            CircuitOpen: with the time until the next probe, or until a permit is worth asking for.
        """
        ...

    def rest(self, circuit: str, wait_s: float) -> None:
        """No permit is given in this process for `wait_s` seconds, whatever the circuit's state, which stays."""
        ...

    def circuit(self, circuit: str) -> Circuit:
        """How the circuit stands."""
        ...

    def reset(self, circuit: str) -> None:
        """The circuit is closed, and what was counted or asked for is forgotten."""
        ...
