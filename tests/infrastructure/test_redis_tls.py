"""Redis over TLS, in each of its shapes, and what is said when it will not do."""

import gc
import warnings
from contextlib import ExitStack

import pytest
from cryptography import x509

from domain.chat import Chunk
from domain.events import ComponentChanged
from domain.generation import Sealed, State
from infrastructure.redis.checking import RedisUnfit, check_redis
from infrastructure.redis.client import RedisAway
from infrastructure.telemetry.health import Health
from tests.contracts.test_generation_log import QUESTION, opened
from tests.redis_instances import RedisInstance, redis_instances, until
from tests.redis_servers import RedisServer, free_port
from tests.secure_redis import SecureCluster, SecureRedis, SecureSentinel, certificate

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]
SHAPES = ("server", "sentinel", "cluster")
PASSWORD = f"sentinel_password={SecureSentinel.password}"


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """The certificate of all but one of the servers, which nobody has signed but itself."""
    return certificate(tmp_path_factory.mktemp("tls") / "redis.pem")


@pytest.fixture(scope="module", autouse=True)
def _nothing_left():
    """What the library left is collected here, and is not taken for another module's."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def servers(pem):
    """A server, one whose certificate is for another host, one behind a sentinel, and a cluster."""
    with ExitStack() as stack:
        other = certificate(pem.with_name("other.pem"), x509.DNSName("redis.example"))
        running = {
            "server": SecureRedis(pem),
            "other": SecureRedis(other),
            "sentinel": SecureSentinel(pem),
            "cluster": SecureCluster(pem),
        }
        for server in running.values():
            stack.callback(server.close)
        yield running


def address(servers, shape, *options):
    """The address of that one, with what its sentinels want to know."""
    given = [*options, *([PASSWORD] if shape == "sentinel" else [])]
    return servers[shape].url + ("?" + "&".join(given) if given else "")


@pytest.mark.parametrize("shape", SHAPES)
async def test_instances_meet_over_tls(servers, pem, shape):
    """Commands and messages, to every server and sentinel there is."""
    url = address(servers, shape, f"ssl_ca_certs={pem}")
    assert await check_redis(url)
    async with redis_instances(url, "one", "two") as [one, two]:
        claim = await one.log.claim(opened(f"g-{shape}", shape), QUESTION)
        followed = await two.log.under_way(shape)
        for record in (Chunk("x"), Sealed(state=State.DONE)):
            await one.log.append(claim.lease, record)
        await until(lambda: followed.sealed is not None)

        assert followed.records == claim.generation.records
        assert not one.events.of(ComponentChanged)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_certificate_that_nobody_trusts_is_told_as_that(servers, shape):
    """It is another mistake than an address where nobody is."""
    with pytest.raises(RedisUnfit, match="its certificate is not trusted"):
        await check_redis(address(servers, shape))


async def test_a_certificate_for_another_host_is_told_as_that(servers, pem):
    """And nothing of the address; it will do when names are not compared, or certificates are not."""
    trusted = f"ssl_ca_certs={pem.with_name('other.pem')}"
    with pytest.raises(RedisUnfit, match="its certificate is not for the name or address") as refusal:
        await check_redis(address(servers, "other", trusted))

    assert "127.0.0.1" not in str(refusal.value)
    assert await check_redis(address(servers, "other", trusted, "ssl_check_hostname=false"))
    assert await check_redis(address(servers, "other", "ssl_cert_reqs=none"))


@pytest.mark.parametrize("password", ["", "&sentinel_password=wrong"])
async def test_sentinels_that_want_a_password_of_their_own_are_told(servers, pem, password):
    """That of the servers is another one."""
    with pytest.raises(RedisUnfit, match="its sentinels refuse our user and password"):
        await check_redis(f"{servers['sentinel'].url}?ssl_ca_certs={pem}{password}")


async def test_health_tells_why_redis_will_not_do(servers):
    """A certificate that is renewed by another authority is no outage."""
    instance = RedisInstance(address(servers, "server"), "i")
    health = Health(events=instance.events, providers=(), can_try=bool, cache_size=dict, components=("redis",))
    with pytest.raises(RedisAway):
        await instance.client.submit("PING")
    await instance.client.close()

    check = health.checks()["redis"]
    assert check["status"] == "degraded"
    assert check["reason"].startswith("its certificate is not trusted")


async def test_why_it_will_not_do_is_told_once_it_is_known():
    """A server that comes back with another password did not answer at first."""
    port = free_port()
    instance = RedisInstance(f"redis://127.0.0.1:{port}", "i")
    with pytest.raises(RedisAway):
        await instance.client.submit("PING")
    server = RedisServer("--requirepass", "sesame", port=port)
    try:
        await until(lambda: len(instance.events.of(ComponentChanged)) > 1)
    finally:
        await instance.client.close()
        server.close()

    reasons = [event.reason for event in instance.events.of(ComponentChanged)]
    assert reasons[0] is None
    assert reasons[1].startswith("it refuses our user and password")
