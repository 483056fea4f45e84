"""A failover over scripted providers, and all that can be seen of it."""

import asyncio

import pytest

from domain.breaker import BreakerPolicy
from domain.calls import Calls, Deadlines
from domain.chat import ChatRequest, Chunk
from domain.concurrency import ProviderSlots
from domain.events import AttemptEnded
from domain.failover import Failover
from domain.generation import ProviderChange
from domain.hedging import Hedging, Pace
from domain.progress import Progress
from domain.retrying import RetryBudgets, RetryPolicy
from domain.selection import Route
from tests.fakes import FakeCircuitBreakers, RememberedEvents, ScriptedProvider

REQUEST = ChatRequest(model="m", messages=({"role": "user", "content": "?"},))
STOP = Chunk(finish_reason="stop")
WHOLE = (Chunk("x"), STOP)
ATTEMPTS = 3
DEADLINES = Deadlines(first_token_s=8.0, stall_s=4.0, total_s=256.0)
BACKOFFS_S = (0.5, 2.0, 8.0)
ROUTES = {name: Route(provider=name, model=f"{name}-1", usd_per_mtok_in=1, usd_per_mtok_out=2) for name in "abc"}


class Learnt:
    """Remembers what was to be learnt."""

    def __init__(self, learnt):
        self.learnt = learnt

    def took(self, route, seconds):
        self.learnt.append(("took", route.provider, seconds))

    def lost(self, route, seconds):
        self.learnt.append(("lost", route.provider, seconds))

    def failed(self, route):
        self.learnt.append(("failed", route.provider, None))


class Subject:
    """A failover over the providers a, b, c, … with one script each, and all that can be seen of it."""

    def __init__(
        self,
        *scripts,
        deadlines=DEADLINES,
        policy=None,
        continues=False,
        budget_ratio=100,
        hedge_ratio=0,
        routes=None,
        limits=None,
        attempts=ATTEMPTS,
        waits=True,
    ):
        self.events = RememberedEvents()
        self.loop = asyncio.get_running_loop()
        self.breakers = FakeCircuitBreakers(
            policy=policy or BreakerPolicy(failures=10, window=10, open_s=64.0),
            publish=self.events.publish,
            clock=self.loop.time,
        )
        self.providers = {
            name: ScriptedProvider(*(script if isinstance(script, list) else [script]))
            for name, script in zip("abc", scripts, strict=False)
        }
        self.routes = routes or ROUTES
        self.slept_s = []
        self.waits = waits
        self.learnt = []
        self.pace = Pace()
        self.slots = ProviderSlots(limits or {})
        self.budgets = RetryBudgets(budget_ratio, self.loop.time)
        self.failover = Failover(
            calls=Calls(
                providers=self.providers,
                breakers=self.breakers,
                deadlines=deadlines,
                publish=self.events.publish,
                slots=self.slots,
                budgets=self.budgets,
                learners=[self.pace, Learnt(self.learnt)],
            ),
            breakers=self.breakers,
            budgets=self.budgets,
            total_s=deadlines.total_s,
            continues=continues,
            retry=RetryPolicy(attempts=attempts, wish_max_s=2.0),
            hedging=Hedging(hedge_ratio, self.pace) if hedge_ratio else None,
            delays=lambda: iter(BACKOFFS_S),
            publish=self.events.publish,
            sleep=self.sleep,
        )
        self.records = []
        self.progress = Progress(thread_id="t", clock=self.loop.time)

    async def sleep(self, delay_s):
        self.slept_s.append(delay_s)
        await asyncio.sleep(delay_s if self.waits else 0.0)

    async def write(self, record):
        self.records.append(record)

    async def answer(self, request=REQUEST):
        routes = [self.routes[name] for name in self.providers]
        await self.failover.answer(request, routes, self.progress, self.write)

    async def failed(self, kind):
        with pytest.raises(kind) as failed:
            await self.answer()
        assert type(failed.value) is kind
        return failed.value

    @property
    def calls(self):
        return {name: len(provider.requests) for name, provider in self.providers.items()}

    @property
    def changes(self):
        changes = [record for record in self.records if isinstance(record, ProviderChange)]
        return [(change.status, change.previous, change.provider, change.reason) for change in changes]

    @property
    def outcomes(self):
        return [(event.provider, event.outcome, event.reason) for event in self.events.of(AttemptEnded)]

    @property
    def is_left(self):
        return all(provider.open_streams + provider.entering == 0 for provider in self.providers.values())

    @property
    def chunks(self):
        return [record for record in self.records if isinstance(record, Chunk)]

    @property
    def text(self):
        return "".join(chunk.content for chunk in self.chunks)
