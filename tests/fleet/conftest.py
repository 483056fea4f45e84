import pytest

from tests.fleet.instances import Fleet, fleet
from tests.redis_servers import RedisServer


@pytest.fixture(scope="package")
def redis_session():
    """One Redis for all tests of the fleet that do not end it: its instances write to it, whatever is tested."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="package")
def fleet_session(simulation, redis_session):
    """Three instances for all tests that do not end them; that they end well is part of the test."""
    with fleet(simulation, *[redis_session.url] * 3) as instances:
        yield instances


@pytest.fixture
def instances(fleet_session, simulator, redis_server):
    """Three instances, and simulated providers of which nothing was asked yet."""
    return fleet_session


@pytest.fixture(scope="package")
def faults_session(simulation):
    """Three instances to which anything may be done; that they end well after it is part of the test."""
    fleet = Fleet(simulation)
    yield fleet
    fleet.close()


@pytest.fixture
def three(faults_session, simulator):
    """A whole fleet, and simulated providers of which nothing was asked yet."""
    faults_session.replace_lost()
    return faults_session
