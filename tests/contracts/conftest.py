import pytest

from tests.redis_servers import RedisCluster


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
