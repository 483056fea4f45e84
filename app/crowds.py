"""What is refused in a crowd before it has been read."""

from litestar.types import Scope

from app.dependencies import Service
from app.entrance import IN_A_CROWD
from app.headers import header
from domain.chat import Caller

_SHORT_BYTES = 4096
"""A body that comes with the headers or right behind them. Who is still sending a longer one may not see the answer."""


def refuse_unread(scope: Scope, service: Service, caller: Caller) -> None:
    """There may be a slot for the caller, or it came in no crowd, or its body is long; else it is not read.

    Waiting for a body costs others more than all else that is done for a request which is refused: the server hands
    bodies over one by one, by a thread of its own.

    Raises:
        TooManyConnections, AtCapacity: as reading it would end.
    """
    state = scope["state"]
    if IN_A_CROWD in state and _length_bytes(scope) <= _SHORT_BYTES:
        service.lifecycle.check_room(caller, state["thread_id"])


def _length_bytes(scope: Scope) -> float:
    announced = header(scope, b"content-length") or ""
    return int(announced) if announced.isdecimal() else float("inf")
