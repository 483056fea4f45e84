"""The thread id: what a client, the log and support find one exchange by."""

import random

from litestar.types import Scope

from app.headers import ID_CHARACTERS, THREAD_ID, header
from domain.errors import FieldError, InvalidRequest


def begin_thread(scope: Scope) -> str:
    """The client's thread id if it can be one, or else a new one; it is in the scope's state from now on."""
    given = header(scope, b"x-thread-id")
    thread_id = given if given and THREAD_ID.fullmatch(given) else _new_thread_id()
    scope.setdefault("state", {})["thread_id"] = thread_id
    return thread_id


def _new_thread_id() -> str:
    """An id, no secret: asking the system for one lets its other threads run first, before the request goes on."""
    return f"{random.getrandbits(128):032x}"


def own_thread_id(scope: Scope) -> str | None:
    """The thread id that the client gave as a header.

    Raises:
        InvalidRequest: it cannot be one.
    """
    given = header(scope, b"x-thread-id")
    if given is not None and not THREAD_ID.fullmatch(given):
        reason = f"{given[:140]!r}: {ID_CHARACTERS}"
        raise InvalidRequest(FieldError("X-Thread-ID", reason))
    return given


def thread_id_of(scope: Scope, in_body: str | None = None) -> str:
    """The exchange's thread id: the header's, the body's, or the one made for it.

    Raises:
        InvalidRequest: the header's cannot be one, or the body says otherwise.
    """
    given = own_thread_id(scope)
    if given and in_body and given != in_body:
        raise InvalidRequest(FieldError("thread_id", "not the same as the X-Thread-ID header; one is enough"))
    if in_body:
        scope["state"]["thread_id"] = in_body
    thread_id: str = scope["state"]["thread_id"]
    return thread_id
