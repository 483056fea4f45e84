import pytest

from tests.app.asking import connected


@pytest.fixture
async def client(service, simulator):
    """A client of the service, and simulated providers of which nothing was asked yet."""
    async with connected(service.url) as each:
        each.simulator = simulator
        yield each
