"""An instance dies or stands still: another goes on with what it led, and no client loses or repeats anything."""

import asyncio

import pytest

from tests.fleet.checks import STREAMS, check_shared, check_whole, count_calls
from tests.fleet.readers import reading

pytestmark = pytest.mark.anyio


async def test_no_stream_is_lost_when_an_instance_is_killed(three, simulator):
    """Its readers come back elsewhere, and each answer it was giving is asked on once."""
    simulator.behave("openai", tokens=80, gap_s=0.12)
    async with reading(three.instances, STREAMS, followers=30) as readers:
        led = {reader.query for reader in readers[:STREAMS] if reader.at == 0}
        three.instances[0].kill()

    check_whole(readers, 80)
    assert count_calls(simulator) <= STREAMS + len(led)


async def test_a_leader_that_wakes_up_is_refused(three, simulator):
    """It stood still for ten seconds; who stayed with it reads on what its successor wrote."""
    simulator.behave("openai", tokens=100, gap_s=0.16)
    async with reading(three.instances, STREAMS, followers=30) as readers:
        led = [reader for reader in readers[:STREAMS] if reader.at == 0]
        for reader in led[::3]:
            reader.silence_s = 30.0
        three.instances[0].pause()
        await asyncio.sleep(10)
        three.instances[0].resume()

    check_whole(readers, 100)
    assert count_calls(simulator) <= STREAMS + len(led)
    await check_shared(simulator, three.instances)
