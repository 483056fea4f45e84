"""Whether what a Redis URL names can be used, before anything depends on it."""

from collections.abc import Mapping
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError

from infrastructure.redis.client import Connection, RedisAway

OLDEST = (6, 2)
_NEEDED = f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"

_OTHER_MODES = {
    "cluster": "is a node of a cluster: redis+cluster:// is right for it",
    "sentinel": "is a sentinel: redis+sentinel://HOST[:PORT],…/SERVICE is right for it",
}

_KNOWN_WORDS = {
    "Cluster mode is not enabled": "is no cluster: redis:// is right for it",
    "unknown command 'SENTINEL'": "is no sentinel: redis:// is right for it",
    "unknown command `HELLO`": f"is older than version 6: {_NEEDED}",
}


class RedisUnusable(Exception):
    """It will never do as it is: the text says why, to be put after the URL."""


async def check(connection: Connection, *, is_cluster: bool) -> str | None:
    """Why the server can't be used just now; None: it can. The connection is closed.

    Raises:
        RedisUnusable: waiting would not help.
    """
    pipeline = connection.pipeline(transaction=False)
    pipeline.execute_command("INFO", "server")
    try:
        [answer] = await pipeline.execute(raise_on_error=False)
    except (RedisError, RedisClusterException, OSError) as error:
        answer = error
    finally:
        await connection.aclose()
    if isinstance(answer, NoPermissionError):
        return None  # who may not ask what it is may use it all the same
    if isinstance(answer, Exception):
        return _away(answer)
    _check_server(answer, is_cluster=is_cluster)
    return None


def _away(error: Exception) -> str:
    """What to say of a server that did not answer the question.

    Raises:
        RedisUnusable: it did, in a way.
    """
    cause = error.__cause__ if isinstance(error.__cause__, RedisError | RedisClusterException) else error
    if isinstance(cause, AuthenticationError):
        raise RedisUnusable(f"wants another user or password than it is given ({cause})") from error
    for words, what_it_is in _KNOWN_WORDS.items():
        if words in str(cause):
            raise RedisUnusable(what_it_is) from error
    if isinstance(cause, ResponseError):
        raise RedisUnusable(f"refuses: {cause}") from error
    return "did not answer" if isinstance(cause, RedisAway) else f"cannot be reached: {cause}"


def _check_server(server: Mapping[str, Any], *, is_cluster: bool) -> None:
    """Return if that is what the server says of one that will do."""
    mode, version = server.get("redis_mode", "standalone"), str(server.get("redis_version", ""))
    if mode in _OTHER_MODES and not is_cluster:
        raise RedisUnusable(_OTHER_MODES[mode])
    if version and tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise RedisUnusable(f"is version {version}: {_NEEDED}")
