"""A limiter over a real Redis, for which time passes when told to."""

import asyncio

from infrastructure.redis.client import RedisClient
from infrastructure.redis.connection import connect
from infrastructure.redis.rate_limiter import RedisRateLimiter, bucket_key
from infrastructure.redis.scripting import Script
from tests.fakes import FakeClock, RememberedEvents

_AGE = Script("""
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    local name, value = stored[i], stored[i + 1]
    if name == 'at' then
        redis.call('HSET', KEYS[1], name, string.format('%.0f', value - ARGV[1]))
    elseif name ~= 'tokens' then
        local number, out, until_us, rest = string.match(value, '(%d+) (%d+) (%d+) (.*)')
        local aged = string.format('%.0f', until_us - ARGV[1])
        redis.call('HSET', KEYS[1], name, table.concat({number, out, aged, rest}, ' '))
    end
end
""")
"""KEYS bucket; ARGV microseconds: all that it holds is so much older."""


class RedisLimiter:
    """One instance's limiter over the Redis at `url`."""

    path = "redis"

    def __init__(self, url, *, rates, instance_id="one", clock=None, count=1, **how):
        self.clock, self.events, self.instance_count = clock or FakeClock(), RememberedEvents(), count
        self.client = RedisClient(connect(url).commands, linger_s=0.0, publish=self.events.publish)
        self.limiter = RedisRateLimiter(
            rates=rates,
            client=self.client,
            instance_id=instance_id,
            instance_count=lambda: self.instance_count,
            publish=self.events.publish,
            clock=self.clock,
            **how,
        )

    async def advance(self, by_s):
        """So much time has passed, here and for every bucket that is known here."""
        self.clock.advance(by_s)
        for held in self.limiter._held.values():
            key = bucket_key(held.name[0], held.rate)
            await self.client.submit_script(_AGE, (key,), int(by_s * 1_000_000))

    async def told(self):
        """Nothing is being asked any more."""
        while asking := [held.asking for held in self.limiter._held.values() if held.asking]:
            await asyncio.wait(asking)

    async def close(self):
        await self.limiter.close()
        await self.client.close()
