import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.redis_servers import RedisCluster, RedisServer
from tests.serving import serving
from tests.simulation import Simulation

settings.register_profile("weir", deadline=None)  # how long an example takes says nothing of whether it is right
settings.load_profile("weir")


def pytest_collection_modifyitems(items):
    """What takes as long as all the rest comes first."""
    items.sort(key=lambda item: item.path.parent.name != "fleet")


class Rooms(LoadScopeScheduling):
    """With several processes, each file stays in one, for what its tests share; so does all of tests/fleet, whose
    instances need the machine.

    Groups by marks would say the same, but the plugin does not see them with this pytest.
    """

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        return "tests/fleet" if path.startswith("tests/fleet/") else path


def pytest_xdist_make_scheduler(config, log):
    return Rooms(config, log)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def simulation():
    """The simulated providers, one process for all tests."""
    running = Simulation()
    yield running
    running.stop()


@pytest.fixture
def simulator(simulation):
    """The simulated providers as if nothing had been asked of them yet."""
    simulation.reset()
    return simulation


@pytest.fixture(scope="session")
def service(simulation):
    """The service with `tests.serving.SETTINGS`, one process for all tests; its end is part of the test."""
    with serving(simulation) as running:
        yield running


@pytest.fixture(scope="session")
def redis_session():
    """One Redis for all tests that do not end it."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis_server(redis_session):
    """That Redis, empty."""
    redis_session.flush()
    return redis_session


@pytest.fixture
def own_redis():
    """A Redis that the test may end."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def cluster_session():
    """A cluster of three for all tests."""
    cluster = RedisCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def redis_cluster(cluster_session):
    """That cluster, empty."""
    cluster_session.flush()
    return cluster_session
