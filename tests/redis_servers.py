"""Real Redis servers for tests, alone, in a cluster and behind a sentinel.

They are the redis-server on the PATH, or the one that a wheel brings.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from perf.redis_server import free_port, redis_executable

_PATIENCE_S = 30.0
"""What has not come by then never comes."""


def ask(port: int, *command: str) -> bytes:
    """Return the first bytes of the answer of who listens there; none when nobody does (yet)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall((" ".join(command) + "\r\n").encode())
            return connection.recv(65536)
    except OSError:
        return b""


class RedisServer:
    """A redis-server of one's own at `url`, with nothing kept on disk unless `options` say so."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.options = options
        self._folder = tempfile.TemporaryDirectory()
        self.start()

    def start(self) -> None:
        """It answers."""
        command = [redis_executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name]
        self.process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", *self.options], stdout=subprocess.DEVNULL
        )
        while not self.ask("PING").startswith((b"+PONG", b"-NOAUTH")):
            if self.process.poll() is not None:
                raise RuntimeError(f"redis-server ended with code {self.process.returncode}")

    def ask(self, *command: str) -> bytes:
        """Return the first bytes of the answer; none when nobody listens (yet)."""
        return ask(self.port, *command)

    def until(self, condition: str | Callable[[bytes], bool], *command: str) -> None:
        """Return once the answer to `command` contains `condition`, or fulfils it.

        Raises:
            RuntimeError: it never does.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            until_s = time.monotonic() + _PATIENCE_S
            while time.monotonic() < until_s:
                connection.sendall((" ".join(command) + "\r\n").encode())
                answer = connection.recv(65536)
                if condition(answer) if callable(condition) else condition.encode() in answer:
                    return
        raise RuntimeError(f"{command} still says {answer[:1000]!r}")

    def flush(self) -> None:
        """It is empty."""
        self.ask("FLUSHALL")

    def stop(self) -> None:
        """It is gone, with all it held."""
        self.process.kill()
        self.process.wait(timeout=10)

    def close(self) -> None:
        """It is gone, and so is its folder."""
        self.stop()
        self._folder.cleanup()


def net_output_bytes(server: RedisServer) -> int:
    """How much it has sent since it started."""
    told = server.ask("INFO", "stats")
    return int(told.partition(b"total_net_output_bytes:")[2].partition(b"\r")[0])


def counts(at_least: int) -> Callable[[bytes], bool]:
    """Whether an answer begins an array of so many."""
    return lambda answer: answer[:1] == b"*" and int(answer[1:].partition(b"\r\n")[0]) >= at_least


_SLOTS = 16384


class RedisCluster:
    """Three servers that share the slots, at `url`; what is in the slots of one that is gone is gone with it."""

    def __init__(self) -> None:
        self.nodes = [self._node() for _ in range(3)]
        first, *others = self.nodes
        for node in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", str(node.port))
        for at, node in enumerate(self.nodes):
            node.ask("CLUSTER", "ADDSLOTS", *map(str, range(at * _SLOTS // 3, (at + 1) * _SLOTS // 3)))
        for node in self.nodes:
            node.until("cluster_state:ok", "CLUSTER", "INFO")
            node.until(f"cluster_slots_ok:{_SLOTS}", "CLUSTER", "INFO")
            node.until("cluster_size:3", "CLUSTER", "INFO")
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _node(self, *options: str, port: int | None = None) -> RedisServer:
        return RedisServer("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", *options, port=port)

    def flush(self) -> None:
        """All are empty."""
        for node in self.nodes:
            node.flush()

    def close(self) -> None:
        """All are gone."""
        for node in self.nodes:
            node.close()


def replicated() -> tuple[RedisServer, RedisServer]:
    """A server and its replica, which has all that the server has."""
    server = RedisServer("--repl-diskless-sync-delay", "0")
    replica = RedisServer("--replicaof", "127.0.0.1", str(server.port))
    replica.until("master_link_status:up", "INFO", "replication")
    return server, replica


class RedisBehindSentinel:
    """A master, its replica, and a sentinel that promotes the replica when the master is gone, at `url`."""

    def __init__(self) -> None:
        self.master, self.replica = replicated()
        self._folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        config = Path(self._folder.name) / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder.name}\n"
            f"sentinel monitor weir 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds weir 500\nsentinel failover-timeout weir 3000\n"
        )
        self._sentinel = subprocess.Popen([redis_executable(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        while b"slaves=1" not in ask(self.port, "INFO", "sentinel"):
            pass
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/weir"

    def is_promoted(self) -> bool:
        """Whether the replica is master."""
        return b"role:master" in self.replica.ask("INFO", "replication")

    def flush(self) -> None:
        """Both are empty."""
        self.master.flush()

    def close(self) -> None:
        """All are gone."""
        self._sentinel.kill()
        self._sentinel.wait(timeout=10)
        self._folder.cleanup()
        self.replica.close()
        self.master.close()
