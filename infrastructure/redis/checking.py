"""Whether a Redis can be used, and what stands in the way."""

import asyncio
import re

from redis.exceptions import AuthenticationError, RedisClusterException, RedisError, ResponseError

from infrastructure.redis.client import RedisAway
from infrastructure.redis.connection import connect

OLDEST = (6, 2)
_NEEDED = f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
_TIMEOUT_S = 2.0
_KEY = "weir:check"
_LOGIN = "redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST for an ACL's user,"
_TRY = "redis.call('SET', KEYS[1], 1, 'PX', 1000) return redis.call('INFO', 'server')"
_FAILURES = (RedisAway, RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
_UNFIT: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, f"it refuses our user and password: {_LOGIN} is right"),
    (ResponseError, "it does not let our user run scripts and INFO, and write keys that begin with weir:"),
)
_WORDS = {
    "mode is not enabled": "it is no cluster: redis:// is right",
    "unknown command .SENTINEL": "it is no sentinel: redis:// is right",
    "unknown command .EVAL": "it is a sentinel: redis+sentinel://HOST[:PORT],…/SERVICE is right",
    "unknown command .HELLO": f"it is older than Redis 6: {_NEEDED}",
    "read only replica": "it is a replica, which nobody can write to: its primary's address is right",
}
"""What they say who know nothing of what we ask for, or (6.2) tell of it as an error of a script's; as patterns."""


class RedisUnreachable(Exception):
    """Nobody answers there now; that may change."""


class RedisUnfit(Exception):
    """Who answers there will not do: another address, password or server is needed."""


async def check_redis(url: str) -> str:
    """Who answers at `url`, by name and version: it can be used.

    Raises:
        RedisUnreachable: there is no answer.
        RedisUnfit: it cannot be written to by us, or is too old. The texts have no part of `url`.
    """
    try:
        about = await _ask(url)
    except _FAILURES as failure:
        raise _told(failure) from failure
    mode = about.get("server_mode") or about["redis_mode"]  # Valkey's word, and Redis'
    if mode == "cluster" and not url.startswith("redis+cluster:"):
        raise RedisUnfit("it is one node of a cluster: redis+cluster:// is right")
    version = about["redis_version"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise RedisUnfit(f"it is Redis {version}: {_NEEDED}")
    return f"Valkey {about['valkey_version']}" if "valkey_version" in about else f"Redis {version}"


async def _ask(url: str) -> dict[str, str]:
    """What the server says of itself, once it has let us write."""
    connection = connect(url, _TIMEOUT_S).commands
    try:
        pipeline = connection.pipeline(transaction=False)
        pipeline.execute_command("EVAL", _TRY, 1, _KEY)
        [answer] = await pipeline.execute(raise_on_error=False)
    finally:
        await connection.aclose()
    if isinstance(answer, Exception):
        raise answer
    return dict(re.findall(r"(\w+):(\S*)", answer.decode()))


def _told(failure: Exception) -> RedisUnfit | RedisUnreachable:
    said = f"{failure} {failure.__cause__}"
    for words, sentence in _WORDS.items():
        if re.search(words, said):
            return RedisUnfit(sentence)
    for kind, sentence in _UNFIT:
        if isinstance(failure, kind) or isinstance(failure.__cause__, kind):
            return RedisUnfit(sentence)
    return RedisUnreachable("it does not answer")
