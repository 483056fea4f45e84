"""One user's limit is one limit, however many instances it asks, and whatever becomes of them."""

import asyncio
import time

import aiohttp
import pytest
from redis import Redis

from tests.app import metrics
from tests.app.asking import STREAM, body_for, connected
from tests.fleet.checks import until_whole
from tests.fleet.instances import fleet

pytestmark = pytest.mark.anyio
WINDOWS = 3


class Hammer:
    """One user that asks all instances all the time. `admitted` are when each such request began and was answered."""

    def __init__(self, instances, until_s):
        self.instances, self.until_s = instances, until_s
        self.admitted, self.refused_count = [], 0

    async def run(self, askers=2):
        """Until the time has come; then all have ended."""
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as all_,
        ):
            for instance in self.instances * askers:
                all_.create_task(self._ask_on(session, instance))

    async def _ask_on(self, session, instance):
        while time.monotonic() < self.until_s and instance.is_alive:
            began_s = time.monotonic()
            try:
                async with session.post(instance.url + STREAM, json=body_for(STREAM)) as response:
                    answered_s = time.monotonic()
                    await response.read()
            except aiohttp.ClientError:
                assert not instance.is_alive
                return
            assert response.status in {200, 429}, await response.text()
            if response.status == 200:
                self.admitted.append((began_s, answered_s))
            else:
                self.refused_count += 1
                assert int(response.headers["retry-after"]) >= 1
                await asyncio.sleep(0.02)

    def most_over(self, rate_per_s, amount):
        """By how much more was admitted between a request's start and another's answer than may be in that time.

        Each was admitted between its start and its answer, so all that began and were answered in a time were in it.
        """
        return max(
            count - amount - (ended_s - began_s) * rate_per_s
            for began_s, _ in self.admitted
            for count, ended_s in enumerate(sorted(end for one, end in self.admitted if one >= began_s), 1)
        )


@pytest.mark.parametrize(("amount", "per_s", "notation"), [(20, 1, "20/second"), (120, 3, "120 per 3 seconds")])
async def test_five_instances_admit_what_one_would_though_one_is_killed(
    simulator, redis_server, amount, per_s, notation
):
    """Never more than the amount and what came back, and most of it; perf/limits.py says how much."""
    simulator.behave("openai", tokens=1)
    with fleet(simulator, *[redis_server.url] * 5, WEIR_RATE_ANONYMOUS=notation) as instances:
        began_s = time.monotonic()
        hammer = Hammer(instances, began_s + WINDOWS * per_s)
        hammering = asyncio.create_task(hammer.run())
        while len(hammer.admitted) < 2 * amount:  # noqa: ASYNC110  # what happens on five instances is waited for
            await asyncio.sleep(0.005)
        instances[0].kill()
        await hammering

    assert hammer.refused_count > 0
    assert hammer.most_over(amount / per_s, amount) <= 0
    assert len(hammer.admitted) >= 0.8 * (amount + WINDOWS * amount)


async def all_know_each_other(redis, number):
    """Each of so many instances has counted all."""
    met = {}
    while len(met) < number:
        met = await beats(redis)
    while not all(beat > max(met.values()) for beat in (await beats(redis)).values()):
        pass


async def beats(redis):
    """When each instance was last heard of."""
    await asyncio.sleep(0.02)
    return dict(redis.zrange("weir:instances", 0, -1, withscores=True))


async def statuses_of(instance, number):
    async with connected(instance.url) as client:
        return [(await client.ask(STREAM)).status for _ in range(number)]


async def test_while_redis_is_away_all_together_admit_no_more_than_the_limit(simulator, own_redis):
    """Each has its share. Redis comes back empty, and is told what was spent."""
    with fleet(simulator, *[own_redis.url] * 3, WEIR_RATE_ANONYMOUS="9/hour") as instances:
        with Redis(port=own_redis.port) as redis:
            await all_know_each_other(redis, 3)
        own_redis.stop()
        away = [await statuses_of(instance, 5) for instance in instances]
        own_redis.start()
        await until_whole(*instances)
        back = [await statuses_of(instance, 5) for instance in instances]

    assert [statuses.count(200) for statuses in away] == [3, 3, 3]
    assert [statuses.count(200) for statuses in back] == [0, 0, 0]


async def test_instances_that_start_without_redis_do_not_each_have_the_limit(simulator, own_redis):
    """Each takes itself for one of ten."""
    own_redis.stop()
    with fleet(simulator, *[own_redis.url] * 2, WEIR_RATE_ANONYMOUS="50/second") as instances:
        began_s = time.monotonic()
        hammer = Hammer(instances, began_s + 2.0)
        await hammer.run(1)

    assert 0 < len(hammer.admitted) <= 2 * (5 + (time.monotonic() - began_s) * 5)


async def test_a_crowd_of_addresses_leaves_each_its_own_limit(simulator, redis_server):
    """And which way a check went is counted."""
    with fleet(simulator, *[redis_server.url] * 2, WEIR_RATE_ANONYMOUS="2/minute") as instances:
        for number in range(2, 6):
            statuses = []
            for instance in instances:
                async with connected(instance.url, f"127.0.0.{number}") as client:
                    statuses += [(await client.ask(STREAM)).status for _ in range(2)]
            assert statuses == [200, 200, 429, 429]
        async with connected(instances[1].url) as client:
            name = "sse_rate_limit_checks_total"
            checks = [await metrics.total(client, name, path=path) for path in ("redis", "local")]
            exceeded = await metrics.total(client, "sse_rate_limit_exceeded_total", tier="anonymous")

    assert checks == [4, 4]
    assert exceeded == 8
