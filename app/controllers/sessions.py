"""/v1/sessions: what is kept of a conversation."""

from typing import Any

from litestar import Controller, HttpMethod, Request, delete, get, route
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from app.authentication import caller_of
from app.dependencies import ConversationsDep, service_of
from app.errors import encode_json
from app.headers import SESSION_ID
from app.threads import own_thread_id
from domain.chat import Caller
from domain.errors import UnknownSession

Http = Request[Any, Any, Any]


class SessionController(Controller):
    """Conversations, for their owners alone."""

    tags = ("Sessions",)

    @route("/v1/sessions/{session_id:str}", http_method=HttpMethod.OPTIONS, include_in_schema=False)
    async def allow(self) -> ASGIResponse:
        """Say which methods there are, as for streams."""
        return ASGIResponse(status_code=204, headers={"allow": "DELETE, GET, OPTIONS"})

    @get("/v1/sessions/{session_id:str}")
    async def read(self, request: Http, conversations: ConversationsDep, session_id: FromPath[str]) -> ASGIResponse:
        """Read the messages that are kept of a conversation, and until when they are."""
        caller = await _owner(request)
        conversation = await conversations.read(_checked(session_id), caller)
        body = {
            "session_id": session_id,
            "messages": conversation.messages,
            "expires_at": int(conversation.expires_at_s),
        }
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        return ASGIResponse(body=encode_json(body), headers=headers)

    @delete("/v1/sessions/{session_id:str}", status_code=204)
    async def forget(self, request: Http, conversations: ConversationsDep, session_id: FromPath[str]) -> None:
        """Forget a conversation; what is being answered in it is not kept either."""
        caller = await _owner(request)
        await conversations.forget(_checked(session_id), caller)


async def _owner(request: Http) -> Caller:
    """Who asks; the thread id that is given can be one."""
    caller = await caller_of(request.scope, service_of(request.scope))
    own_thread_id(request.scope)
    return caller


def _checked(session_id: str) -> str:
    """The id, which can be one.

    Raises:
        UnknownSession: no conversation can have it.
    """
    if not SESSION_ID.fullmatch(session_id):
        raise UnknownSession(session_id)
    return session_id
