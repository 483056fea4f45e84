"""The log in memory and the log that two instances share in Redis do the same, whatever is done to them."""

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from domain.chat import Chunk
from domain.generation import IllegalMove, Sealed, StaleEpoch, State
from domain.ports import Lease
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.generations import Generations
from tests.contracts.test_generation_log import QUESTION, opened
from tests.fakes import FakeClock
from tests.loops import settle
from tests.redis_instances import RedisInstance, until

ENDS = st.sampled_from([State.DONE, State.FAILED, State.CANCELLED])


@dataclass
class Led:
    """One leader's lease, in memory and on the instance number `at`."""

    in_memory: Lease
    on_redis: Lease
    at: int


class Logs(RuleBasedStateMachine):
    """Claims, appends with old and new epochs, seals, readers and lapses, on both logs."""

    url = ""
    flush = staticmethod(lambda: None)

    @initialize()
    def start(self):
        self.flush()
        self.runner = asyncio.Runner()
        self.memory = MemoryGenerationLog(Generations(max_entries=1000, max_bytes=10**8, ttl_s=60.0, clock=FakeClock()))
        self.leaders, self.count = [], 0
        self.instances = self.runner.run(self._instances())

    async def _instances(self):
        instances = [RedisInstance(self.url, name) for name in ("one", "two")]
        for instance in instances:
            await instance.listen()
        return instances

    def teardown(self):
        if hasattr(self, "runner"):
            self.runner.run(self._close())
            self.runner.close()

    async def _close(self):
        for instance in self.instances:
            await instance.subscriptions.close()
            await instance.client.close()
        await settle()

    @rule(question=st.sampled_from("qr"), at=st.integers(0, 1), is_shared=st.booleans())
    def claim(self, question, at, is_shared):
        """Who leads, and what is joined, is the same."""
        self.count += 1
        first = opened(f"{question}{self.count}", question, is_shared=is_shared)
        self.runner.run(self._claim(first, at))

    async def _claim(self, first, at):
        in_memory = await self.memory.claim(first, QUESTION)
        on_redis = await self.instances[at].log.claim(first, QUESTION)
        assert in_memory.generation.opened == on_redis.generation.opened
        assert (in_memory.lease is None) == (on_redis.lease is None)
        if in_memory.lease:
            self.leaders.append(Led(in_memory.lease, on_redis.lease, at))

    @precondition(lambda self: self.leaders)
    @rule(data=st.data(), end=st.none() | ENDS)
    def append(self, data, end):
        """What one refuses the other refuses; what is written can be read everywhere."""
        led = data.draw(st.sampled_from(self.leaders))
        self.count += 1
        record = Chunk(str(self.count)) if end is None else Sealed(state=end, chunk_count=self.count)
        self.runner.run(self._append(led, record))

    async def _append(self, led, record):
        expected = await _is_taken(self.memory, led.in_memory, record)
        log = self.instances[led.at].log
        is_taken = await _is_taken(log, led.on_redis, record)
        known = log._roll.get(led.on_redis.generation.opened.generation_id)
        if known is not None:
            await until(lambda: not (known.writing or known.pending))
        assert (is_taken and record in led.on_redis.generation.records) == expected
        await self._read(led)

    @precondition(lambda self: self.leaders)
    @rule(data=st.data())
    def lapse(self, data):
        """The leader is gone: the other instance leads from here on, unless there is nothing more to lead."""
        self.runner.run(self._lapse(data.draw(st.sampled_from(self.leaders))))

    async def _lapse(self, led):
        generation, other = led.in_memory.generation, self.instances[1 - led.at]
        generation_id = generation.opened.generation_id
        is_latest = generation.epoch == led.in_memory.epoch
        if not is_latest or not await other.log.find(generation_id):
            return
        taken = await other.take_over(generation_id)
        assert (taken is None) == (generation.sealed is not None)
        if taken:
            self.leaders.append(Led(Lease(generation, generation.claim()), taken, 1 - led.at))
            await self._beat(led)

    async def _beat(self, led):
        """As every instance looks, now and then, whether what it leads is still its own."""
        log = self.instances[led.at].log
        known = log._roll.get(led.on_redis.generation.opened.generation_id)
        log.refresh(known)
        await until(lambda: not (known.writing or known.is_led_here))

    async def _read(self, led):
        records = led.in_memory.generation.records
        for instance in self.instances:
            found = await instance.log.find(led.in_memory.generation.opened.generation_id)
            await until(lambda: len(found.records) >= len(records))  # noqa: B023  # called at once
            assert found.records == records
            assert found.state is led.in_memory.generation.state


async def _is_taken(log, lease, record):
    try:
        await log.append(lease, record)
    except (StaleEpoch, IllegalMove):
        return False
    return True


def test_the_logs_are_the_same(redis_server):
    """No difference is found."""
    machine = type("LogsThere", (Logs,), {"url": redis_server.url, "flush": staticmethod(redis_server.flush)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
