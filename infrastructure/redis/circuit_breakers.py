"""Circuits that all instances share.

Each instance decides by what it has in memory, which costs no round trip. What it changes is stored and told to the
others; what they change is heard, and read again when something may not have been. Only a probe is asked for: one
instance at a time has the lease of a provider's probe. The last calls are counted by each instance for itself.

While Redis is away an instance's circuits are its own; what changed meanwhile is stored when Redis is back.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

from domain.breaker import Circuit, CircuitState
from domain.errors import CircuitOpen
from domain.ports import Permit
from infrastructure.memory.circuit_breakers import PROBE_WAIT_S, PurgatoryCircuitBreakers
from infrastructure.redis.circuit_scripts import CHANGE, FREE_PROBE, TAKE_PROBE
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.keys import circuit_key, probe_key

_KEEP_S = 3600.0
"""How long it is remembered what a circuit last was, beyond the time that it is open."""


class RedisCircuitBreakers:
    """See the module. A probe that nobody ends, for its instance is gone, keeps its lease for `probe_s` seconds."""

    def __init__(
        self,
        *,
        local: PurgatoryCircuitBreakers,
        client: RedisClient,
        events: FleetEvents,
        providers: Iterable[str],
        instance_id: str,
        probe_s: float,
        clock: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._local = local
        self._client = client
        self._providers = tuple(providers)
        self._instance_id = instance_id
        self._probe_ms = int(probe_s * 1000)
        self._clock = clock
        self._unix_now = unix_now
        self._tokens = count()
        self._versions: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._unsent: set[str] = set()
        self._probed_until_s: dict[str, float] = {}
        local.on_change = lambda circuit: self._send(circuit.provider)
        events.hear("circuit", self._hear)
        events.on_begin.append(self._read_all)
        client.on_return.append(self._read_all)

    def can_try(self, provider: str) -> bool:
        """Whether `acquire` would give a permit now, as far as is known here."""
        return self._local.can_try(provider) and not self._is_probed(provider)

    async def acquire(self, provider: str) -> Permit:
        """A permit: always while closed, to one instance at a time while half-open.

        Raises:
            CircuitOpen: with the time until the next probe.
        """
        circuit = self._local.circuit(provider)
        if circuit.state is CircuitState.CLOSED or circuit.wait_s > 0:
            return self._local.permit(provider)
        token = f"{self._instance_id}:{next(self._tokens)}"
        if self._is_probed(provider) or not await self._take_probe(provider, token):
            raise CircuitOpen(provider, PROBE_WAIT_S)
        return self._probe(provider, token)

    def circuit(self, provider: str) -> Circuit:
        """How the circuit stands."""
        return self._local.circuit(provider)

    def reset(self, provider: str) -> None:
        """The circuit is closed here and will be everywhere, even where something else was believed."""
        was_closed = self._local.circuit(provider).state is CircuitState.CLOSED
        self._local.reset(provider)
        if was_closed:
            self._send(provider)

    def _is_probed(self, provider: str) -> bool:
        """Whether another has the probe, or it is just being asked for."""
        return self._clock() < self._probed_until_s.get(provider, 0.0)

    async def _take_probe(self, provider: str, token: str) -> bool:
        """Whether the probe is ours; while Redis is away it is."""
        self._probed_until_s[provider] = self._clock() + PROBE_WAIT_S
        keys, version = (circuit_key(provider), probe_key(provider)), self._versions[provider]
        asked = self._client.submit_script(TAKE_PROBE, keys, self._instance_id, version, token, self._probe_ms)
        try:
            is_ours = bool(await asyncio.shield(asked))
        except NO_ANSWER:
            is_ours = True
        except asyncio.CancelledError:
            asked.add_done_callback(lambda _: self._free_probe(provider, token))
            asked.add_done_callback(unheard)
            self._probed_until_s.pop(provider, None)
            raise
        if is_ours:
            self._probed_until_s.pop(provider, None)
        return is_ours

    def _probe(self, provider: str, token: str) -> "_Probe":
        """The permit, unless something was heard while the lease was asked for."""
        try:
            permit = self._local.permit(provider)
        except CircuitOpen:
            self._free_probe(provider, token)
            raise
        return _Probe(permit, partial(self._free_probe, provider, token))

    def _free_probe(self, provider: str, token: str) -> None:
        self._client.submit_script(FREE_PROBE, (probe_key(provider),), token).add_done_callback(unheard)

    def _send(self, provider: str) -> None:
        """Store the circuit as it is now, and tell the others."""
        circuit, now_s = self._local.circuit(provider), self._unix_now()
        self._sent[provider] += 1
        self._unsent.add(provider)
        sent = self._client.submit_script(
            CHANGE,
            (circuit_key(provider), probe_key(provider)),
            circuit.state.value,
            repr(now_s),
            repr(now_s + circuit.wait_s),
            self._instance_id,
            int((circuit.wait_s + _KEEP_S) * 1000),
            EVENTS,
            provider,
        )
        sent.add_done_callback(partial(self._stored, circuit, self._sent[provider]))

    def _stored(self, circuit: Circuit, number: int, answer: asyncio.Future[Any]) -> None:
        """What was stored last is how it stands, though something that was stored before it may have been heard."""
        provider = circuit.provider
        if answer.cancelled() or answer.exception() is not None or number != self._sent[provider]:
            return
        self._unsent.discard(provider)
        if answer.result() > self._versions[provider]:
            self._versions[provider] = answer.result()
            if self._local.circuit(provider).state is not circuit.state:
                self._local.adopt(circuit)

    def _hear(self, said: bytes) -> None:
        version, instance_id, state, until, provider = said.decode().split(" ", 4)
        if instance_id != self._instance_id and provider in self._providers:
            self._learn(provider, int(version), CircuitState(state), float(until))

    def _learn(self, provider: str, version: int, state: CircuitState, until_s: float) -> None:
        """Stand as another instance says, unless something later is known."""
        if version <= self._versions[provider]:
            return
        self._versions[provider] = version
        wait_s = max(0.0, until_s - self._unix_now())
        self._local.adopt(Circuit(provider=provider, state=state, wait_s=wait_s))
        if state is CircuitState.HALF_OPEN:
            self._probed_until_s[provider] = self._clock() + PROBE_WAIT_S
        else:
            self._probed_until_s.pop(provider, None)

    def _read_all(self) -> None:
        """Store what Redis does not know, and learn what is not known here."""
        self._versions.clear()
        for provider in self._providers:
            if provider in self._unsent:
                self._send(provider)
            answer = self._client.submit("HMGET", circuit_key(provider), "version", "instance", "state", "until")
            answer.add_done_callback(partial(self._read, provider))

    def _read(self, provider: str, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        version, instance_id, state, until = answer.result()
        if version is None:
            if self._local.circuit(provider).state is not CircuitState.CLOSED:
                self._send(provider)
        elif instance_id != self._instance_id.encode():
            self._learn(provider, int(version), CircuitState(state.decode()), float(until))


class _Probe:
    """A permit that gives its lease back, once."""

    __slots__ = ("_free", "_permit")

    def __init__(self, permit: Permit, free: Callable[[], None]) -> None:
        self._permit = permit
        self._free: Callable[[], None] | None = free

    def success(self) -> None:
        """The provider has begun to answer."""
        self._permit.success()
        self._end()

    def failure(self) -> None:
        """The provider has failed, before its first token or after."""
        self._permit.failure()
        self._end()

    def abandon(self) -> None:
        """The call ended for a reason that says nothing of the provider; a probe's place is free again."""
        self._permit.abandon()
        self._end()

    def _end(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free()
