"""Limiters of several instances over one Redis, in this process: what they cost, and how exact they are."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from domain.admission import Slots
from domain.chat import Caller
from domain.concurrency import ProviderSlots
from domain.errors import RateLimited
from domain.events import Events, RateChecked
from domain.limiting import Rate
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.rate_limiter import RedisRateLimiter
from infrastructure.telemetry.metrics import PrometheusMetrics
from perf.figures import Figure
from perf.redis_server import Redis, redis

_SCENARIO = "limits"
_HUGE = Rate(amount=1_000_000_000, per_s=60.0)
_WINDOW_S = 2.0
_WINDOWS = 3


class Instance:
    """One instance's limiter, and by which way its checks went."""

    def __init__(self, url: str, name: str, count: int) -> None:
        events = Events()
        self.paths: Counter[str] = Counter()
        slots = Slots(limit=1, limit_per_user=1, clock=time.monotonic)
        self.metrics = PrometheusMetrics(
            events=events, providers=(), slots=slots, calls=ProviderSlots({}), task_count=lambda: 0, version="0"
        )
        events.subscribe(RateChecked, lambda event: self.paths.update((event.path,)))
        self.client = RedisClient(connect(url).commands, linger_s=0.005, publish=events.publish)
        self.limiter = RedisRateLimiter(
            rates={},
            client=self.client,
            instance_id=name,
            instance_count=lambda: count,
            publish=events.publish,
            clock=time.monotonic,
        )

    async def is_admitted(self, caller: Caller) -> bool:
        """Whether one request was."""
        try:
            await self.limiter.spend(caller)
        except RateLimited:
            return False
        return True


@asynccontextmanager
async def _instances(server: Redis, count: int) -> AsyncIterator[list[Instance]]:
    instances = [Instance(server.url, f"{time.monotonic()}-{at}", count) for at in range(count)]
    try:
        yield instances
    finally:
        for each in instances:
            await each.limiter.close()
            await each.client.close()


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """A held check's CPU, the share of checks that ask nobody, and how near to the limit five instances come."""
    with redis() as server:
        cpu_us = asyncio.run(_held_check_us(server, 20_000 if is_quick else 200_000))
        yield _figure("CPU of a check against a held lease", cpu_us, "µs", at_most=5.0)
        seconds = 3.0 if is_quick else 15.0
        for name, rate in (("within", Rate(amount=1800, per_s=60.0)), ("over", Rate(amount=1000, per_s=60.0))):
            share = asyncio.run(_local_share(server, rate, seconds))
            yield _figure(f"2,000 checks/s, 100 users {name} their limit, 3 instances: local", share, at_least=0.8)
        for amount in (20, 300):
            for is_killed in (False, True):
                admitted_s = asyncio.run(_hammer(server, Rate(amount=amount, per_s=_WINDOW_S), is_killed=is_killed))
                of = f"{amount} in {_WINDOW_S:g} s on 5 instances{', one killed' if is_killed else ''}"
                yield _figure(f"{of}: busiest window, of limit and burst", _busiest(admitted_s, amount), at_most=1)
                share = len(admitted_s) / (amount * (_WINDOWS + 1))
                yield _figure(f"{of}: admitted, share of what may be", share, at_least=0.95)


def _figure(name: str, value: float, unit: str = "", **bounds: float) -> Figure:
    return Figure(scenario=_SCENARIO, name=name, value=value, unit=unit, **bounds)


async def _held_check_us(server: Redis, checks: int) -> float:
    caller = Caller(user="held", rate=_HUGE)
    async with _instances(server, 1) as [one]:
        for _ in range(checks):
            await one.limiter.spend(caller)
        await asyncio.sleep(0.3)
        one.paths.clear()
        began_s = time.process_time()
        for _ in range(checks):
            await one.limiter.spend(caller)
        cpu_s = time.process_time() - began_s
        assert one.paths["redis"] <= checks / 1000
    return cpu_s / checks * 1e6


async def _local_share(server: Redis, rate: Rate, for_s: float) -> float:
    """Users by turns, each at all instances by turns, as a load balancer would have it."""
    callers = [Caller(user=f"{rate.amount}-{number}", rate=rate) for number in range(100)]
    async with _instances(server, 3) as instances:
        began_s, number, running = time.monotonic(), 0, set()
        while (passed_s := time.monotonic() - began_s) < for_s:
            while number < passed_s * 2000:
                one, caller = instances[(number // 100 + number) % 3], callers[number % 100]
                running.add(task := asyncio.create_task(one.is_admitted(caller)))
                task.add_done_callback(running.discard)
                number += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*running)
        paths = sum((each.paths for each in instances), Counter())
    return paths["local"] / paths.total()


async def _hammer(server: Redis, rate: Rate, *, is_killed: bool) -> list[float]:
    """When requests were admitted in three windows, and the burst before them."""
    caller, admitted_s = Caller(user=f"hammered {time.monotonic()}", rate=rate), []
    began_s = time.monotonic()

    async def ask_on(one: Instance, until_s: float) -> None:
        while time.monotonic() < until_s:
            if await one.is_admitted(caller):
                admitted_s.append(time.monotonic())
            await asyncio.sleep(0.002)
        one.client.is_away = is_killed and one is instances[0]  # what it holds it cannot give back

    async with _instances(server, 5) as instances:
        ends_s = [began_s + _WINDOWS * rate.per_s] * 5
        if is_killed:
            ends_s[0] = began_s + rate.per_s / 2
        await asyncio.gather(*map(ask_on, instances, ends_s))
    return admitted_s


def _busiest(admitted_s: list[float], amount: int) -> float:
    most = max(sum(began_s <= each <= began_s + _WINDOW_S for each in admitted_s) for began_s in admitted_s)
    return most / (2 * amount)
