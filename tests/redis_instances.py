"""What one instance has of Redis, for tests that need several instances on one server."""

import asyncio
from contextlib import asynccontextmanager

from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.subscriptions import Subscriptions
from tests.fakes import RememberedEvents

LINGER_S = 0.005


class Instance:
    """A client, and what is heard; `begun` is set whenever a subscription has begun."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.happened = RememberedEvents()
        redis = connect(url)
        self.client = RedisClient(redis.commands, linger_s=LINGER_S, publish=self.happened.publish)
        self.subscriptions = Subscriptions(redis.subscribe, self.happened.publish)
        self.events = FleetEvents(self.subscriptions)
        self.begun = asyncio.Event()

    async def start(self) -> None:
        """Messages are heard, and what was to be read when that began has been."""
        self.events.on_begin.append(self.begun.set)
        self.client.start()
        self.subscriptions.start()
        await self.heard_again()

    async def heard_again(self) -> None:
        """A subscription has begun, for good, and what was to be read then has been."""
        heard = asyncio.Event()
        self.events.hear("echo", lambda _: heard.set())
        async with asyncio.timeout(5):
            await self.begun.wait()
            await self.client.submit("PUBLISH", EVENTS, "echo")
            await heard.wait()
        await until(lambda: not self.client._sending and not self.client._waiting)

    async def close(self) -> None:
        await self.subscriptions.close()
        await self.client.close()


@asynccontextmanager
async def instance(url: str, name: str = "i"):
    """An instance that is not started yet; it is closed with the context."""
    each = Instance(url, name)
    try:
        yield each
    finally:
        await each.close()


async def until(condition, timeout_s: float = 5.0):
    """What `condition` returns, once that is true.

    Raises:
        TimeoutError: it is not within `timeout_s`.
    """
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):  # noqa: ASYNC110  # whatever it looks at may change at any step
            await asyncio.sleep(0)
    return found
