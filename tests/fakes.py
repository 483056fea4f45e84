"""Hand-written stand-ins that keep the contracts of domain/ports.py and remember what happened to them."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from enum import Enum, auto
from itertools import dropwhile
from typing import Literal

from domain.breaker import BreakerPolicy, Circuit, CircuitState, Signal, Window, next_state
from domain.chat import ChatRequest, Chunk
from domain.errors import CircuitOpen, ProviderError, ProviderUnavailable
from domain.events import CircuitChanged, Events
from domain.selection import Route


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self, now_s: float = 1024.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, by_s: float) -> None:
        self.now_s += by_s


class RememberedEvents(Events):
    """Keeps whatever was published."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[object] = []

    def publish(self, event: object) -> None:
        self.all.append(event)
        super().publish(event)

    def of(self, kind: type) -> list:
        return [event for event in self.all if type(event) is kind]


class FakeCircuitBreakers:
    """The table of domain/breaker.py and nothing else; `told` is what was said of each provider's calls."""

    def __init__(self, *, policy: BreakerPolicy, publish, clock) -> None:
        self.told: defaultdict[str, list[str]] = defaultdict(list)
        self._circuits = defaultdict(lambda: _FakeCircuit(policy, publish, clock))

    def can_try(self, provider: str) -> bool:
        return self._circuits[provider].wait_s() <= 0

    async def acquire(self, provider: str) -> "_FakePermit":
        circuit = self._circuits[provider]
        if circuit.wait_s() > 0:
            raise CircuitOpen(provider, circuit.wait_s())
        permit = _FakePermit(provider, circuit, self.told[provider])
        if circuit.state is CircuitState.OPEN:
            circuit.react(provider, Signal.RESTED)
        if circuit.state is CircuitState.HALF_OPEN:
            circuit.probe = permit
        return permit

    def circuit(self, provider: str) -> Circuit:
        circuit = self._circuits[provider]
        return Circuit(provider=provider, state=circuit.state, wait_s=max(0.0, circuit.wait_s()))

    def reset(self, provider: str) -> None:
        circuit = self._circuits[provider]
        circuit.window.clear()
        circuit.react(provider, Signal.RESET)


class _FakeCircuit:
    def __init__(self, policy, publish, clock):
        self.policy, self.publish, self.clock = policy, publish, clock
        self.state, self.window, self.probe, self.opened_at_s = CircuitState.CLOSED, Window(policy), None, 0.0

    def wait_s(self):
        if self.state is CircuitState.OPEN:
            return self.opened_at_s + self.policy.open_s - self.clock()
        return float(self.state is CircuitState.HALF_OPEN and self.probe is not None)

    def react(self, provider, signal):
        after = next_state(self.state, signal)
        if after is not self.state:
            self.state, self.window, self.opened_at_s = after, Window(self.policy), self.clock()
            self.publish(CircuitChanged(provider=provider, state=after))


class _FakePermit:
    def __init__(self, provider, circuit, told):
        self.provider, self.circuit, self.told = provider, circuit, told

    def success(self):
        self.told.append("success")
        self._settle(self.circuit.window.succeeded())

    def failure(self):
        self.told.append("failure")
        self._settle(self.circuit.window.failed())

    def abandon(self):
        self.told.append("abandon")
        self._leave()

    def _settle(self, signal):
        if self.circuit.state is not CircuitState.HALF_OPEN or self.circuit.probe is self:
            self.circuit.react(self.provider, signal)
        self._leave()

    def _leave(self):
        if self.circuit.probe is self:
            self.circuit.probe = None


class Accepted(Enum):
    """The step that ends entering; a chunk does so too."""

    ACCEPTED = auto()


ACCEPTED: Literal[Accepted.ACCEPTED] = Accepted.ACCEPTED
Step = Chunk | ProviderError | asyncio.Event | Accepted


class ScriptedProvider:
    """Plays a script a call, the last one again and again: chunks to give, errors to raise, events to wait for.

    The errors and events before the first chunk, or before ACCEPTED, come on entering. `asked` is set by each call.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.scripts = scripts
        self.requests: list[ChatRequest] = []
        self.routes: list[Route] = []
        self.open_streams = 0
        self.entering = 0
        self.asked = asyncio.Event()
        self.is_closed = False

    @asynccontextmanager
    async def open(self, route: Route, request: ChatRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.routes.append(route)
        self.asked.set()
        await self._enter(script)
        self.open_streams += 1
        try:
            async with aclosing(_play(script, request.choice_count)) as chunks:
                yield chunks
        finally:
            self.open_streams -= 1

    async def check(self) -> None:
        for step in self.scripts[0]:
            if isinstance(step, ProviderError):
                raise step

    async def close(self) -> None:
        self.is_closed = True

    async def _enter(self, script: Sequence[Step]) -> None:
        self.entering += 1
        try:
            for step in script:
                if isinstance(step, Chunk | Accepted):
                    return
                await _suffer(step)
        finally:
            self.entering -= 1


async def _play(script: Sequence[Step], choice_count: int) -> AsyncIterator[Chunk]:
    finished = set()
    for step in dropwhile(lambda step: not isinstance(step, Chunk | Accepted), script):
        if isinstance(step, Chunk):
            if step.finish_reason is not None:
                finished.add(step.index)
            yield step
        elif step is not ACCEPTED:
            await _suffer(step)
    if len(finished) < choice_count:
        raise ProviderUnavailable("ended without a finish reason")


async def _suffer(step: ProviderError | asyncio.Event) -> None:
    if isinstance(step, ProviderError):
        raise step
    await step.wait()
