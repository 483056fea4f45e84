"""Whether a Redis can be used, and what stands in the way."""

import asyncio
import re

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from infrastructure.redis.client import RedisAway
from infrastructure.redis.connection import connect, is_cluster
from infrastructure.redis.unfit import NEEDED, OLDEST, chain, why_unfit

_TIMEOUT_S = 2.0
_KEY = "weir:check"
_TRY = "redis.call('SET', KEYS[1], 1, 'PX', 1000) return redis.call('INFO', 'server')"
_FAILURES = (RedisAway, RedisError, RedisClusterException, OSError, asyncio.TimeoutError)
_SILENT = {
    "ConnectionRefusedError": "it refuses the connection: nothing listens there",
    "gaierror": "the name of its host is not known",
    "ConnectionResetError|closed by server": "it closes the connection: perhaps it speaks TLS alone",
    "MasterNotFoundError": "its sentinels do not answer, or none of them names a primary for that service",
}
_FORBIDDEN = "it does not let our user run scripts and INFO, and write keys that begin with weir:"


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
        raise _told(failure, url) from failure
    mode = about.get("server_mode") or about["redis_mode"]  # Valkey's word, and Redis'
    if mode == "cluster" and not is_cluster(url):
        raise RedisUnfit(_spelled("it is one node of a cluster: redis+cluster:// is right", url))
    version = about["redis_version"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise RedisUnfit(f"it is Redis {version}: {NEEDED}")
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


def _told(failure: Exception, url: str) -> RedisUnfit | RedisUnreachable:
    why = why_unfit(failure)
    if why is None and any(isinstance(each, ResponseError) for each in chain(failure)):
        why = _FORBIDDEN
    return RedisUnreachable(_why_silent(failure, url)) if why is None else RedisUnfit(_spelled(why, url))


def _why_silent(failure: Exception, url: str) -> str:
    said = " ".join(f"{type(each).__name__}: {each}" for each in chain(failure))
    for words, sentence in _SILENT.items():
        if re.search(words, said):
            return sentence
    return "it does not answer: perhaps it speaks no TLS" if url.startswith("rediss") else "it does not answer"


def _spelled(why: str, url: str) -> str:
    """`why`, with the schemes that it names for TLS where `url` is."""
    return re.sub(r"\bredis(?=[:+])", "rediss", why) if url.startswith("rediss") else why
