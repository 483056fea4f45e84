import pytest

from tests.app.asking import connected
from tests.failover.asking import close_circuits


@pytest.fixture
async def client(failing_service, simulator):
    """A client of the module's own service, of whose providers nothing was asked yet."""
    async with connected(failing_service.url) as each:
        each.simulator = simulator
        await close_circuits(each)
        yield each
