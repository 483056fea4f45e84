"""Conversations in Redis, so that the next turn may go to any instance.

A conversation is one hash: `owner`, `birth`, the numbers of its first and its next turn, what it has of messages and
bytes, and for turn number N `turn:N` (its messages), `count:N` (how many), `id:N`; `seen:ID` says that a turn is there.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from domain.chat import Message, Turn
from domain.errors import SessionUnavailable, UnknownSession
from domain.events import EntryUnreadable, Publish, StoreFailed
from domain.ports import Conversation
from domain.sessions import SessionBounds
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient, Script
from infrastructure.turns import decode_turn, encode_turn

OPEN = Script("""
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return {} end
if ARGV[2] ~= '' then
    if not owner then
        redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'birth', ARGV[2],
            'first', 0, 'next', 0, 'messages', 0, 'bytes', 0)
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif not owner then
    return {}
end
return {redis.call('PTTL', KEYS[1]), redis.call('HGETALL', KEYS[1])}
""")
"""KEYS session; ARGV owner, birth of one that begins (empty: none begins), ttl_ms: time left and fields, or nothing."""

APPEND = Script("""
local key, turn_id = KEYS[1], ARGV[2]
local held = redis.call('HMGET', key, 'birth', 'first', 'next', 'messages', 'bytes')
if held[1] ~= ARGV[1] or redis.call('HEXISTS', key, 'seen:' .. turn_id) == 1 then return 0 end
local first, next = tonumber(held[2]), tonumber(held[3])
if tonumber(ARGV[8]) < first then return 0 end
local messages, bytes = held[4] + ARGV[3], held[5] + #ARGV[4]
redis.call('HSET', key, 'turn:' .. next, ARGV[4], 'count:' .. next, ARGV[3], 'id:' .. next, turn_id,
    'seen:' .. turn_id, '')
while messages > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) do
    local oldest = redis.call('HMGET', key, 'turn:' .. first, 'count:' .. first, 'id:' .. first)
    messages, bytes = messages - oldest[2], bytes - #oldest[1]
    redis.call('HDEL', key, 'turn:' .. first, 'count:' .. first, 'id:' .. first, 'seen:' .. oldest[3])
    first = first + 1
end
redis.call('HSET', key, 'first', first, 'next', next + 1, 'messages', messages, 'bytes', bytes)
redis.call('PEXPIRE', key, ARGV[7])
return 1
""")
"""KEYS session; ARGV birth, turn id, how many messages, the messages, most messages, most bytes, ttl_ms, place.

Sent again, it does nothing twice.
"""

FORGET = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""KEYS session; ARGV owner: 1 if it was there."""

_MAX_UNWRITTEN = 1000


class _Append(NamedTuple):
    """What APPEND is given."""

    key: str
    arguments: tuple[Any, ...]


class RedisSessionStore:
    """Keeps conversations within `bounds`. A turn that Redis cannot take is kept when it is back."""

    def __init__(
        self, *, client: RedisClient, bounds: SessionBounds, publish: Publish, unix_now: Callable[[], float]
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._publish = publish
        self._unix_now = unix_now
        self._ttl_ms = int(bounds.ttl_s * 1000)
        self._unwritten: deque[_Append] = deque(maxlen=_MAX_UNWRITTEN)
        client.on_return.append(self._catch_up)

    async def open(self, session_id: str, owner: str) -> Conversation:
        """The conversation, which begins if there is none; it has been used now.

        Raises:
            UnknownSession: it is somebody else's.
            SessionUnavailable: Redis cannot tell now.
        """
        return await self._conversation(session_id, owner, uuid4().hex)

    async def read(self, session_id: str, owner: str) -> Conversation:
        """The conversation, as it was left.

        Raises:
            UnknownSession: there is none, or it is somebody else's.
            SessionUnavailable: Redis cannot tell now.
        """
        return await self._conversation(session_id, owner, "")

    async def append(self, turn: Turn) -> None:
        """All messages of the turn are kept, once; the oldest turns go for them."""
        bounds = self._bounds
        limits = (bounds.max_messages, bounds.max_bytes, self._ttl_ms)
        messages = (len(turn.messages), encode_turn(turn.messages))
        arguments = (turn.birth_id, turn.turn_id, *messages, *limits, turn.place)
        await asyncio.wait([self._write(_Append(_key(turn.session_id), arguments))])

    async def forget(self, session_id: str, owner: str) -> None:
        """The conversation is gone.

        Raises:
            UnknownSession: there was none, or it is somebody else's.
            SessionUnavailable: Redis cannot tell now.
        """
        if not await self._run(FORGET, session_id, owner):
            raise UnknownSession(session_id)

    async def _conversation(self, session_id: str, owner: str, birth_id: str) -> Conversation:
        found = await self._run(OPEN, session_id, owner, birth_id, self._ttl_ms)
        if not found:
            raise UnknownSession(session_id)
        left_ms, flat = found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Conversation(
            session_id=session_id,
            birth_id=fields.get(b"birth", b"").decode(errors="replace"),
            turn_count=_number(fields, b"next"),
            messages=self._messages(session_id, fields),
            expires_at_s=self._unix_now() + left_ms / 1000,
        )

    def _messages(self, session_id: str, fields: Mapping[bytes, bytes]) -> tuple[Message, ...]:
        """What was said; if this version cannot read all of it, what was said since."""
        turns: list[Sequence[Message]] = []
        try:
            for number in reversed(range(_number(fields, b"first"), _number(fields, b"next"))):
                turns.append(decode_turn(fields[b"turn:%d" % number]))  # noqa: PERF401  # those before an error count
        except (msgspec.MsgspecError, KeyError) as error:
            self._publish(EntryUnreadable(fingerprint=session_id, error=error))
        return tuple(message for turn in reversed(turns) for message in turn)

    async def _run(self, script: Script, session_id: str, *arguments: Any) -> Any:
        try:
            return await self._client.submit_script(script, [_key(session_id)], *arguments)
        except RedisAway as away:
            raise SessionUnavailable from away
        except NO_ANSWER as error:
            self._publish(StoreFailed(operation="session", error=error))
            raise SessionUnavailable from error

    def _write(self, append: _Append) -> asyncio.Future[Any]:
        sent = self._client.submit_script(APPEND, [append.key], *append.arguments)
        sent.add_done_callback(lambda answer: self._written(append, answer))
        return sent

    def _written(self, append: _Append, answer: asyncio.Future[Any]) -> None:
        failure = answer.exception()
        if isinstance(failure, RedisAway):
            self._unwritten.append(append)
        elif failure is not None:
            self._publish(StoreFailed(operation="session", error=failure))

    def _catch_up(self) -> None:
        """Redis is back: what it could not take is on its way, in order."""
        unwritten = tuple(self._unwritten)
        self._unwritten.clear()
        for append in unwritten:
            self._write(append)


def _number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    """The field's number; 0 if it has none."""
    value = fields.get(name, b"")
    return int(value) if value.isdigit() else 0


def _key(session_id: str) -> str:
    return f"weir:session:{{{session_id}}}"
