"""Conversations in this process's memory."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import uuid4

from domain.chat import Turn
from domain.errors import UnknownSession
from domain.ports import Conversation
from domain.sessions import SessionBounds
from infrastructure.turns import decode_turn, encode_turn


class _Kept(NamedTuple):
    message_count: int
    data: bytes


@dataclass(slots=True, kw_only=True)
class _Session:
    """Turns by their ids, the oldest first."""

    birth_id: str
    expires_at_s: float = 0.0
    turns: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    gone_count: int = 0
    message_count: int = 0
    size_bytes: int = 0

    def exceeds(self, bounds: SessionBounds) -> bool:
        return self.message_count > bounds.max_messages or self.size_bytes > bounds.max_bytes

    def add(self, turn_id: str, turn: _Kept) -> None:
        self.turns[turn_id] = turn
        self._count(turn, 1)

    def drop_oldest(self) -> None:
        _, turn = self.turns.popitem(last=False)
        self.gone_count += 1
        self._count(turn, -1)

    def _count(self, turn: _Kept, sign: int) -> None:
        self.message_count += sign * turn.message_count
        self.size_bytes += sign * len(turn.data)


class MemorySessionStore:
    """Keeps `max_sessions` conversations, each within `bounds`; those without a turn for `begun_s`.

    For one more, whoever has most of them loses the one that it used least lately.
    """

    def __init__(
        self, *, bounds: SessionBounds, begun_s: float, max_sessions: int, unix_now: Callable[[], float]
    ) -> None:
        self._bounds = bounds
        self._begun_s = begun_s
        self._max_sessions = max_sessions
        self._unix_now = unix_now
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, session_id: str) -> Conversation:
        """The conversation, used now; an empty one if there is none, which has not begun for that."""
        self._drop_expired(session_id)
        session = self._sessions.get(session_id)
        if session is None:
            return _conversation(session_id, _Session(birth_id=""))
        self._use(session_id, session)
        return _conversation(session_id, session)

    async def begin(self, session_id: str) -> str:
        """The birth id of the conversation, which begins if there is none; it has been used now."""
        self._drop_expired(session_id)
        session = self._sessions.setdefault(session_id, _Session(birth_id=uuid4().hex))
        self._use(session_id, session)
        if len(self._sessions) > self._max_sessions:
            self._drop_one()
        return session.birth_id

    async def read(self, session_id: str) -> Conversation:
        """The conversation, as it was left.

        Raises:
            UnknownSession: there is none.
        """
        return _conversation(session_id, self._known(session_id))

    async def append(self, turn: Turn) -> None:
        """All messages of the turn are kept, once; the oldest turns go for them."""
        self._drop_expired(turn.session_id)
        session = self._sessions.get(turn.session_id)
        if session is None or session.birth_id != turn.birth_id:
            return
        if turn.turn_id in session.turns or turn.place < session.gone_count:
            return
        session.add(turn.turn_id, _Kept(len(turn.messages), encode_turn(turn.messages)))
        while session.exceeds(self._bounds):
            session.drop_oldest()
        self._use(turn.session_id, session)

    async def forget(self, session_id: str) -> None:
        """The conversation is gone.

        Raises:
            UnknownSession: there was none.
        """
        self._known(session_id)
        del self._sessions[session_id]

    def _known(self, session_id: str) -> _Session:
        self._drop_expired(session_id)
        session = self._sessions.get(session_id)
        if session is None:
            raise UnknownSession(session_id)
        return session

    def _use(self, session_id: str, session: _Session) -> None:
        """It lasts from now on, and is the last to go."""
        has_had_turns = session.gone_count or session.turns
        session.expires_at_s = self._unix_now() + (self._bounds.ttl_s if has_had_turns else self._begun_s)
        self._sessions.move_to_end(session_id)

    def _drop_one(self) -> None:
        """Of whoever has most conversations, the one that was used least lately is gone."""
        counts = Counter(map(_owner, self._sessions))
        most = max(counts.values())
        del self._sessions[next(each for each in self._sessions if counts[_owner(each)] == most)]

    def _drop_expired(self, session_id: str) -> None:
        """That conversation is gone if its time has passed, and so are those used least lately whose time has."""
        now_s = self._unix_now()
        session = self._sessions.get(session_id)
        if session is not None and session.expires_at_s <= now_s:
            del self._sessions[session_id]
        while self._sessions and next(iter(self._sessions.values())).expires_at_s <= now_s:
            self._sessions.popitem(last=False)


def _owner(session_id: str) -> str:
    return session_id.rpartition("/")[0]


def _conversation(session_id: str, session: _Session) -> Conversation:
    return Conversation(
        session_id=session_id,
        birth_id=session.birth_id,
        turn_count=session.gone_count + len(session.turns),
        messages=tuple(message for turn in session.turns.values() for message in decode_turn(turn.data)),
        expires_at_s=session.expires_at_s,
    )
