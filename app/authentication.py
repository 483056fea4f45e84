"""Who asks."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.errors import NotFound
from domain.chat import OPERATOR, Caller
from domain.errors import Unauthorized
from domain.operator_key import OperatorKey

Connection = ASGIConnection[Any, Any, Any, Any]


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The caller: without a key, the client's address."""
    client = request.client
    return Caller(user=f"address:{client.host if client else 'unknown'}")


def asker_or_operator(request: Request[Any, Any, Any], key: OperatorKey | None) -> Caller:
    """The operator, if the operator's key is given; else who asks."""
    return OPERATOR if _has_key(request, key) else caller_of(request)


def operators_only(key: OperatorKey | None) -> Guard:
    """What keeps others out of a route; without a key there is no such route."""

    def check(connection: Connection, _: BaseRouteHandler) -> None:
        if key is None:
            raise NotFound(f"There is nothing at {connection.scope['path']}.")
        if not _has_key(connection, key):
            raise Unauthorized("The operator's key is needed: Authorization: Bearer KEY.")

    return check


def _has_key(connection: Connection, key: OperatorKey | None) -> bool:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    return key is not None and scheme.lower() == "bearer" and key.matches(given.strip())
