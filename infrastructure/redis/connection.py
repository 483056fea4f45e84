"""How a Redis URL is connected to: one server, sentinels, or a cluster.

redis://[user:password@]host[:port][/db]
redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]
redis+cluster://[user:password@]host[:port][,host[:port]…]

rediss://, rediss+sentinel:// and rediss+cluster:// are the same with TLS, to each server and sentinel. Options behind ?
(config/accepted.py) say whom to trust, who we are, and what sentinels want to know of us.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import choice
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.client import PubSub as LibraryPubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from infrastructure.redis.batches import Batches, Pool, Shape
from infrastructure.redis.cluster import ClusterCommands
from infrastructure.redis.scripting import Connection, Pipeline
from infrastructure.redis.secure import SecureConnection, SecureMasterConnection
from infrastructure.redis.subscriptions import PubSub
from infrastructure.redis.unfit import why_unfit

TIMEOUT_S = 0.2
_CONNECTIONS = 32
_CONNECTIONS_TO_MASTER = 128
"""More, as the library's pool for it does not wait for a free one, but fails."""

_SENTINEL_PORT, _PORT = 26379, 6379


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
    if scheme.endswith("+sentinel"):
        return _through_sentinels(url, timeout_s)
    if is_cluster(url):
        return _to_cluster(url, timeout_s)
    pool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=None, **_options(timeout_s) | _untimed(timeout_s)
    )
    redis = Redis.from_url(url, **_options(timeout_s))
    if scheme == "rediss":
        pool.connection_class = redis.connection_pool.connection_class = SecureConnection
    return Redises(_batches(Redis.from_pool(pool), timeout_s), lambda: cast("PubSub", redis.pubsub()))


def is_cluster(url: str) -> bool:
    """Whether `url` names one."""
    return urlsplit(url).scheme.endswith("+cluster")


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
    sentinel = _sentinels(url, timeout_s)
    wire: dict[str, Any] = {"connection_class": SecureMasterConnection} if _tls(url) else {}
    redis = sentinel.master_for(service, db=int(db or 0), **wire)
    untimed = _untimed(timeout_s)
    commands = sentinel.master_for(service, db=int(db or 0), max_connections=_CONNECTIONS_TO_MASTER, **untimed | wire)
    batches = _batches(commands, timeout_s)
    return Redises(_ThroughSentinels(batches, sentinel), lambda: cast("PubSub", redis.pubsub()))


def _sentinels(url: str, timeout_s: float) -> Sentinel:
    """Who is asked for the master; with TLS, if that has it."""
    sentinel = _Sentinels(  # type: ignore[no-untyped-call]  # the library's is untyped
        list(_hosts(url)),
        sentinel_kwargs=_options(timeout_s) | _tls(url) | _sentinel_credentials(url),
        **_options(timeout_s),
        **_tls(url),
        **_credentials(url),
    )
    if _tls(url):
        for each in sentinel.sentinels:
            each.connection_pool.connection_class = SecureConnection
    return sentinel


class _Sentinels(Sentinel):
    """Tells why no sentinel names a master, where that can be mended; the library keeps it to itself."""

    async def discover_master(self, service_name: str) -> Any:
        """The master's address.

        Raises:
            MasterNotFoundError: no sentinel names one; because of what a sentinel that will not do has failed with.
        """
        try:
            return await super().discover_master(service_name)
        except MasterNotFoundError as lost:
            raise lost from await self._failure()

    async def _failure(self) -> RedisError | None:
        for each in self.sentinels:
            try:
                await each.sentinel_masters()
            except RedisError as failure:
                if why_unfit(failure):
                    return failure
        return None


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
    options = _options(timeout_s) | _credentials(url)
    cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options, **_tls(url))
    own = options | _tls(url)
    wire = SecureConnection if own.pop("ssl", False) else PlainConnection
    cluster.nodes_manager.connection_kwargs["connection_class"] = wire
    for each in cluster.startup_nodes:
        each.connection_class = wire

    def subscribe() -> PubSub:
        node = choice(cluster.get_nodes() or nodes)  # noqa: S311  # any will do
        pool = ConnectionPool(connection_class=wire, host=node.host, port=int(node.port), **own)
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
    default_port = _PORT if is_cluster(url) else _SENTINEL_PORT
    for host in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{host}")
        yield one.hostname or host, one.port or default_port


def _tls(url: str) -> dict[str, Any]:
    """What the library is to know of it; nothing without."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("rediss"):
        return {}
    given = {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
    is_checked = {"ssl_check_hostname": given.get("ssl_check_hostname") != "false"}
    return {"ssl": True} | given | is_checked


def _sentinel_credentials(url: str) -> dict[str, Any]:
    given = dict(parse_qsl(urlsplit(url).query))
    names = {"sentinel_username": "username", "sentinel_password": "password"}
    return {names[name]: value for name, value in given.items() if name in names}


def _credentials(url: str) -> dict[str, Any]:
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return ({"username": unquote(user)} if user else {}) | ({"password": unquote(password)} if password else {})
