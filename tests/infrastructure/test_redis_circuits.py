"""Circuits of two instances on one Redis are one circuit for each provider."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress

import pytest

from domain.breaker import BreakerPolicy, CircuitState
from domain.errors import CircuitOpen
from infrastructure.memory.circuit_breakers import PurgatoryCircuitBreakers
from infrastructure.redis.circuit_breakers import RedisCircuitBreakers
from infrastructure.redis.keys import circuit_key
from tests.fakes import FakeClock
from tests.redis_instances import RedisInstance, until

pytestmark = pytest.mark.anyio

POLICY = BreakerPolicy(failures=3, window=5, open_s=32.0)
HEARD_WITHIN_S = 0.1


class Fleet:
    """Instances with one clock, by their numbers."""

    def __init__(self, url, stack):
        self.url, self.stack, self.clock = url, stack, FakeClock()
        self.instances, self.breakers = [], []

    async def add(self):
        each = RedisInstance(self.url, f"i{len(self.instances)}")
        breakers = RedisCircuitBreakers(
            local=PurgatoryCircuitBreakers(policy=POLICY, publish=each.events.publish, clock=self.clock),
            client=each.client,
            events=each.fleet_events,
            circuits=["p/m"],
            instance_id=each.name,
            probe_s=60.0,
            clock=self.clock,
            unix_now=self.clock,
        )
        await self.stack.enter_async_context(each.running())
        self.instances.append(each)
        self.breakers.append(breakers)
        return breakers

    async def trip(self, number):
        for _ in range(POLICY.failures):
            (await self.breakers[number].acquire("p/m")).failure()

    def state(self, number):
        return self.breakers[number].circuit("p/m").state

    async def everywhere(self, state, within_s=5.0):
        """The circuit is in that state on all instances."""
        await until(lambda: {self.state(number) for number in range(len(self.breakers))} == {state}, within_s)

    async def permits(self, number, times):
        """How many of so many who ask at once get a permit."""
        asked = await asyncio.gather(
            *(self.breakers[number].acquire("p/m") for _ in range(times)), return_exceptions=True
        )
        assert all(isinstance(each, CircuitOpen) for each in asked if isinstance(each, Exception))
        return [each for each in asked if not isinstance(each, Exception)]


@pytest.fixture
async def fleet(own_redis):
    async with AsyncExitStack() as stack:
        both = Fleet(own_redis.url, stack)
        await both.add()
        await both.add()
        yield both


async def test_what_opens_on_one_is_open_on_the_other_within_100_ms(fleet):
    """And neither calls the provider before its time."""
    await fleet.trip(0)
    began_s = time.perf_counter()
    await fleet.everywhere(CircuitState.OPEN)

    assert time.perf_counter() - began_s < HEARD_WITHIN_S
    assert not fleet.breakers[1].can_try("p/m")
    with pytest.raises(CircuitOpen) as refused:
        await fleet.breakers[1].acquire("p/m")
    assert refused.value.retry_after_s == POLICY.open_s


async def test_deciding_costs_no_round_trip_while_closed_and_while_open(fleet, own_redis):
    """A request is not slower for being one of a fleet."""

    def commands():
        stats = own_redis.ask("INFO", "commandstats").decode()
        return [line for line in stats.splitlines() if "evalsha" in line or "hmget" in line]

    for _ in range(50):
        (await fleet.breakers[0].acquire("p/m")).abandon()
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    before = commands()
    for _ in range(50):
        with suppress(CircuitOpen):
            await fleet.breakers[1].acquire("p/m")

    assert commands() == before


async def test_one_probe_of_a_hundred_goes_through_in_all(fleet):
    """A provider that is coming back is not met by everybody at once."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)

    got = await asyncio.gather(fleet.permits(0, 50), fleet.permits(1, 50))

    assert sum(map(len, got)) == 1
    assert [breakers.can_try("p/m") for breakers in fleet.breakers] == [False, False]


@pytest.mark.parametrize("outcome", [("success", CircuitState.CLOSED), ("failure", CircuitState.OPEN)])
async def test_what_the_probe_tells_is_heard_on_the_other(fleet, outcome):
    """Recovered for one is recovered for all."""
    told, state = outcome
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)
    permit = await fleet.breakers[1].acquire("p/m")
    await fleet.everywhere(CircuitState.HALF_OPEN)

    getattr(permit, told)()

    await fleet.everywhere(state, HEARD_WITHIN_S)
    assert fleet.breakers[0].can_try("p/m") is (state is CircuitState.CLOSED)


async def test_a_probe_that_breaks_off_after_its_first_token_opens_the_circuit_everywhere(fleet):
    """What was closed on its word is open again, for the whole time."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)
    probe = await fleet.breakers[1].acquire("p/m")
    probe.success()
    await fleet.everywhere(CircuitState.CLOSED)

    probe.failure()
    probe.abandon()

    await fleet.everywhere(CircuitState.OPEN, HEARD_WITHIN_S)
    assert [breakers.circuit("p/m").wait_s for breakers in fleet.breakers] == [POLICY.open_s] * 2


async def test_an_abandoned_probe_can_be_taken_by_the_other(fleet):
    """A client that leaves does not shut a provider for the whole fleet."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)
    (await fleet.breakers[0].acquire("p/m")).abandon()
    await fleet.instances[0].client.submit("PING")
    await fleet.everywhere(CircuitState.HALF_OPEN)
    fleet.clock.advance(1.0)

    (await fleet.breakers[1].acquire("p/m")).success()

    await fleet.everywhere(CircuitState.CLOSED)


async def test_who_gives_up_asking_for_a_probe_does_not_keep_it(fleet):
    """A request that is cancelled in that moment leaves no lease behind."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)
    asking = asyncio.create_task(fleet.breakers[0].acquire("p/m"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await fleet.instances[0].client.submit("PING")
    await fleet.instances[0].client.submit("PING")

    (await fleet.breakers[1].acquire("p/m")).success()

    await fleet.everywhere(CircuitState.CLOSED)


async def test_an_instance_that_starts_learns_what_is_open(fleet):
    """It need not fail as often as the others did."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)

    await fleet.add()

    await fleet.everywhere(CircuitState.OPEN)


async def test_what_opens_when_redis_has_nothing_of_the_circuit_any_more_is_heard(fleet):
    """Its record lapses an hour after it closed; the next opening must not pass for old news."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.breakers[1].reset("p/m")
    await fleet.everywhere(CircuitState.CLOSED)
    await fleet.instances[0].client.submit("DEL", circuit_key("p/m"))

    await fleet.trip(0)

    await fleet.everywhere(CircuitState.OPEN)


async def test_what_was_said_while_the_subscription_was_lost_is_read(fleet, own_redis):
    """A message that nobody heard is not lost for good."""
    fleet.instances[1].begun.clear()
    own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await fleet.trip(0)

    await fleet.instances[1].heard_again()

    await fleet.everywhere(CircuitState.OPEN)


async def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(fleet, own_redis):
    """As after a failover."""
    own_redis.ask("SCRIPT", "FLUSH")
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)
    fleet.clock.advance(POLICY.open_s)
    own_redis.ask("SCRIPT", "FLUSH")

    (await fleet.breakers[1].acquire("p/m")).success()

    await fleet.everywhere(CircuitState.CLOSED)


async def test_without_redis_each_decides_for_itself_and_tells_when_it_is_back(fleet, own_redis):
    """What one has learnt meanwhile is not forgotten."""
    for each in fleet.instances:
        each.begun.clear()
    own_redis.stop()
    await fleet.trip(0)
    assert [fleet.state(0), fleet.state(1)] == [CircuitState.OPEN, CircuitState.CLOSED]
    fleet.clock.advance(POLICY.open_s)
    probe = await fleet.breakers[0].acquire("p/m")
    probe.failure()

    own_redis.start()

    await fleet.everywhere(CircuitState.OPEN)


async def test_a_reset_on_one_instance_closes_the_circuit_on_all(fleet):
    """Whichever of them the operator happened to reach."""
    await fleet.trip(0)
    await fleet.everywhere(CircuitState.OPEN)

    fleet.breakers[1].reset("p/m")

    await fleet.everywhere(CircuitState.CLOSED, HEARD_WITHIN_S)


@pytest.mark.parametrize(
    "said", ["circuit", "circuit x i9 open 1 p/m", "circuit 9 i9 ajar 1 p/m", "circuit 9 i9 open x p/m", "?"]
)
async def test_a_message_that_makes_no_sense_changes_nothing(fleet, said):
    """Nor does it end the listening."""
    await fleet.instances[0].client.submit("PUBLISH", "weir:events", said)
    await fleet.trip(0)

    await fleet.everywhere(CircuitState.OPEN)
