"""The contract of domain.ports.GenerationLog, in memory, on one Redis and on a cluster."""

from contextlib import asynccontextmanager

import pytest

from domain.chat import ChatRequest, Chunk
from domain.errors import Cancelled
from domain.generation import IllegalMove, Opened, Sealed, StaleEpoch, State
from domain.ports import Lease
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.generations import Generations
from tests.fakes import FakeClock
from tests.redis_instances import redis_instances

_CLUSTER = "ignore::pytest.PytestUnraisableExceptionWarning"
"""The library's cluster client leaves a socket to the garbage collector."""

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(_CLUSTER)]

DONE = Sealed(state=State.DONE)
QUESTION = ChatRequest(model="m", messages=({"role": "user", "content": "?"},))


def opened(name, question="q", *, is_shared=True):
    return Opened(
        generation_id=name,
        fingerprint=question,
        created_at_s=0.0,
        thread_id="t",
        user="u",
        scope="",
        model="m",
        is_shared=is_shared,
    )


class Subject:
    """A log, and generations in it by short names."""

    def __init__(self, log):
        self.log = log

    async def claim(self, name, question="q", *, is_shared=True):
        return await self.log.claim(opened(name, question, is_shared=is_shared), QUESTION)

    async def ended(self, name, content="", sealed=DONE):
        claim = await self.claim(name, name)
        await self.log.append(claim.lease, Chunk(content))
        await self.log.append(claim.lease, sealed)
        return claim.generation

    async def kept(self, names):
        return "".join([name for name in names if await self.log.find(name)])


class InMemory(Subject):
    def __init__(self):
        self.clock = FakeClock()
        self.generations = Generations(max_entries=3, max_bytes=10_000, ttl_s=64.0, clock=self.clock)
        super().__init__(MemoryGenerationLog(self.generations))


@asynccontextmanager
async def on_redis(server):
    async with redis_instances(server.url, "one") as [instance]:
        yield Subject(instance.log)


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def subject(request):
    if request.param == "memory":
        yield InMemory()
        return
    async with on_redis(request.getfixturevalue(request.param)) as each:
        yield each


@pytest.fixture
def memory():
    return InMemory()


async def test_the_first_to_claim_a_question_leads_and_the_others_join(subject):
    """One call goes upstream, however many ask."""
    first = await subject.claim("a")
    others = [await subject.claim(name) for name in "bcd"]

    assert first.lease is not None
    assert [other.lease for other in others] == [None] * 3
    assert all(other.generation is first.generation for other in others)
    assert await subject.log.under_way("q") is first.generation


async def test_different_questions_are_led_apart(subject):
    """Only the same question is the same question."""
    first, second = await subject.claim("a", "q"), await subject.claim("b", "r")

    assert first.lease
    assert second.lease
    assert first.generation is not second.generation


async def test_a_generation_that_is_not_shared_is_always_begun_and_never_joined(subject):
    """What was asked past the cache is nobody else's answer."""
    shared = await subject.claim("a")
    private = await subject.claim("b", is_shared=False)
    other = await subject.claim("c", is_shared=False)

    assert private.lease
    assert other.lease
    assert await subject.log.under_way("q") is shared.generation
    assert await subject.log.find("b") is private.generation

    await subject.log.append(private.lease, DONE)
    assert await subject.log.under_way("q") is shared.generation


async def test_what_is_appended_can_be_read_by_whoever_found_the_generation(subject):
    """By its question or by its id, it is one generation."""
    claim = await subject.claim("a")
    await subject.log.append(claim.lease, Chunk("x"))
    await subject.log.append(claim.lease, DONE)

    found = await subject.log.find("a")

    assert found.records == [claim.generation.opened, Chunk("x"), DONE]


async def test_a_lease_of_an_earlier_epoch_is_refused(memory):
    """Whoever was replaced cannot write, nor end what is not its own. On Redis: test_generation_log_states.py."""
    claim = await memory.claim("a")
    epoch = claim.generation.claim()

    for record in (Chunk("x"), DONE):
        with pytest.raises(StaleEpoch):
            await memory.log.append(claim.lease, record)
    await memory.log.append(Lease(claim.generation, epoch), DONE)

    assert claim.generation.records[1:] == [DONE]


@pytest.mark.parametrize(
    "sealed", [DONE, Sealed(state=State.FAILED), Sealed(state=State.CANCELLED, failure=Cancelled("stopped"))]
)
async def test_a_sealed_generation_is_joined_no_more_but_can_be_found(subject, sealed):
    """The next one who asks gets a new answer; who was reading can come back."""
    generation = await subject.ended("a", sealed=sealed)

    assert await subject.log.under_way("a") is None
    assert await subject.log.find("a") is generation
    with pytest.raises(IllegalMove):
        await subject.log.append(Lease(generation, generation.epoch), Chunk("more"))
    assert (await subject.claim("b", "a")).lease is not None


async def test_an_ended_generation_is_kept_for_its_time_and_not_longer(memory):
    """From the moment it ended."""
    await memory.ended("a")
    memory.clock.advance(63.5)
    assert await memory.kept("a") == "a"

    memory.clock.advance(0.5)

    assert await memory.kept("a") == ""


async def test_a_running_generation_is_kept_for_as_long_as_it_runs(memory):
    """Neither time nor other generations push it out."""
    await memory.claim("running")
    for name in "abcd":
        await memory.ended(name)
    memory.clock.advance(10_000)

    assert await memory.log.find("running")


async def test_the_latest_few_are_kept(memory):
    """The oldest goes first."""
    for name in "abcde":
        await memory.ended(name)

    assert await memory.kept("abcde") == "cde"


async def test_the_latest_so_many_bytes_are_kept(memory):
    """Three that fit apart do not fit together."""
    for name in "abc":
        await memory.ended(name, "x" * 500)

    assert await memory.kept("abc") == "bc"


async def test_one_that_is_larger_than_all_drives_no_other_out_and_can_be_come_back_to(memory):
    """One huge answer must not cost everybody else their way back; nor may a lost network cost its asker all of it."""
    await memory.ended("a")
    await memory.ended("huge", "x" * 10_000)

    assert await memory.kept(["a", "huge"]) == "ahuge"
    assert await memory.log.under_way("huge") is None


async def test_of_those_that_are_larger_than_all_the_latest_is_kept_for_its_time(memory):
    """One is no danger to memory, all would be."""
    for name in "ab":
        await memory.ended(name, "x" * 10_000)
    assert await memory.kept("ab") == "b"

    memory.clock.advance(64)

    assert await memory.kept("ab") == ""
    assert memory.generations._oversized is None


async def test_one_that_somebody_else_holds_is_found_for_its_time(memory):
    """A cache still serves it, under an id that must lead somewhere."""
    held = await memory.ended("a")
    for name in "bcde":
        await memory.ended(name)

    assert await memory.log.find("a") is held
    memory.clock.advance(64)
    assert await memory.log.find("a") is None


async def test_what_nobody_has_joined_is_not_read_elsewhere(subject):
    """Its provider's call can be ended at once; and who comes here meanwhile is read to."""
    claim = await subject.claim("a")

    assert not await subject.log.is_read_elsewhere(claim.generation)


async def test_an_unknown_id_finds_nothing(subject):
    """Nor does an unknown question."""
    assert await subject.log.find("nobody") is None
    assert await subject.log.under_way("nothing") is None


async def test_memory_is_given_back(memory):
    """After everything has expired nothing is held, whatever was asked."""
    for number in range(100):
        await memory.ended(f"g{number}", "x" * 10)
    memory.clock.advance(64)
    await memory.log.find("any")

    generations = memory.generations
    assert (generations._under_way, generations._by_question, generations._kept) == ({}, {}, {})
    assert (len(generations._ended), len(generations._expires_at_s), generations._kept_bytes) == (0, 0, 0)
