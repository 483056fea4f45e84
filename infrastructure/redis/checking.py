"""Whether a Redis can be used, and what stands in the way."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, cast

from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from infrastructure.redis.connection import connect

OLDEST = (6, 2)
_WRITE = "return redis.call('SET', KEYS[1], 1, 'PX', 1000)"
_FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
_UNFIT: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "it refuses our user and password"),
    (NoPermissionError, "it does not let our user run INFO, and scripts on keys that begin with weir:"),
    (ReadOnlyError, "it is a replica, which nobody can write to: its primary's address is right"),
)


class RedisUnreachable(Exception):
    """Nobody answers there now; that may change."""


class RedisUnfit(Exception):
    """Who answers there will not do: another address, password or server is needed."""


class _Server(Protocol):
    """What is asked of the library's clients here."""

    def info(self, section: str) -> Awaitable[dict[str, Any]]: ...

    def eval(self, script: str, numkeys: int, *keys: str) -> Awaitable[Any]: ...

    def aclose(self) -> Awaitable[None]: ...


async def check_redis(url: str) -> str:
    """Who answers at `url`, by name and version: it can be used.

    Raises:
        RedisUnreachable: there is no answer.
        RedisUnfit: it cannot be written to by us, or is too old. The texts have no part of `url`.
    """
    server = cast("_Server", connect(url).commands)
    try:
        about = await server.info("server")
        _check_version(about["redis_version"])
        if about["redis_mode"] == "cluster" and not url.startswith("redis+cluster:"):
            raise RedisUnfit("it is one node of a cluster: redis+cluster:// is right")
        await server.eval(_WRITE, 1, "weir:check")
    except _FAILURES as failure:
        raise _told(failure) from failure
    finally:
        await server.aclose()
    return f"Valkey {about['valkey_version']}" if "valkey_version" in about else f"Redis {about['redis_version']}"


def _check_version(version: str) -> None:
    """Valkey tells the version of Redis that it can stand in for."""
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise RedisUnfit(f"it is Redis {version}: {'.'.join(map(str, OLDEST))} or newer is needed")


def _told(failure: Exception) -> RedisUnfit | RedisUnreachable:
    for kind, sentence in _UNFIT:
        if isinstance(failure, kind) or isinstance(failure.__cause__, kind):
            return RedisUnfit(sentence)
    if "mode is not enabled" in str(failure):
        return RedisUnfit("it is no cluster: redis:// is right")
    return RedisUnreachable("it does not answer")
