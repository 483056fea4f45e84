"""Conversations in Redis, so that the next turn may go to any instance.

A conversation is one hash: `version`, which every version has and understands, `birth`, the numbers of its first and
its next turn, what it has of messages and bytes, and for turn number N `turn:N` (its messages), `count:N` (how many),
`id:N`; `seen:ID` says that a turn is there. What cannot be read whole is not gone on with.

Beside them each owner has a sorted set of those that it has begun, by when they were begun or went on last, in the
same slot: of more than it may have, the first ones go.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from domain.chat import Turn
from domain.errors import SessionUnavailable, UnknownSession
from domain.events import Publish, SessionFailed
from domain.ports import Conversation
from domain.sessions import SessionBounds
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient
from infrastructure.redis.scripting import Script
from infrastructure.redis.session_scripts import APPEND, BEGIN, FORGET, OPEN
from infrastructure.turns import decode_turn, encode_turn

VERSION = b"1"

_UNREADABLE = (
    "The conversation cannot be read: it is damaged, or of another version of Weir. To begin anew, DELETE it first."
)
_WRONG = (KeyError, ValueError, msgspec.MsgspecError)


class _Append(NamedTuple):
    """What APPEND is given, of which most is the turn's text."""

    session_id: str
    arguments: tuple[Any, ...]
    size_bytes: int


class RedisSessionStore:
    """Keeps conversations within `bounds`, `max_sessions` of each owner, and for `begun_s` those without a turn yet.

    Turns that Redis cannot take now, the latest at least, are kept later.
    """

    def __init__(
        self,
        *,
        client: RedisClient,
        bounds: SessionBounds,
        begun_s: float,
        max_sessions: int,
        publish: Publish,
        unix_now: Callable[[], float],
        max_unwritten_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._max_sessions = max_sessions
        self._publish = publish
        self._unix_now = unix_now
        self._ttl_ms, self._begun_ms = int(bounds.ttl_s * 1000), int(begun_s * 1000)
        self._unwritten: deque[_Append] = deque()
        self._max_unwritten_bytes = max_unwritten_bytes
        self._unwritten_bytes = 0
        client.on_return.append(self._catch_up)

    async def open(self, session_id: str) -> Conversation:
        """The conversation, used now; an empty one if there is none, which has not begun for that.

        Raises:
            SessionUnavailable: Redis cannot tell now, or what is there is none.
        """
        found = await self._found(session_id, is_used=True)
        if found is not None:
            return found
        expires_at_s = self._unix_now() + self._begun_ms / 1000
        return Conversation(session_id=session_id, birth_id="", turn_count=0, messages=(), expires_at_s=expires_at_s)

    async def begin(self, session_id: str) -> str:
        """The birth id of the conversation, which begins if there is none; it has been used now.

        Raises:
            SessionUnavailable: Redis cannot tell now, or what is there is none.
        """
        birth_id = uuid4().hex
        arguments = (self._ttl_ms, self._begun_ms, VERSION, birth_id, self._max_sessions)
        begun = await self._run(BEGIN, session_id, *arguments)
        if begun is None:
            raise SessionUnavailable(_UNREADABLE)
        return str(begun, "ascii", "replace")

    async def read(self, session_id: str) -> Conversation:
        """The conversation, as it was left.

        Raises:
            UnknownSession: there is none.
            SessionUnavailable: Redis cannot tell now, or what is there is none.
        """
        found = await self._found(session_id, is_used=False)
        if found is None:
            raise UnknownSession(session_id)
        return found

    async def append(self, turn: Turn) -> None:
        """All messages of the turn are kept, once; the oldest turns go for them."""
        bounds = self._bounds
        limits = (bounds.max_messages, bounds.max_bytes, self._ttl_ms)
        count, text = len(turn.messages), encode_turn(turn.messages)
        if len(text) > bounds.max_bytes:  # it cannot be kept: need not be sent, but does end what was before it
            count, text = bounds.max_messages + 1, b""
        arguments = (VERSION, turn.birth_id, turn.turn_id, count, text, *limits, turn.place)
        await asyncio.wait([self._write(_Append(turn.session_id, arguments, len(text)))])

    async def forget(self, session_id: str) -> None:
        """The conversation is gone, or whatever else was in its place.

        Raises:
            UnknownSession: there was none.
            SessionUnavailable: Redis cannot tell now.
        """
        if not await self._run(FORGET, session_id):
            raise UnknownSession(session_id)

    async def _found(self, session_id: str, *, is_used: bool) -> Conversation | None:
        found = await self._run(OPEN, session_id, self._ttl_ms, self._begun_ms, int(is_used))
        if not found:
            return None
        left_ms, flat = found
        expires_at_s = self._unix_now() + left_ms / 1000
        try:
            return _read(session_id, dict(zip(flat[::2], flat[1::2], strict=True)), expires_at_s)
        except _WRONG as error:
            self._publish(SessionFailed(session_id=session_id, error=error))
            raise SessionUnavailable(_UNREADABLE) from error

    async def _run(self, script: Script, session_id: str, *arguments: Any) -> Any:
        try:
            return await self._client.submit_script(script, _keys(session_id), *arguments)
        except RedisAway as away:
            raise SessionUnavailable from away
        except NO_ANSWER as error:
            self._publish(SessionFailed(session_id=session_id, error=error))
            raise (SessionUnavailable(_UNREADABLE) if "WRONGTYPE" in str(error) else SessionUnavailable()) from error

    def _write(self, append: _Append) -> asyncio.Future[Any]:
        sent = self._client.submit_script(APPEND, _keys(append.session_id), *append.arguments)
        sent.add_done_callback(lambda answer: self._written(append, answer))
        return sent

    def _written(self, append: _Append, answer: asyncio.Future[Any]) -> None:
        failure = answer.exception()
        if isinstance(failure, RedisAway):
            self._write_later(append)
        elif failure is not None:
            self._publish(SessionFailed(session_id=append.session_id, error=failure))

    def _write_later(self, append: _Append) -> None:
        """The turn waits for Redis; the oldest go when they are too large together."""
        self._unwritten.append(append)
        self._unwritten_bytes += append.size_bytes
        while self._unwritten_bytes > self._max_unwritten_bytes:
            self._unwritten_bytes -= self._unwritten.popleft().size_bytes

    def _catch_up(self) -> None:
        """Redis is back: what it could not take is on its way, in order."""
        unwritten = tuple(self._unwritten)
        self._unwritten.clear()
        self._unwritten_bytes = 0
        for append in unwritten:
            self._write(append)


def _read(session_id: str, fields: Mapping[bytes, bytes], expires_at_s: float) -> Conversation:
    """The conversation that is in `fields`.

    Raises:
        KeyError, ValueError, msgspec.MsgspecError: it is not a whole one of this version.
    """
    if fields[b"version"] != VERSION:
        raise ValueError(f"version {fields[b'version']!r}, not {VERSION!r}")
    first, following, *_ = (_number(fields[name]) for name in (b"first", b"next", b"messages", b"bytes"))
    if first > following:
        raise ValueError(f"turn {following} after turn {first}")
    turns = [decode_turn(fields[b"turn:%d" % number]) for number in range(first, following)]
    return Conversation(
        session_id=session_id,
        birth_id=fields[b"birth"].decode(),
        turn_count=following,
        messages=tuple(message for turn in turns for message in turn),
        expires_at_s=expires_at_s,
    )


def _number(digits: bytes) -> int:
    if not digits.isdigit():
        raise ValueError(f"{digits[:20]!r} is no number")
    return int(digits)


def _keys(session_id: str) -> tuple[str, str]:
    """The conversation's, and that of all its owner's."""
    owner, _, name = session_id.rpartition("/")
    return f"weir:session:{{{owner}}}/{name}", f"weir:sessions:{{{owner}}}"
