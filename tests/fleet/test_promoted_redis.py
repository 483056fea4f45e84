"""Sentinel promotes a replica while answers are being given."""

import signal

import pytest

from tests.fleet.checks import STREAMS, check_shared, check_whole, count_calls, until_whole
from tests.fleet.instances import fleet
from tests.fleet.readers import reading
from tests.redis_instances import until
from tests.redis_servers import RedisBehindSentinel

pytestmark = pytest.mark.anyio
TOKENS = 50
FOLLOWERS = 30


@pytest.fixture
def behind_sentinel():
    """A master and its replica, of which the test may end either."""
    servers = RedisBehindSentinel()
    yield servers
    servers.close()


async def test_no_stream_is_lost_when_a_replica_is_promoted(simulator, behind_sentinel):
    """The master stands still, which is worse than dead, and comes back when another has its place."""
    simulator.behave("openai", tokens=TOKENS, gap_s=0.2)
    with fleet(simulator, *[behind_sentinel.url] * 3) as instances:
        async with reading(instances, STREAMS, followers=FOLLOWERS) as readers:
            behind_sentinel.master.process.send_signal(signal.SIGSTOP)
            await until(behind_sentinel.is_promoted, limit_s=20)
            await until_whole(*instances)
            behind_sentinel.master.process.send_signal(signal.SIGCONT)
        check_whole(readers, TOKENS)
        assert count_calls(simulator) <= STREAMS + FOLLOWERS
        await check_shared(simulator, instances)
