"""Whatever goes wrong at once, every request ends whole or with one clear error, and nothing is left behind."""

import pytest

from tests.failover.asking import CATALOGUE
from tests.failover.soaking import SETTINGS, Left, left, soak, tasks_at_rest
from tests.serving import serving

pytestmark = pytest.mark.anyio
SEED, COUNT = 20261123, 600


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, WEIR_CATALOGUE=CATALOGUE, **SETTINGS) as running:
        yield running


async def test_every_request_ends_whole_or_with_one_clear_error(client, failing_service):
    """None is cut, hung or answered twice; most are whole, though four calls of ten go wrong."""
    tasks = await tasks_at_rest(client)

    soaked = await soak(client, SEED, COUNT)

    assert soaked.wrong == []
    assert sum(soaked.endings.values()) == COUNT
    assert soaked.endings["whole"] > 0.8 * COUNT
    assert await left(client, failing_service, tasks) == Left(streams=0, calls=0, tasks=0, sockets=0)
    assert '"defect"' not in failing_service.log()
