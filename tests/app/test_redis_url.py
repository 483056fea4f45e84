"""A Redis URL that is wrong, and a Redis that is not there: said before anything depends on it."""

import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from config.errors import ConfigurationError
from config.settings import read_settings
from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type
from tests.redis_servers import RedisServer, free_port
from tests.serving import environment, serving

pytestmark = pytest.mark.anyio
WEIR = Path(sys.executable).with_name("weir")


def weir(command, simulation, url):
    """The command with that URL, when it has ended."""
    environ = environment(simulation, {"WEIR_REDIS_URL": url})
    arguments = [WEIR, command, *(["--port", "0"] if command == "serve" else [])]
    return subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "redis://",
        "redis://host:port",
        "redis://host/first",
        "redis+sentinel://host:26379",
        "redis+cluster://a:1,b:x",
        "redis://user:sesame@host:port",
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url):
    """With the variable, what was given but for its secrets, and what would be accepted."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({"WEIR_REDIS_URL": url})

    [problem] = refused.value.problems
    assert problem.startswith("WEIR_REDIS_URL='")
    assert "redis://, rediss:// or redis+cluster://" in problem
    assert "sesame" not in problem


def test_the_commands_say_so_in_one_line(simulation):
    """On stderr, with exit code 2."""
    done = weir("serve", simulation, "redis://host:port")

    assert done.returncode == 2
    assert done.stderr.startswith("weir: WEIR_REDIS_URL='redis://host:port': ")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def locked():
    """A Redis that wants a password."""
    server = RedisServer("--requirepass", "open")
    yield server
    server.close()


@pytest.mark.parametrize(("command", "credentials"), [("serve", ""), ("serve", "user:sesame@"), ("check", ":sesame@")])
def test_a_redis_that_wants_another_password_is_refused(simulation, locked, command, credentials):
    """An instance that started so would never share anything."""
    done = weir(command, simulation, f"redis://{credentials}127.0.0.1:{locked.port}")

    assert done.returncode == 2
    assert "WEIR_REDIS_URL='" in done.stderr
    assert "it wants another user or password" in done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


class OldRedis(StreamRequestHandler):
    """Answers as a server of `version` would, to whoever wants to know who it is."""

    version = ""

    def handle(self):
        while words := self._command():
            self.wfile.write(self._answer(words))

    def _command(self):
        count = int(self.rfile.readline()[1:] or 0)
        words = []
        for _ in range(count):
            size = int(self.rfile.readline()[1:])
            words.append(self.rfile.read(size + 2)[:-2].upper())
        return words

    def _answer(self, words):
        match words[0]:
            case b"HELLO" if self.version < "6":
                return b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
            case b"HELLO":
                return b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"
            case b"INFO":
                text = f"# Server\r\nredis_version:{self.version}\r\nredis_mode:standalone\r\n".encode()
                return b"$%d\r\n%b\r\n" % (len(text), text)
        return b"+OK\r\n"


@contextmanager
def old_redis(version):
    """The URL of one."""
    handler = type("Redis", (OldRedis,), {"version": version})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        serving_thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving_thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving_thread.join()


@pytest.mark.parametrize("version", ["5.0.14", "6.1.240"])
def test_a_redis_that_is_too_old_is_refused(simulation, version):
    """What its scripts and streams lack would only be found in the middle of an answer."""
    with old_redis(version) as url:
        done = weir("serve", simulation, url)

    assert done.returncode == 2
    assert "WEIR_REDIS_URL='redis://127.0.0.1:" in done.stderr
    assert "6.2 or newer is needed" in done.stderr


@pytest.mark.parametrize("shape", ["redis+cluster", "redis+sentinel"])
def test_a_redis_of_another_shape_is_refused(simulation, redis_session, shape):
    """With what it is."""
    done = weir("check", simulation, f"{shape}://127.0.0.1:{redis_session.port}{'/weir' * (shape[-1] == 'l')}")

    assert done.returncode == 2
    assert "WEIR_REDIS_URL='" in done.stderr
    assert "is no cluster: redis:// is right" in done.stderr or "is no sentinel: redis:// is right" in done.stderr


def test_check_says_whether_redis_answers(simulation, redis_session):
    """Without it an instance serves alone, which is no reason not to start."""
    there = weir("check", simulation, redis_session.url)
    gone = weir("check", simulation, f"redis://127.0.0.1:{free_port()}")

    assert "ok    redis" in there.stdout
    assert "fails redis cannot be reached" in gone.stdout
    assert (there.returncode, gone.returncode) == (0, 0)


async def test_an_instance_starts_without_redis_and_finds_it_later(simulator):
    """It says that it is degraded, and answers; when Redis comes, it says so and is one of many."""
    port = free_port()
    with serving(simulator, WEIR_REDIS_URL=f"redis://127.0.0.1:{port}") as service:
        async with connected(service.url) as client:
            await metrics.until(client, "sse_degraded", lambda value: value == 1, component="redis")
            alone = await client.ask(STREAM)
            server = RedisServer(port=port)
            try:
                await metrics.until(client, "sse_degraded", lambda value: value == 0, component="redis")
                query = "shared"
                shared = await client.ask(STREAM, query)
                server.until("*1\r\n", "KEYS", "weir:cache:response:*")
            finally:
                server.close()

    assert of_type(alone.events, "complete")
    assert of_type(shared.events, "complete")
