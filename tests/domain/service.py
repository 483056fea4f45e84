"""The lifecycle with everything around it in memory, and one question to ask it."""

import asyncio
import random
from dataclasses import replace
from itertools import count

from domain.admission import Slots
from domain.answer import CacheStatus
from domain.breaker import BreakerPolicy
from domain.caching import Purges, parse_cache_control
from domain.calls import Calls, Deadlines
from domain.chat import Caller, ChatRequest, Chunk
from domain.concurrency import ProviderSlots
from domain.failover import Failover
from domain.fingerprint import CacheScope
from domain.generation import Sealed
from domain.leading import Leaders
from domain.lifecycle import Ask, Lifecycle, Policy
from domain.limiting import Rate
from domain.retrying import RetryBudgets, RetryPolicy
from domain.routing import Routing
from domain.selection import Model, Route
from domain.sessions import Conversations, SessionBounds
from domain.spending import Spending
from domain.tracking import Tracker
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.generations import Generations
from infrastructure.memory.rate_limiter import MemoryRateLimiter
from infrastructure.memory.response_cache import MemoryResponseCache
from infrastructure.memory.session_store import MemorySessionStore
from infrastructure.memory.usage_limiter import MemoryUsageLimiter
from tests.fakes import FakeCircuitBreakers, RememberedEvents, ScriptedProvider
from tests.loops import settle

GRACE_S = 4.0
TTL_S = 512.0
LIMIT = 300
QUEUE_TIMEOUT_S = 8.0
STOP = Chunk(finish_reason="stop")
WHOLE = (Chunk("x"), Chunk("y"), STOP)
ANN = Caller(user="ann", tenant="acme", tier="standard")
QUESTION = ChatRequest(model="m", messages=({"role": "user", "content": "?"},))


class Service:
    """A lifecycle over one model with the routes a and b; `provider` is a's, and plays `scripts`."""

    def __init__(
        self,
        *scripts,
        scope=CacheScope.SHARED,
        rate=None,
        tokens_per_minute=0,
        limit=LIMIT,
        limit_per_user=0,
        queue_size=0,
        continues=True,
        max_concurrency=None,
        grace_s=GRACE_S,
        log_kind=MemoryGenerationLog,
    ):
        self.loop = asyncio.get_running_loop()
        clock = self.loop.time
        self.provider = ScriptedProvider(*(scripts or (WHOLE,)))
        self.spare = ScriptedProvider(WHOLE)
        self.events = RememberedEvents()
        publish = self.events.publish
        self.breakers = FakeCircuitBreakers(
            policy=BreakerPolicy(failures=1, window=1, open_s=1024.0), publish=publish, clock=clock
        )
        memory = {"max_entries": 100, "max_bytes": 10**6, "ttl_s": TTL_S}
        self.purges = Purges(TTL_S)
        self.l1 = MemoryResponseCache(**memory, purges=self.purges, unix_now=clock)
        self.l2 = MemoryResponseCache(**memory, purges=self.purges, unix_now=clock)
        self.log = log_kind(Generations(**memory, clock=clock))
        self.sessions = MemorySessionStore(
            bounds=SessionBounds(max_messages=6, max_bytes=4096, ttl_s=TTL_S),
            begun_s=512.0,
            max_sessions=100,
            unix_now=clock,
        )
        self.limiter = MemoryRateLimiter(rates={"standard": rate} if rate else {}, publish=publish, clock=clock)
        self.usage = MemoryUsageLimiter(tiers={"standard": tokens_per_minute}, clock=clock, unix_now=clock)
        self.spending = Spending(self.limiter, self.usage)
        self.slots = Slots(
            limit=limit,
            limit_per_user=limit_per_user,
            queue_size=queue_size,
            queue_timeout_s=QUEUE_TIMEOUT_S,
            clock=clock,
        )
        self.provider_slots = ProviderSlots({"a": max_concurrency, "b": max_concurrency})
        budgets = RetryBudgets(0.2, clock)
        self.leaders = Leaders(
            log=self.log,
            failover=Failover(
                calls=Calls(
                    providers={"a": self.provider, "b": self.spare},
                    breakers=self.breakers,
                    deadlines=Deadlines(first_token_s=64.0, stall_s=64.0),
                    publish=publish,
                    slots=self.provider_slots,
                    budgets=budgets,
                ),
                breakers=self.breakers,
                budgets=budgets,
                total_s=256.0,
                continues=continues,
                retry=RetryPolicy(attempts=1),
                delays=lambda: iter((1.0,)),
                publish=publish,
            ),
            caches=[self.l1, self.l2],
            publish=publish,
            clock=clock,
            unix_now=clock,
            grace_s=grace_s,
        )
        ids, turns = count(), count()
        self.conversations = Conversations(
            store=self.sessions, log=self.log, publish=publish, new_id=lambda: f"t{next(turns)}", limit_s=512.0
        )
        self.lifecycle = Lifecycle(
            policy=Policy(
                models={"m": Model(name="m", routes=(Route(provider="a", model="a-1", usd_per_mtok_out=1.0), B))},
                ttl_s=TTL_S,
                scope=scope,
            ),
            slots=self.slots,
            tiers=[(CacheStatus.L1, self.l1), (CacheStatus.L2, self.l2)],
            log=self.log,
            spending=self.spending,
            routing=Routing(breakers=self.breakers, slots=self.provider_slots, random=random.random),
            leaders=self.leaders,
            conversations=self.conversations,
            tracker=Tracker(1.0, publish, clock),
            publish=publish,
            new_id=lambda: f"g{next(ids)}",
            clock=clock,
            unix_now=clock,
        )

    async def ask(self, caller=ANN, cache_control="", thread_id="t", session_id=None, **changes):
        """The answer to the question, with `changes`."""
        return await self.lifecycle.ask(
            Ask(
                request=replace(QUESTION, **changes),
                caller=caller,
                thread_id=thread_id,
                directives=parse_cache_control(cache_control),
                session_id=session_id,
            )
        )

    async def asked(self, **how):
        """The whole exchange: where the answer came from, and the last record of it."""
        answer = await self.ask(**how)
        records = await read(answer)
        return answer.cache, records[-1]

    @property
    def call_count(self):
        return len(self.provider.requests) + len(self.spare.requests)

    async def is_at_rest(self):
        """No slot is taken, no call is open, no leader runs, and no timer is set."""
        await settle()
        providers = (self.provider, self.spare)
        return (
            self.slots.taken_count == 0
            and sum(provider.open_streams + provider.entering for provider in providers) == 0
            and not self.leaders._running
            and not self.leaders._graces
            and all(timer.cancelled() for timer in self.loop._scheduled)
        )


B = Route(provider="b", model="b-1")
ONE_A_MINUTE = Rate(amount=1, per_s=64.0)


async def read(answer):
    """All records up to the end, as a client gets them; the answer is closed."""
    records = []
    try:
        while not (records and type(records[-1]) is Sealed):
            new = await answer.reader.read(1024.0)
            assert new, "no record for longer than anything may last"
            answer.served(new)
            records += new
    finally:
        answer.close()
    return records
