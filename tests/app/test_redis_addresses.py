"""What is said of a Redis that cannot be used: by `weir check`, by `weir serve`, and by a service that runs."""

import os
import re
import subprocess
from contextlib import ExitStack

import pytest

from infrastructure.redis.checking import RedisUnfit, check_redis
from tests.app.asking import STREAM, connected
from tests.app.test_cli import KEY, WEIR, weir
from tests.redis_servers import RedisCluster, RedisServer, free_port
from tests.serving import serving

pytestmark = pytest.mark.anyio

NO_ANSWER = "it does not answer"


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
    return f"{scheme}://{user}127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("name", "scheme", "user", "said"),
    [
        ("locked", "redis", "", "it refuses our user and password"),
        ("locked", "redis", ":wrong-horse@", "it refuses our user and password"),
        ("locked", "redis+cluster", "", "it refuses our user and password"),
        ("replica", "redis", "", "it is a replica"),
        ("cluster", "redis", "", "it is one node of a cluster: redis+cluster:// is right"),
        ("plain", "redis+cluster", "", "it is no cluster: redis:// is right"),
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

    for command, code in (("check", 1), ("serve", 2)):
        done = weir(command, OPENAI_API_KEY=KEY, WEIR_REDIS_URL=url, OPENAI_BASE_URL="http://127.0.0.1:1")
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
    assert "  ok    Redis " in done.stdout


def test_check_fails_when_redis_does_not_answer(simulator):
    """A deployment can ask before it sends traffic."""
    url = f"redis+sentinel://127.0.0.1:{free_port()}/weir"

    done = weir("check", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.urls["openai"], WEIR_REDIS_URL=url)

    assert done.returncode == 1
    assert NO_ANSWER in done.stdout


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
    arguments = ("serve", "--port", "0", "--workers", "2")
    environ = os.environ | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.urls["openai"]}
    served = subprocess.Popen(  # noqa: ASYNC220  # it is started and left alone
        [WEIR, *arguments], env=environ | {"WEIR_REDIS_URL": servers["plain"].url}, stderr=subprocess.PIPE, text=True
    )
    try:
        url = served.stderr.readline().split()[-1]
        for _ in range(8):
            async with connected(url) as client:
                answer = await client.ask(STREAM, "one of two?")
                assert answer.events[-1].type == "complete"
    finally:
        served.terminate()
        served.communicate(timeout=20)
    assert simulator.counters("openai")["calls"] == 1
