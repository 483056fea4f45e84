"""Who asks."""

from typing import Any

from litestar import Request

from domain.chat import Caller


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The caller: without a key, the client's address."""
    client = request.client
    return Caller(user=f"address:{client.host if client else 'unknown'}")
