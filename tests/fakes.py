"""Hand-written stand-ins that keep the contracts of domain/ports.py and remember what happened to them."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from enum import Enum, auto
from itertools import dropwhile
from typing import Literal

from domain.breaker import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    Ramp,
    Signal,
    Window,
    model_of,
    next_state,
    provider_of,
)
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
    """The table of domain/breaker.py, its ramp, and nothing else; `told` is what was said of each provider's calls."""

    def __init__(self, *, policy: BreakerPolicy, publish, clock) -> None:
        self.told: defaultdict[str, list[str]] = defaultdict(list)
        self._clock = clock
        self._circuits = defaultdict(lambda: _FakeCircuit(policy, publish, clock))

    def can_try(self, circuit: str) -> bool:
        return self._circuits[circuit].wait_s() <= 0

    async def acquire(self, circuit: str) -> "_FakePermit":
        named = self._circuits[circuit]
        if named.wait_s() > 0:
            raise CircuitOpen(circuit, named.wait_s(), is_resting=named.closed_for_s() <= 0)
        if named.state is CircuitState.OPEN:
            named.react(circuit, Signal.RESTED)
        permit = _FakePermit(circuit, named, self.told[provider_of(circuit)])
        if named.state is CircuitState.HALF_OPEN:
            named.probe = permit
        return permit

    def rest(self, circuit: str, wait_s: float) -> None:
        named = self._circuits[circuit]
        named.rests_until_s = max(named.rests_until_s, self._clock() + wait_s)

    def circuit(self, circuit: str) -> Circuit:
        named = self._circuits[circuit]
        wait_s = max(0.0, named.wait_s())
        return Circuit(name=circuit, state=named.state, wait_s=wait_s, is_resting=named.closed_for_s() <= 0 < wait_s)

    def reset(self, circuit: str) -> None:
        named = self._circuits[circuit]
        named.window = Window(named.policy)
        named.rests_until_s = 0.0
        named.react(circuit, Signal.RESET)
        named.ramp = None


class _FakeCircuit:
    def __init__(self, policy, publish, clock):
        self.policy, self.publish, self.clock = policy, publish, clock
        self.state, self.window, self.probe, self.opened_at_s = CircuitState.CLOSED, Window(policy), None, 0.0
        self.ramp, self.rests_until_s, self.believed = None, 0.0, None

    def wait_s(self):
        return max(self.closed_for_s(), self.rests_until_s - self.clock() if self.rests_until_s else 0.0)

    def closed_for_s(self):
        if self.state is CircuitState.OPEN:
            return self.opened_at_s + self.policy.open_s - self.clock()
        is_probed = self.state is CircuitState.HALF_OPEN and self.probe is not None
        return float(is_probed or (self.ramp is not None and self.ramp.is_full))

    def react(self, name, signal):
        after = next_state(self.state, signal)
        if after is not self.state:
            self.state, self.window, self.opened_at_s = after, Window(self.policy), self.clock()
            self.probe = self.believed = None
            self.ramp = Ramp() if after is CircuitState.CLOSED else None
            self.publish(CircuitChanged(provider=provider_of(name), model=model_of(name), state=after))


class _FakePermit:
    def __init__(self, name, circuit, told):
        self.name, self.circuit, self.told, self.ramp = name, circuit, told, circuit.ramp
        self.window, self.has_succeeded, self.is_over = circuit.window, False, False
        if self.ramp:
            self.ramp.began()

    def success(self):
        self.told.append("success")
        if not (self.is_over or self.has_succeeded):
            if self is self.circuit.probe:
                self.circuit.react(self.name, Signal.SUCCEEDED)
                self.circuit.believed, self.window = self, self.circuit.window
            self.window.succeeded()
            self.has_succeeded = True
        self._leave(has_succeeded=True)

    def failure(self):
        self.told.append("failure")
        circuit = self.circuit
        if not self.is_over and self in {circuit.probe, circuit.believed}:
            circuit.react(self.name, Signal.TRIPPED)
        elif not self.is_over and self.window is circuit.window:
            circuit.react(self.name, circuit.window.failed(after_success=self.has_succeeded))
        self.is_over = True
        self._leave()

    def abandon(self):
        self.told.append("abandon")
        self.is_over = True
        self._leave()

    def _leave(self, *, has_succeeded=False):
        ramp, self.ramp = self.ramp, None
        if ramp:
            ramp.ended(has_succeeded=has_succeeded)
            if ramp.is_over and ramp is self.circuit.ramp:
                self.circuit.ramp = self.circuit.believed = None
        if self.circuit.probe is self:
            self.circuit.probe = None


class Accepted(Enum):
    """The step that ends entering; a chunk does so too."""

    ACCEPTED = auto()


ACCEPTED: Literal[Accepted.ACCEPTED] = Accepted.ACCEPTED
Step = Chunk | Exception | asyncio.Event | Accepted


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


async def _suffer(step: Exception | asyncio.Event) -> None:
    if isinstance(step, Exception):
        raise step
    await step.wait()
