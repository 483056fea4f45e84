"""What one instance has of Redis, without the rest of the service; several of them are a fleet in one process."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

from domain.caching import Purges
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.generation_log import RedisGenerationLog
from infrastructure.redis.liveness import Liveness
from infrastructure.redis.response_cache import RedisResponseCache
from infrastructure.redis.subscriptions import Subscriptions
from tests.fakes import RememberedEvents
from tests.loops import settle

TTL_S = 60.0


class RedisInstance:
    """The adapters over the Redis at `url`. `taken` are the leases that it took over, `stopped` what it was to stop.

    `begun` is set whenever it has begun to hear of what happens.
    """

    def __init__(self, url, name, unix_now=time.time, linger_s=0.001):
        self.name = name
        self.events = RememberedEvents()
        publish = self.events.publish
        redises = connect(url)
        self.client = RedisClient(redises.commands, linger_s=linger_s, publish=publish)
        self.subscriptions = Subscriptions(redises.subscribe, publish)
        self.fleet_events = FleetEvents(self.subscriptions)
        self.begun = asyncio.Event()
        self.fleet_events.on_begin.append(self.begun.set)
        self.purges = Purges(TTL_S)
        self.generations = Generations(max_entries=1000, max_bytes=10**8, ttl_s=TTL_S, clock=time.monotonic)
        self.log = RedisGenerationLog(
            client=self.client,
            subscriptions=self.subscriptions,
            generations=self.generations,
            instance_id=name,
            lease_s=60.0,
            keep_s=TTL_S,
            purges=self.purges,
            publish=publish,
        )
        self.liveness = Liveness(client=self.client, log=self.log, instance_id=name, publish=publish)
        self.cache = RedisResponseCache(
            client=self.client, ttl_s=TTL_S, purges=self.purges, publish=publish, unix_now=unix_now
        )
        self.taken, self.requests, self.stopped = [], [], []
        self.log.took_over = self._took_over
        self.log.asked_to_stop = self.stopped.append

    def _took_over(self, lease, request):
        self.taken.append(lease)
        self.requests.append(request)

    async def listen(self):
        """It hears of what happens: one that is closed while it connects leaves a socket to the garbage collector."""
        self.subscriptions.start()
        await self.heard_again()

    async def heard_again(self):
        """It hears, since `begun` was cleared, and what was to be read then has been."""
        heard = asyncio.Event()
        self.fleet_events.hear("echo", lambda _: heard.set())
        async with asyncio.timeout(10):
            await self.begun.wait()
            await self.client.submit("PUBLISH", EVENTS, "echo")
            await heard.wait()
        await until(lambda: not self.client._sending and not self.client._waiting)

    async def take_over(self, generation_id):
        """The lease of what another instance led; None: it could not be had."""
        taken_count = len(self.taken)
        known = self.log._roll.get(generation_id)
        if known is not None:
            await self.log.take_over(known, is_cut_off=False)
        return self.taken[-1] if len(self.taken) > taken_count else None

    @asynccontextmanager
    async def running(self, *, is_beating=False):
        """It hears of what happens, and with `is_beating` says that it lives and takes over."""
        await self.listen()
        if is_beating:
            self.liveness.start()
        try:
            yield self
        finally:
            await self.subscriptions.close()
            if is_beating:
                await self.liveness.close()
            await self.client.close()
            await settle()  # a connection that is closed gives its socket back a turn of the loop later


@asynccontextmanager
async def redis_instances(url, *names, is_beating=False, linger_s=0.001):
    """Several instances, for the time of the context."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(RedisInstance(url, name, linger_s=linger_s).running(is_beating=is_beating))
            for name in names
        ]


async def until(condition, limit_s=5.0):
    """Return once `condition` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in Redis
            await asyncio.sleep(0.002)
