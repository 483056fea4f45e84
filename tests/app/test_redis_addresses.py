"""What is said of a Redis that cannot be used: by `weir check`, by `weir serve`, and by a service that runs."""

import re
import threading
from contextlib import ExitStack, contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from config.errors import ConfigurationError
from config.settings import read_settings
from infrastructure.redis.checking import RedisUnfit, RedisUnreachable, check_redis
from tests.app import metrics
from tests.app.asking import STREAM, connected, of_type
from tests.app.test_cli import KEY, weir
from tests.redis_servers import RedisCluster, RedisServer, free_port
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def servers():
    """Return a server, one that wants a password, a replica, and a cluster."""
    with ExitStack() as stack:
        plain, locked, cluster = RedisServer(), RedisServer(), RedisCluster()
        replica = RedisServer("--replicaof", "127.0.0.1", str(plain.port))
        locked.ask("CONFIG", "SET", "requirepass", "correct-horse")
        for server in (plain, locked, replica, cluster):
            stack.callback(server.close)
        yield {"plain": plain, "locked": locked, "replica": replica, "cluster": cluster}


def address(servers, name, scheme="redis", user=""):
    """The address of a server's first node."""
    server = servers[name]
    port = server.nodes[0].port if name == "cluster" else server.port
    return f"{scheme}://{user}127.0.0.1:{port}{'/weir' if scheme == 'redis+sentinel' else ''}"


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


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_several_servers_need_a_form_that_says_what_they_are(scheme):
    with pytest.raises(ConfigurationError, match=f"several are {scheme}[+]sentinel:// or {scheme}[+]cluster://"):
        read_settings({"WEIR_REDIS_URL": f"{scheme}://a:1,b:2"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://host?ssl=true", "nothing is understood behind ?; with TLS the scheme is rediss+cluster://"),
        ("redis://host?ssl_ca_certs=ca.pem", "nothing is understood behind ?; with TLS the scheme is rediss://"),
        ("redis://host/0?db=1", "nothing is understood behind ?"),
        ("redis://host?sentinel_password=sesame", "nothing is understood behind ?"),
        ("rediss://host?ssl=sesame", "behind ? only these are understood: ssl_ca_certs=FILE, ssl_certfile=FILE, "),
        ("rediss://host?sesame", "behind ? only these are understood"),
        ("rediss://host?ssl_cert_reqs=none&ssl_cert_reqs=required", "behind ? only these are understood"),
        ("rediss://host?ssl_ca_certs=/no/sesame.pem", "ssl_ca_certs: there is no such file"),
        ("rediss+cluster://host?ssl_cert_reqs=sesame", "ssl_cert_reqs=required|none is right"),
        ("redis+sentinel://host/weir?sentinel_password=", "sentinel_password=PASSWORD is right"),
        ("redis+sentinel://host/weir?password=sesame", "sentinel_username=USER, sentinel_password=PASSWORD; with TLS"),
        ("rediss+sentinel://host?sentinel_password=sesame", "or redis+sentinel://HOST[:PORT],…/SERVICE"),
        ("redis://host#sesame", "redis://, rediss:// or redis+cluster://"),
    ],
)
def test_an_option_that_is_not_understood_is_refused(url, said):
    """Rather than ignored: who asks for TLS must not be without it."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({"WEIR_REDIS_URL": url})

    [problem] = refused.value.problems
    assert said in problem
    assert "sesame" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:secret@host/1?ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={file}",
        "rediss+cluster://a:1,b:2?ssl_check_hostname=false",
        "rediss+sentinel://a,b/weir/1?ssl_cert_reqs=none&sentinel_username=u&sentinel_password=p%26q",
        "redis+sentinel://a/weir?sentinel_password=p",
    ],
)
def test_options_that_are_understood_are_taken(url, tmp_path):
    """Wherever they make sense."""
    file = tmp_path / "ca.pem"
    file.touch()
    url = url.format(file=file)

    assert read_settings({"WEIR_REDIS_URL": url}).redis_url == url


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
            case b"EVAL":
                text = f"# Server\r\nredis_version:{self.version}\r\nredis_mode:standalone\r\n".encode()
                return b"$%d\r\n%b\r\n" % (len(text), text)
        return b"+OK\r\n"


@contextmanager
def listening(handler):
    """The port of a server that handles its connections so."""
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        serving_thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving_thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving_thread.join()


@pytest.mark.parametrize(
    ("name", "scheme", "user", "said"),
    [
        ("locked", "redis", "", "it refuses our user and password"),
        ("locked", "redis", ":wrong-horse@", "it refuses our user and password"),
        ("locked", "redis+cluster", "", "it refuses our user and password"),
        ("replica", "redis", "", "it is a replica"),
        ("cluster", "redis", "", "it is one node of a cluster: redis+cluster:// is right"),
        ("plain", "redis+cluster", "", "it is no cluster: redis:// is right"),
        ("plain", "redis+sentinel", "", "it is no sentinel: redis:// is right"),
    ],
)
async def test_what_is_wrong_with_one_that_will_never_do_is_told(servers, name, scheme, user, said):
    """And nothing of its address, which may have a password."""
    with pytest.raises(RedisUnfit) as refusal:
        await check_redis(address(servers, name, scheme, user))

    assert str(refusal.value).startswith(said)


def test_one_that_will_never_do_stops_the_start(servers):
    """Better than an instance that is alone for good."""
    url = address(servers, "locked", user=":wrong-horse@")

    for command, code in (("check", 1), ("serve", 2), ("keys list", 1)):
        done = weir(*command.split(), OPENAI_API_KEY=KEY, WEIR_REDIS_URL=url, OPENAI_BASE_URL="http://127.0.0.1:1")
        assert done.returncode == code
        assert "WEIR_REDIS_URL: it refuses our user and password" in f"{done.stdout} {done.stderr}"
        assert "horse" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "scheme", "user"),
    [("plain", "redis", ""), ("locked", "redis", ":correct-horse@"), ("cluster", "redis+cluster", "")],
)
async def test_one_that_will_do_tells_its_name_and_version(servers, name, scheme, user):
    """They matter to whoever asks for help."""
    assert re.fullmatch(r"(Redis|Valkey) \d+\.\d+\.\d+", await check_redis(address(servers, name, scheme, user)))


def test_check_tells_which_redis_it_is(servers, simulator):
    """And that the service can be served."""
    url = address(servers, "plain")

    done = weir("check", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.urls["openai"], WEIR_REDIS_URL=url)

    assert done.returncode == 0
    assert re.search(r"^  ok    (Redis|Valkey) \d", done.stdout, re.MULTILINE)


def test_check_fails_when_redis_does_not_answer(simulator):
    """A deployment can ask before it sends traffic."""
    url = f"redis+sentinel://127.0.0.1:{free_port()}/weir"

    done = weir("check", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.urls["openai"], WEIR_REDIS_URL=url)

    assert done.returncode == 1
    assert "its sentinels do not answer, or none of them names a primary for that service" in done.stdout


class Closing(StreamRequestHandler):
    """Hears what is asked, and hangs up."""

    def handle(self):
        self.rfile.readline()


class Web(StreamRequestHandler):
    """Whatever it is asked, that is no HTTP."""

    def handle(self):
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("kind", "scheme", "database", "said"),
    [
        ("plain", "redis", "/99", "it has no database of that number"),
        ("plain", "rediss", "", "it does not answer: perhaps it speaks no TLS"),
        (Web, "redis", "", "it is no Redis"),
        (Web, "rediss", "", "it speaks no TLS"),
        (Closing, "redis", "", "it closes the connection: perhaps it speaks TLS alone"),
        ("nobody", "redis", "", "it refuses the connection: nothing listens there"),
        ("nobody", "redis+cluster", "", "it refuses the connection: nothing listens there"),
    ],
)
async def test_why_there_is_no_redis_is_told(servers, kind, scheme, database, said):
    """As far as it can be seen from here."""
    with ExitStack() as stack:
        match kind:
            case "plain":
                port = servers["plain"].port
            case "nobody":
                port = free_port()
            case handler:
                port = stack.enter_context(listening(handler))
        with pytest.raises((RedisUnfit, RedisUnreachable), match=said):
            await check_redis(f"{scheme}://127.0.0.1:{port}{database}")


async def test_a_host_that_nobody_knows_is_told():
    with pytest.raises(RedisUnreachable, match="the name of its host is not known"):
        await check_redis("redis://redis.invalid")


@pytest.mark.parametrize("version", ["5.0.14", "6.1.240"])
async def test_one_that_is_too_old_will_not_do(version):
    """What its scripts and streams lack would only be found in the middle of an answer."""
    handler = type("Redis", (OldRedis,), {"version": version})
    with listening(handler) as port, pytest.raises(RedisUnfit, match=r"6\.2 or newer is needed"):
        await check_redis(f"redis://127.0.0.1:{port}")


async def test_one_that_does_not_answer_is_missed_and_not_needed(simulator):
    """The service starts, answers, says that it is degraded, and stays ready."""
    with serving(simulator, WEIR_REDIS_URL=f"redis://127.0.0.1:{free_port()}") as service:
        async with connected(service.url) as client:
            answer = await client.ask(STREAM, "anybody there?")
            assert answer.events[-1].type == "complete"

            health = (await client.send("GET", "/health")).json()
            assert (health["status"], health["checks"]["redis"]) == ("degraded", {"status": "degraded"})
            assert (await client.send("GET", "/health/ready")).status == 200


async def test_health_tells_of_the_redis_there_is(simulator, servers):
    """And of none when there is to be none."""
    for settings, said in (({"WEIR_REDIS_URL": servers["plain"].url}, {"status": "healthy"}), ({}, None)):
        with serving(simulator, **settings) as service:
            async with connected(service.url) as client:
                health = (await client.send("GET", "/health")).json()
                assert (health["status"], health["checks"].get("redis")) == ("healthy", said)


async def test_several_workers_are_one_service_with_redis(simulator, servers):
    """They share no memory."""
    with serving(simulator, "--workers", "2", WEIR_REDIS_URL=servers["plain"].url) as service:
        for _ in range(8):
            async with connected(service.url) as client:
                answer = await client.ask(STREAM, "one of two?")
                assert answer.events[-1].type == "complete"
    assert simulator.counters("openai")["calls"] == 1


async def test_an_instance_starts_without_redis_and_finds_it_later(simulator):
    """It says that it is degraded, and answers; when Redis comes, it says so, and is one of many."""
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
                server.until("*2\r\n", "KEYS", "weir:cache:response:*")
            finally:
                server.close()

    assert of_type(alone.events, "complete")
    assert of_type(shared.events, "complete")
