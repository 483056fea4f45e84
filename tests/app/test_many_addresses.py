"""Any number of addresses, each of which asks once: what is remembered of them is bounded."""

import psutil

from domain.addresses import client_address
from domain.admission import Slots
from domain.callers import Callers
from domain.limiting import Rate
from domain.sessions import SessionBounds
from domain.spending import Spending
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from infrastructure.memory.session_store import MemorySessionStore
from infrastructure.memory.usage_limiter import MemoryUsageLimiter
from tests.domain.service import QUESTION, B
from tests.fakes import FakeClock
from tests.loops import run

MANY, MORE = 150_000, 100_000
"""With the first all has reached its bounds: they take 60 MiB. Without bounds the others would take 50 more."""
MIB = 1024 * 1024
CONVERSATIONS = 1000


class Remembering:
    """All that remembers callers, as the embedded default has it."""

    def __init__(self):
        clock = FakeClock()
        self.callers = Callers(store=None, is_required=False, unix_now=clock)
        self.slots = Slots(limit=10, limit_per_user=3, clock=clock)
        self.sessions = MemorySessionStore(
            bounds=SessionBounds(max_messages=6, max_bytes=4096, ttl_s=64.0),
            begun_s=64.0,
            max_sessions=CONVERSATIONS,
            unix_now=clock,
        )
        self.spending = Spending(
            MemoryRateLimiter(rates={"anonymous": Rate(amount=10, per_s=60.0)}, publish=lambda _: None, clock=clock),
            MemoryUsageLimiter(tiers={"anonymous": 10_000}, clock=clock, unix_now=clock),
        )

    async def asked_from(self, number):
        """The number-th network asks, and every hundredth begins a conversation."""
        address = client_address(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", (), ())
        caller = await self.callers.caller(None, address)
        slot = await self.slots.take(caller.user)
        await self.spending.begin(caller, QUESTION, [B])
        if number % 100 == 0:
            await self.sessions.begin(f"{caller.user}/s")
        slot.release()


def test_what_is_remembered_of_many_addresses_is_bounded():
    """Whoever has an IPv6 network of 44 bits has a million; none of them waits for another's memory."""

    async def asked():
        remembering, process = Remembering(), psutil.Process()
        taken = [process.memory_info().rss]
        for numbers in (range(MANY), range(MANY, MANY + MORE)):
            for number in numbers:
                await remembering.asked_from(number)
            taken.append(process.memory_info().rss)
        return taken, remembering.slots, len(remembering.sessions)

    (before, after_many, after_more), slots, conversations = run(asked())

    assert after_many - before <= 128 * MIB
    assert after_more - after_many <= 24 * MIB
    assert (slots.taken_count, slots._counts, conversations) == (0, {}, CONVERSATIONS)
