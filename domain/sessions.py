"""Conversations: what was said before goes before what is asked, and what is answered is kept once it is whole."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from domain.answer import Answer
from domain.chat import WHOLE_REASONS, Caller, ChatRequest, Chunk, Turn
from domain.errors import StreamUnavailable, UnknownSession
from domain.events import DefectFound, Publish
from domain.generation import Generation, State
from domain.ports import Conversation, GenerationLog, SessionStore

LOOK_AGAIN_S = 4.0
"""After so much silence an answer is looked for in the log: one that nobody reads here any more goes on elsewhere."""

CLOSE_S = 1.0
"""For so long turns may still be kept when the process is about to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBounds:
    """What one conversation may be: so many messages, so many bytes, and so many seconds without a turn."""

    max_messages: int
    max_bytes: int
    ttl_s: float


class Conversations:
    """The conversations of callers. A turn is given up `limit_s` seconds after it was asked."""

    def __init__(
        self,
        *,
        store: SessionStore,
        log: GenerationLog,
        publish: Publish,
        new_id: Callable[[], str],
        limit_s: float,
    ) -> None:
        self._store = store
        self._log = log
        self._publish = publish
        self._new_id = new_id
        self._limit_s = limit_s
        self._keeping: set[asyncio.Task[None]] = set()

    async def recall(self, session_id: str, caller: Caller, request: ChatRequest) -> tuple[ChatRequest, Turn]:
        """The request behind what was said before, and the turn that it is; nothing begins for that.

        Raises:
            SessionUnavailable: nobody can tell now.
        """
        with _named(session_id):
            conversation = await self._store.open(_of(caller, session_id))
        turn = Turn(
            session_id=conversation.session_id,
            birth_id=conversation.birth_id,
            turn_id=self._new_id(),
            place=conversation.turn_count,
            messages=request.messages,
        )
        return replace(request, messages=(*conversation.messages, *turn.messages)), turn

    async def begun(self, turn: Turn | None) -> Turn | None:
        """The turn, if it is one, in a conversation that has begun: it will be answered, and can be kept.

        Raises:
            SessionUnavailable: nobody can tell now.
        """
        if turn is None or turn.birth_id:
            return turn
        return replace(turn, birth_id=await self._store.begin(turn.session_id))

    async def go_on(self, turn: Turn | None, answer: Answer) -> None:
        """The turn, if it is one, will be kept before the client is told that `answer` is whole; one that is, is kept.

        Who is cancelled meanwhile has closed the answer.
        """
        if turn is None:
            return
        answer.keeping = self.keep(turn, answer.generation)
        if answer.generation.sealed is None:
            return
        try:
            await answer.kept()
        except BaseException:
            answer.close()
            raise

    async def read(self, session_id: str, caller: Caller) -> Conversation:
        """The caller's conversation.

        Raises:
            UnknownSession: there is none of this caller's.
            SessionUnavailable: nobody can tell now.
        """
        with _named(session_id):
            return await self._store.read(_of(caller, session_id))

    async def forget(self, session_id: str, caller: Caller) -> None:
        """The caller's conversation is gone; turns under way are not kept.

        Raises:
            UnknownSession: there is none of this caller's.
            SessionUnavailable: nobody can tell now.
        """
        with _named(session_id):
            await self._store.forget(_of(caller, session_id))

    def keep(self, turn: Turn, generation: Generation) -> asyncio.Task[None]:
        """The turn will be kept when `generation` has answered it whole, whether or not its client waits for that."""
        keeping = asyncio.get_running_loop().create_task(self._keep(turn, generation))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        return keeping

    async def close(self) -> None:
        """All turns whose answers have ended are kept, and no others will be."""
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=CLOSE_S)
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _keep(self, turn: Turn, generation: Generation) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                ended = await self._ended(generation)
            if ended is not None and _is_whole(ended):
                answer = {"role": "assistant", "content": _text(ended)}
                await self._store.append(replace(turn, messages=(*turn.messages, answer)))
        except TimeoutError:
            return
        except Exception as defect:  # noqa: BLE001  # the answer is there, and must not fail for what comes after it
            self._publish(DefectFound(thread_id=generation.opened.thread_id, error=defect))

    async def _ended(self, generation: Generation) -> Generation | None:
        """The generation, ended; None: nobody knows it any more."""
        known: Generation | None = generation
        while known is not None and known.sealed is None:
            if not await _has_more(known):
                with suppress(StreamUnavailable):
                    known = await self._log.find(generation.opened.generation_id)
        return known


async def _has_more(generation: Generation) -> bool:
    """Whether there was another record before long."""
    record = generation.watch()
    try:
        async with asyncio.timeout(LOOK_AGAIN_S):
            await record
    except TimeoutError:
        return False
    finally:
        generation.unwatch(record)
    return True


def _is_whole(generation: Generation) -> bool:
    sealed = generation.sealed
    return sealed is not None and generation.state is State.DONE and sealed.finish_reason in WHOLE_REASONS


def _text(generation: Generation) -> str:
    return "".join(record.content for record in generation.records if type(record) is Chunk)


def _of(caller: Caller, session_id: str) -> str:
    """What the conversation is kept under: each caller's ids are its own, and tell no other that they are taken.

    No two callers have one name (domain/keys.py), and no session id has a slash.
    """
    return f"{caller.user}/{session_id}"


@contextmanager
def _named(session_id: str) -> Iterator[None]:
    """Whatever it is kept under, it is unknown by the name that its caller has for it."""
    try:
        yield
    except UnknownSession as unknown:
        raise UnknownSession(session_id) from unknown
