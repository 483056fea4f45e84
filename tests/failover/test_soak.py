"""Whatever goes wrong at once, every request ends whole or with one clear error, and nothing is left behind."""

import psutil
import pytest

from tests.app import metrics
from tests.failover.asking import CATALOGUE
from tests.failover.soaking import SETTINGS, soak
from tests.serving import serving

pytestmark = pytest.mark.anyio
SEED, COUNT = 20261123, 600


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, WEIR_CATALOGUE=CATALOGUE, **SETTINGS) as running:
        yield running


async def test_every_request_ends_whole_or_with_one_clear_error(client, failing_service):
    """None is cut, hung or answered twice; most are whole, though four calls of ten go wrong."""
    soaked = await soak(client, SEED, COUNT)

    assert soaked.wrong == []
    assert sum(soaked.endings.values()) == COUNT
    assert soaked.endings["whole"] > 0.8 * COUNT
    await nothing_is_left(client, failing_service)


async def nothing_is_left(client, service):
    """No stream, no call and no socket but those that are kept for the next calls; no defect was logged."""
    for provider in ("openai", "deepseek", "gemini"):
        await client.simulator.until(f"{provider}.live==0", timeout_s=20)
        client.simulator.control("POST", f"/providers/{provider}/off")
    await metrics.until(client, "sse_active_connections", lambda value: value == 0)
    ports = {int(url.rsplit(":", 1)[1].split("/")[0]) for url in client.simulator.urls.values()}
    workers = psutil.Process(service.process.pid).children(recursive=True)
    await metrics.until(client, "sse_active_connections", lambda _: not any(map(calls_to(ports), workers)))
    assert '"defect"' not in service.log()


def calls_to(ports):
    """Whether a process has a connection to one of these ports."""
    return lambda process: any(
        each.raddr and each.raddr.port in ports and each.status == psutil.CONN_ESTABLISHED
        for each in process.net_connections("inet")
    )
