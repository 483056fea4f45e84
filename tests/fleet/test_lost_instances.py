"""An instance dies or stands still: another goes on with what it led, and no client loses or repeats anything."""

import asyncio

import pytest

from tests.fleet.instances import fleet
from tests.fleet.readers import reading

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("number", "tokens", "gap_s"), [(60, 100, 0.04), (300, 60, 0.12)])
async def test_no_stream_is_lost_when_an_instance_is_killed(simulator, redis_session, number, tokens, gap_s):
    """Its readers come back elsewhere, and each answer it was getting is asked on once."""
    simulator.behave("openai", tokens=tokens, gap_s=gap_s)
    with fleet(simulator, *[redis_session.url] * 3) as instances:
        async with reading(instances, number) as readers:
            led = [reader for reader in readers if reader.at == 0]
            instances[0].kill()

    for reader in readers:
        reader.check(tokens)
    assert simulator.counters("openai")["calls"] <= number + len(led)


async def test_a_leader_that_wakes_up_is_refused(simulator, redis_session):
    """It stood still for ten seconds; who stayed with it reads on what its successor wrote."""
    tokens = 150
    simulator.behave("openai", tokens=tokens, gap_s=0.08)
    with fleet(simulator, *[redis_session.url] * 3) as instances:
        async with reading(instances, 45) as readers:
            led = [reader for reader in readers if reader.at == 0]
            for reader in led[::3]:
                reader.silence_s = 20.0
            instances[0].pause()
            await asyncio.sleep(10)
            instances[0].resume()

    for reader in readers:
        reader.check(tokens)
    assert simulator.counters("openai")["calls"] <= len(readers) + len(led)
