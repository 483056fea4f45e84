"""What a request says of who asks: an API key, an operator's key, an address."""

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard, Scope

from app.dependencies import Service
from app.errors import NotFound
from domain.addresses import Network, client_address
from domain.chat import OPERATOR, Caller
from domain.errors import FieldError, InvalidRequest, Unauthorized
from domain.operator_key import OperatorKey

Connection = ASGIConnection[Any, Any, Any, Any]

_KEY_IN_QUERY = re.compile(
    rb"(^|[&;])\s*(x-)?(api[-_]?key|key|access[-_]?token|token|authorization|auth)=|weir_[0-9a-z]{12}_", re.IGNORECASE
)
_BEARER = b"bearer"


async def caller_of(scope: Scope, service: Service) -> Caller:
    """Who asks: the user of the key that is given, or whoever is at the client's address.

    Raises:
        InvalidRequest: there are two keys, or one in the query.
        Unauthorized: a key is needed, or another one.
        KeysUnavailable: nobody can tell now.
    """
    return await service.callers.caller(given_key(scope), address_of(scope, service.policy.trusted_proxies))


async def asker_or_operator(request: Request[Any, Any, Any], service: Service) -> Caller:
    """The operator, if the operator's key is given; else who asks."""
    _refuse_in_query(request.scope)
    return OPERATOR if _has_key(request, service.policy.operator_key) else await caller_of(request.scope, service)


def operators_only(key: OperatorKey | None) -> Guard:
    """What keeps others out of a route; without a key there is no such route."""

    def check(connection: Connection, _: BaseRouteHandler) -> None:
        if key is None:
            raise NotFound(f"There is nothing at {connection.scope['path']}.")
        _refuse_in_query(connection.scope)
        if not _has_key(connection, key):
            raise Unauthorized("The operator's key is needed: Authorization: Bearer KEY.")

    return check


def given_key(scope: Scope) -> str | None:
    """What the request gives for a key; None: nothing. Credentials of another scheme than Bearer are none of ours.

    They count as a key that cannot be one, unless X-API-Key has one: a proxy may want them for itself.

    Raises:
        InvalidRequest: there are two keys, or one in the query.
    """
    _refuse_in_query(scope)
    keys: set[bytes] = set()
    others: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            keys.add(value.strip())
        elif name == b"authorization":
            kind, _, rest = value.strip().partition(b" ")
            (keys if kind.lower() == _BEARER else others).add(rest.strip())
    if len(keys) > 1:
        raise InvalidRequest(FieldError("X-API-Key", "not the same key as in Authorization; one is enough"))
    given = keys or others
    return given.pop().decode("latin-1") if given else None


def _refuse_in_query(scope: Scope) -> None:
    """No key is in the address."""
    query = scope["query_string"]
    if query and _KEY_IN_QUERY.search(unquote_to_bytes(query)):
        reason = "a key in it would be logged on its way: send it as Authorization: Bearer KEY or X-API-Key: KEY"
        raise InvalidRequest(FieldError("address", reason))


def address_of(scope: Scope, trusted: tuple[Network, ...]) -> str:
    """The name of the client's address, behind proxies that are trusted."""
    client = scope["client"]
    peer = client[0] if client else None
    if not trusted:
        return client_address(peer, (), trusted)
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return client_address(peer, forwarded, trusted)


def _has_key(connection: Connection, key: OperatorKey | None) -> bool:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    return key is not None and scheme.lower() == "bearer" and key.matches(given.strip())
