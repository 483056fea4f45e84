"""Circuits that all instances share.

Each instance decides by what it has in memory, which costs no round trip. What it changes is stored and told to the
others; what they change is heard, and read again when something may not have been. Only a probe is asked for: one
instance at a time has the lease of a circuit's probe. The last calls are counted by each instance for itself.

While Redis is away an instance's circuits are its own; what changed meanwhile is stored when Redis is back.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

from domain.breaker import Circuit, CircuitState, model_of
from domain.errors import CircuitOpen
from domain.ports import Permit
from infrastructure.memory.circuit_breakers import PROBE_WAIT_S, PurgatoryCircuitBreakers
from infrastructure.redis.circuit_scripts import CHANGE, FREE_PROBE, TAKE_PROBE
from infrastructure.redis.client import NO_ANSWER, RedisClient, unheard
from infrastructure.redis.events import EVENTS, FleetEvents
from infrastructure.redis.keys import circuit_key, probe_key

_KEEP_S = 3600.0
"""How long it is remembered what a circuit last was, beyond the time that it is open."""

_SLACK_S = 1.0
"""A probe is begun after its lease: that must not lapse just before the probe is given up."""


class RedisCircuitBreakers:
    """See the module. A probe is given up after `probe_s` seconds; a little later it loses its lease in any case."""

    def __init__(
        self,
        *,
        local: PurgatoryCircuitBreakers,
        client: RedisClient,
        events: FleetEvents,
        circuits: Iterable[str],
        instance_id: str,
        probe_s: float,
        clock: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._local = local
        self._client = client
        self._circuits = tuple(circuits)
        self._instance_id = instance_id
        self._probe_ms = int((probe_s + _SLACK_S) * 1000)
        self._clock = clock
        self._unix_now = unix_now
        self._tokens = count()
        self._versions: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._unsent: set[str] = set()
        self._probed_until_s: dict[str, float] = {}
        local.on_change = lambda circuit: self._send(circuit.name)
        events.hear("circuit", self._hear)
        events.on_begin.append(self._read_all)
        client.on_return.append(self._read_all)

    def can_try(self, circuit: str) -> bool:
        """Whether `acquire` would give a permit now, as far as is known here."""
        return self._local.can_try(circuit) and not self._is_probed(circuit)

    async def acquire(self, circuit: str) -> Permit:
        """A permit: always while closed, to one instance at a time while half-open.

        Raises:
            CircuitOpen: with the time until the next probe.
        """
        known = self._local.circuit(circuit)
        if known.state is CircuitState.CLOSED or known.wait_s > 0:
            return self._local.permit(circuit)
        token = f"{self._instance_id}:{next(self._tokens)}"
        if self._is_probed(circuit) or not await self._take_probe(circuit, token):
            raise CircuitOpen(circuit, PROBE_WAIT_S)
        return self._probe(circuit, token)

    def rest(self, circuit: str, wait_s: float) -> None:
        """No permit is given by this instance for `wait_s` seconds; the others are told so by the route itself."""
        self._local.rest(circuit, wait_s)

    def circuit(self, circuit: str) -> Circuit:
        """How the circuit stands."""
        return self._local.circuit(circuit)

    def reset(self, circuit: str) -> None:
        """The circuit is closed here and will be everywhere, even where something else was believed."""
        was_closed = self._local.circuit(circuit).state is CircuitState.CLOSED
        self._local.reset(circuit)
        if was_closed:
            self._send(circuit)

    def _is_probed(self, name: str) -> bool:
        """Whether another has the probe, or it is just being asked for."""
        return self._clock() < self._probed_until_s.get(name, 0.0)

    async def _take_probe(self, name: str, token: str) -> bool:
        """Whether the probe is ours; while Redis is away it is."""
        self._probed_until_s[name] = self._clock() + PROBE_WAIT_S
        keys, version = (circuit_key(name), probe_key(name)), self._versions[name]
        asked = self._client.submit_script(
            TAKE_PROBE, keys, self._instance_id, version, token, self._probe_ms, model_of(name)
        )
        try:
            is_ours = bool(await asyncio.shield(asked))
        except NO_ANSWER:
            is_ours = True
        except asyncio.CancelledError:
            asked.add_done_callback(lambda _: self._free_probe(name, token))
            asked.add_done_callback(unheard)
            self._probed_until_s.pop(name, None)
            raise
        if is_ours:
            self._probed_until_s.pop(name, None)
        return is_ours

    def _probe(self, name: str, token: str) -> "_Probe":
        """The permit, unless something was heard while the lease was asked for."""
        try:
            permit = self._local.permit(name)
        except CircuitOpen:
            self._free_probe(name, token)
            raise
        return _Probe(permit, partial(self._free_probe, name, token))

    def _free_probe(self, name: str, token: str) -> None:
        self._client.submit_script(FREE_PROBE, (probe_key(name),), token).add_done_callback(unheard)

    def _send(self, name: str) -> None:
        """Store the circuit as it is now, and tell the others."""
        circuit, now_s = self._local.circuit(name), self._unix_now()
        self._sent[name] += 1
        self._unsent.add(name)
        sent = self._client.submit_script(
            CHANGE,
            (circuit_key(name), probe_key(name)),
            circuit.state.value,
            repr(now_s),
            repr(now_s + circuit.wait_s),
            self._instance_id,
            int((circuit.wait_s + _KEEP_S) * 1000),
            EVENTS,
            name,
            model_of(name),
        )
        sent.add_done_callback(partial(self._stored, circuit, self._sent[name]))

    def _stored(self, circuit: Circuit, number: int, answer: asyncio.Future[Any]) -> None:
        """What was stored last is how it stands, though something that was stored before it may have been heard."""
        name = circuit.name
        if answer.cancelled() or answer.exception() is not None or number != self._sent[name]:
            return
        self._unsent.discard(name)
        if answer.result() > self._versions[name]:
            self._versions[name] = answer.result()
            if self._local.circuit(name).state is not circuit.state:
                self._local.adopt(circuit)

    def _hear(self, said: bytes) -> None:
        version, instance_id, state, until, name = said.decode().split(" ", 4)
        if instance_id != self._instance_id and name in self._circuits:
            self._learn(name, int(version), CircuitState(state), float(until))

    def _learn(self, name: str, version: int, state: CircuitState, until_s: float) -> None:
        """Stand as another instance says, unless something later is known."""
        if version <= self._versions[name]:
            return
        self._versions[name] = version
        wait_s = max(0.0, until_s - self._unix_now())
        self._local.adopt(Circuit(name=name, state=state, wait_s=wait_s))
        if state is CircuitState.HALF_OPEN:
            self._probed_until_s[name] = self._clock() + PROBE_WAIT_S
        else:
            self._probed_until_s.pop(name, None)

    def _read_all(self) -> None:
        """Store what Redis does not know, and learn what is not known here."""
        self._versions.clear()
        for name in self._circuits:
            if name in self._unsent:
                self._send(name)
            fields = (f"{model_of(name)}:{field}" for field in ("version", "instance", "state", "until"))
            answer = self._client.submit("HMGET", circuit_key(name), *fields)
            answer.add_done_callback(partial(self._read, name))

    def _read(self, name: str, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        version, instance_id, state, until = answer.result()
        if version is None:
            if self._local.circuit(name).state is not CircuitState.CLOSED:
                self._send(name)
        elif instance_id != self._instance_id.encode():
            self._learn(name, int(version), CircuitState(state.decode()), float(until))


class _Probe:
    """A permit that gives its lease back, once."""

    __slots__ = ("_free", "_permit")

    def __init__(self, permit: Permit, free: Callable[[], None]) -> None:
        self._permit = permit
        self._free: Callable[[], None] | None = free

    def success(self) -> None:
        """See the port."""
        self._permit.success()
        self._end()

    def failure(self) -> None:
        """See the port."""
        self._permit.failure()
        self._end()

    def abandon(self) -> None:
        """See the port."""
        self._permit.abandon()
        self._end()

    def _end(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free()
