"""How a Redis URL is connected to: one server, sentinels, or a cluster.

redis://[user:password@]host[:port][/db]        rediss:// with TLS
redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]
redis+cluster://[user:password@]host[:port][,host[:port]…]
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import choice
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.client import PubSub as LibraryPubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff

from infrastructure.redis.batches import Batches, Pool, Shape
from infrastructure.redis.client import Connection, Pipeline
from infrastructure.redis.cluster import ClusterCommands
from infrastructure.redis.subscriptions import PubSub

TIMEOUT_S = 0.2
_CONNECTIONS = 32
_CONNECTIONS_TO_MASTER = 128
"""More, as the library's pool for it does not wait for a free one, but fails."""

_DEFAULT_PORTS = {"redis+sentinel": 26379, "redis+cluster": 6379}


@dataclass(frozen=True, slots=True)
class Redises:
    """A connection for commands, and a way to new ones for subscriptions."""

    commands: Connection
    subscribe: Callable[[], PubSub]


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Redises:
    """Connections to what `url` names; nothing is sent yet.

    No command takes longer than about twice `timeout_s`: it is tried twice.
    """
    scheme = urlsplit(url).scheme
    if scheme == "redis+sentinel":
        return _through_sentinels(url, timeout_s)
    if scheme == "redis+cluster":
        return _to_cluster(url, timeout_s)
    pool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=None, **_options(timeout_s) | _untimed(timeout_s)
    )
    redis = Redis.from_url(url, **_options(timeout_s))
    return Redises(_batches(Redis.from_pool(pool), timeout_s), lambda: cast("PubSub", redis.pubsub()))


def _batches(redis: Redis, timeout_s: float) -> Batches:
    """What the library's client would run, without its pipelines.

    The library's own table of shapes makes capitals of each name that it is asked for; ours are in capitals.
    """
    shapes = dict(cast("Mapping[str, Shape]", redis.response_callbacks))
    return Batches(cast("Pool", redis.connection_pool), shapes=shapes, timeout_s=timeout_s)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 1),
    }


def _untimed(timeout_s: float) -> dict[str, Any]:
    """For commands: getting a connection and a batch have one limit each, not each of their steps; closing has this."""
    return {"socket_timeout": None, "socket_connect_timeout": 10 * timeout_s}


def _through_sentinels(url: str, timeout_s: float) -> Redises:
    """The master of the moment: it is asked for again when a connection breaks."""
    parts = urlsplit(url)
    service, _, db = parts.path.strip("/").partition("/")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # the library's is untyped
        list(_hosts(url)), sentinel_kwargs=_options(timeout_s), **_options(timeout_s), **_credentials(url)
    )
    redis = sentinel.master_for(service, db=int(db or 0))
    untimed = _untimed(timeout_s)
    commands = sentinel.master_for(service, db=int(db or 0), max_connections=_CONNECTIONS_TO_MASTER, **untimed)
    batches = _batches(commands, timeout_s)
    return Redises(_ThroughSentinels(batches, sentinel), lambda: cast("PubSub", redis.pubsub()))


class _ThroughSentinels:
    """Commands to the master, whose connections and those to the sentinels are closed together."""

    def __init__(self, batches: Batches, sentinel: Sentinel) -> None:
        self._batches = batches
        self._sentinel = sentinel

    def pipeline(self, transaction: bool = True) -> Pipeline:  # noqa: FBT001, FBT002  # the library's
        """An empty pipeline."""
        return self._batches.pipeline(transaction)

    async def aclose(self) -> None:
        """All connections are closed; the sentinels are asked who is master when there are commands again."""
        await self._batches.aclose()
        await self._sentinel.aclose()


def _to_cluster(url: str, timeout_s: float) -> Redises:
    """Commands go to the node of their slot; messages reach every node, so any will do to listen at."""
    nodes = [ClusterNode(host, port) for host, port in _hosts(url)]
    cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **_options(timeout_s), **_credentials(url))

    def subscribe() -> PubSub:
        node = choice(cluster.get_nodes() or nodes)  # noqa: S311  # any will do
        pool = ConnectionPool(host=node.host, port=int(node.port), **_options(timeout_s), **_credentials(url))
        return cast("PubSub", _OwnConnection(pool))

    return Redises(ClusterCommands(cluster), subscribe)


class _OwnConnection(LibraryPubSub):
    """A subscription whose connection is nobody else's."""

    async def aclose(self) -> None:
        """The connection is closed."""
        await super().aclose()  # type: ignore[no-untyped-call]  # the library's is untyped
        await self.connection_pool.disconnect()


def _hosts(url: str) -> Iterator[tuple[str, int]]:
    parts = urlsplit(url)
    for host in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{host}")
        yield one.hostname or host, one.port or _DEFAULT_PORTS[parts.scheme]


def _credentials(url: str) -> dict[str, Any]:
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return ({"username": unquote(user)} if user else {}) | ({"password": unquote(password)} if password else {})
