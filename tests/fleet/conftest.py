import pytest

from tests.fleet.instances import Fleet
from tests.redis_servers import RedisServer


@pytest.fixture(scope="session")
def fleet_session(simulation):
    """Three instances for all tests; that they end well, after all that was done to them, is part of the test."""
    fleet = Fleet(simulation)
    yield fleet
    fleet.close()


@pytest.fixture
def three(fleet_session, simulator):
    """A whole fleet, and simulated providers of which nothing was asked yet."""
    fleet_session.replace_lost()
    return fleet_session


@pytest.fixture
def instances(three):
    """The three instances of that fleet, with a Redis that holds no answers."""
    three.redis.flush()
    return three.instances


@pytest.fixture
def own_redis():
    """A Redis that the test may end."""
    server = RedisServer()
    yield server
    server.close()
