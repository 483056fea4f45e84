"""A leader belongs to its readers together, and to none of them."""

import asyncio
import gc
import weakref
from dataclasses import replace

import pytest

from domain.chat import Caller, Chunk
from domain.errors import AllProvidersDown, Cancelled, Forbidden, Internal, ProviderRejected, ProviderUnavailable
from domain.events import AnswerServed, AttemptEnded, DefectFound, GenerationSealed, StageTimed
from domain.generation import FORKS, Opened, ProviderChange, Sealed, Seen, State
from domain.leading import LOOK_S, Task
from domain.ports import Lease
from domain.progress import Progress
from domain.tracking import Tracker
from infrastructure.memory.generation_log import MemoryGenerationLog
from infrastructure.memory.response_cache import MemoryResponseCache
from tests.domain.service import ANN, GRACE_S, QUESTION, STOP, WHOLE, Service, read
from tests.loops import settle

pytestmark = pytest.mark.anyio

BOB = Caller(user="bob", tenant="acme", tier="standard")


def endless():
    """A script that gives one chunk and then nothing."""
    return (Chunk("x"), asyncio.Event())


async def test_two_hundred_who_ask_at_once_cause_one_call_and_all_get_the_whole_answer():
    """The promise that nobody pays twice."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    answers = await asyncio.gather(*(service.ask(Caller(user=f"u{n}")) for n in range(200)))
    reading = [asyncio.create_task(read(answer)) for answer in answers]
    await settle()
    gate.set()

    transcripts = await asyncio.gather(*reading)

    generation = answers[0].generation
    assert service.call_count == 1
    assert all(transcript == generation.records for transcript in transcripts)
    assert generation.records[2:5] == [Chunk("x"), Chunk("y"), STOP]
    assert sorted(answer.cache for answer in answers) == ["coalesced"] * 199 + ["miss"]
    assert await service.is_at_rest()


async def test_a_generation_outlives_its_first_asker_while_anybody_reads():
    """The one who happened to be first is no more than a reader."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    first = await service.ask()
    follower = await service.ask(BOB)
    await settle()

    first.close()
    await asyncio.sleep(10 * GRACE_S)
    gate.set()
    records = await read(follower)

    assert records[-1].state is State.DONE
    assert service.call_count == 1
    assert await service.is_at_rest()


async def test_a_generation_is_stopped_a_grace_period_after_its_last_reader_left():
    """Not before, for a client that reconnects; and not later, for it is paid for."""
    service = Service(endless())
    answer = await service.ask()
    await asyncio.sleep(1.0)
    answer.close()

    await asyncio.sleep(GRACE_S - 0.5)
    assert service.provider.open_streams == 1
    await asyncio.sleep(1.0)

    sealed = answer.generation.sealed
    assert (sealed.state, str(sealed.failure)) == (State.CANCELLED, "Nobody was reading it any more.")
    assert sealed.duration_s == 1.0 + GRACE_S
    assert service.events.of(AttemptEnded)[0].outcome == "cancelled"
    assert service.breakers.told["a"] == ["success", "abandon"]
    assert await service.is_at_rest()


async def test_a_reader_that_comes_back_in_time_keeps_the_generation_going():
    """A reconnect after a dropped network is the usual case."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    answer = await service.ask()
    await settle()
    answer.close()
    await asyncio.sleep(GRACE_S - 1.0)

    again = await service.lifecycle.join(answer.stream_id, ANN, "new", Seen(1))
    await asyncio.sleep(10 * GRACE_S)
    gate.set()

    assert await read(again) == [Chunk("x"), STOP, answer.generation.sealed]
    assert answer.generation.state is State.DONE


async def test_the_grace_period_begins_anew_with_every_last_reader():
    """One who came back and was dropped again has the whole time again."""
    service = Service(endless())
    answer = await service.ask()
    await settle()
    answer.close()
    await asyncio.sleep(GRACE_S - 1.0)
    again = await service.lifecycle.join(answer.stream_id, ANN, "new", None)
    again.close()

    await asyncio.sleep(GRACE_S - 1.0)
    assert answer.generation.sealed is None
    await asyncio.sleep(1.5)

    assert answer.generation.state is State.CANCELLED
    assert await service.is_at_rest()


class ReadElsewhere(MemoryGenerationLog):
    """Another process reads everything, until `is_read` is false; `looks` are those that were asked for."""

    def __init__(self, generations):
        super().__init__(generations)
        self.is_read, self.looks = True, []

    async def is_read_elsewhere(self, generation):
        self.looks.append(generation)
        return self.is_read


@pytest.mark.parametrize("grace_s", [0.0, 0.25, GRACE_S])
async def test_what_is_read_elsewhere_goes_on_and_is_looked_at_now_and_then(grace_s):
    """Even without a grace period, who asks again and again does nothing else."""
    service = Service(endless(), grace_s=grace_s, log_kind=ReadElsewhere)
    answer = await service.ask()
    await settle()
    answer.close()
    await asyncio.sleep(32.25)

    assert answer.generation.sealed is None
    assert len(service.log.looks) <= 1 + 32.25 / max(grace_s, LOOK_S)

    service.log.is_read = False
    await asyncio.sleep(max(grace_s, LOOK_S))
    assert answer.generation.state is State.CANCELLED
    assert await service.is_at_rest()


async def test_a_generation_that_nobody_ever_read_is_stopped_too():
    """As when its asker's request failed after the claim."""
    service = Service(endless())
    claim = await service.log.claim(
        Opened(generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope="", model="m"),
        QUESTION,
    )
    trace = Tracker(0.0, service.events.publish, service.loop.time).begin("t")
    routes = service.lifecycle._policy.models["m"].routes
    service.leaders.start(claim.lease, Task(request=QUESTION, routes=routes, trace=trace))

    await asyncio.sleep(GRACE_S + 1.0)

    assert claim.generation.state is State.CANCELLED
    assert await service.is_at_rest()


async def test_who_reads_an_ended_generation_again_sets_no_timer():
    """A popular stored answer is read a thousand times a second."""
    service = Service()
    await service.asked()
    for _ in range(10):
        await service.asked()
        assert await service.is_at_rest()


async def test_its_asker_can_stop_a_stream_for_everybody():
    """Every reader hears that it was stopped; the call is closed at once."""
    service = Service(endless())
    answers = [await service.ask(), *[await service.ask(BOB) for _ in range(20)]]
    reading = [asyncio.create_task(read(answer)) for answer in answers]
    await settle()

    await service.lifecycle.stop(answers[0].stream_id, ANN)
    transcripts = await asyncio.gather(*reading)

    assert {transcript[-1].state for transcript in transcripts} == {State.CANCELLED}
    failure = transcripts[0][-1].failure
    assert (type(failure), str(failure), failure.code) == (Cancelled, "The stream was stopped.", "cancelled")
    assert service.loop.time() == 0.0
    assert await service.is_at_rest()


async def test_nobody_else_can_stop_a_stream():
    """A follower would take the answer from the others."""
    service = Service(endless())
    answer = await service.ask()

    with pytest.raises(Forbidden):
        await service.lifecycle.stop(answer.stream_id, BOB)

    assert answer.generation.sealed is None
    answer.close()


async def test_stopping_what_has_ended_changes_nothing():
    """The DELETE that came a moment late is no error."""
    service = Service()
    answer = await service.ask()
    await read(answer)
    assert await service.is_at_rest()

    await service.lifecycle.stop(answer.stream_id, ANN)

    assert answer.generation.state is State.DONE


@pytest.mark.parametrize("stops", [1, 2])
async def test_what_is_about_to_be_sealed_is_stored_and_settled_whoever_stops_it(stops):
    """It has been paid for, its readers have it whole, and a reservation that nobody settles is spent."""
    service = Service(WHOLE, tokens_per_minute=2000)
    written, append = asyncio.Event(), service.log.append

    async def write(lease, record):
        if isinstance(record, Sealed):
            await written.wait()
        await append(lease, record)

    async def write_whoever_waits(lease, record):
        await asyncio.shield(asyncio.create_task(write(lease, record)))

    service.log.append = write_whoever_waits
    answer = await service.ask()
    await settle()
    for _ in range(stops):
        await service.lifecycle.stop(answer.stream_id, ANN)
        await settle()
    written.set()
    records = await read(answer)
    await settle()

    assert records[-1].state is State.DONE
    assert (await service.asked())[0] == "l1"
    assert service.usage.quota(ANN).remaining > 1900
    assert await service.is_at_rest()


async def test_two_who_stop_a_stream_at_once_stop_it_once():
    """The second must not end the sealing that the first has caused: what was reserved would be spent."""
    service = Service(endless(), tokens_per_minute=2000)
    sealing, append = asyncio.Event(), service.log.append

    async def write(lease, record):
        if isinstance(record, Sealed):
            await sealing.wait()
        await append(lease, record)

    service.log.append = write
    answer = await service.ask()
    await settle()
    for _ in range(2):
        await service.lifecycle.stop(answer.stream_id, ANN)
        await settle()
    sealing.set()
    records = await read(answer)
    await settle()

    assert records[-1].state is State.CANCELLED
    assert service.usage.quota(ANN).remaining > 1900
    assert await service.is_at_rest()


@pytest.mark.parametrize("turns", [0, 1, 30])
async def test_closing_ends_every_generation_even_one_that_has_not_begun(turns):
    """A reader must hear of the end, or it would wait for ever."""
    service = Service(endless())
    answers = [await service.ask(), await service.ask(cache_control="no-cache")]
    for _ in range(turns):
        await asyncio.sleep(0)

    await service.leaders.close()

    for answer in answers:
        assert str((await read(answer))[-1].failure) == "This instance is shutting down."
    assert await service.is_at_rest()


class GoesOnElsewhere(MemoryGenerationLog):
    """Another process goes on with what this one leaves."""

    async def can_go_on_elsewhere(self, generation):
        return generation.sealed is None


@pytest.mark.parametrize("left_after_s", [0.0, 0.5])
async def test_what_others_go_on_with_is_left_to_them_though_its_reader_here_notices_late(left_after_s):
    """Its client has gone already, or the server would not end."""
    service = Service(endless(), log_kind=GoesOnElsewhere)
    answer = await service.ask()
    await settle()
    asyncio.get_running_loop().call_later(left_after_s, answer.close)

    await service.leaders.close()

    assert answer.generation.sealed is None
    assert answer.stream_id not in service.leaders._running


@pytest.mark.parametrize("model", ["m", "unknown"])
@pytest.mark.parametrize("epoch", [0, 1])
async def test_who_goes_on_with_what_another_began_says_so_with_its_first_record(model, epoch):
    """The other may live on, and tell more: what either has told can be told apart. So it is when nobody can go on."""
    service = Service((Chunk(" y"), STOP), (Chunk(" z"), STOP))
    opened = replace((await service.ask()).generation.opened, generation_id="left", fingerprint="left", model=model)
    told = (ProviderChange(status="selected", provider="a", model="a-1"), Chunk("x"))
    generation = service.log._generations.begin(opened, epoch, told)

    service.log.took_over(Lease(generation, generation.claim()), QUESTION)
    await service.leaders._running["left"][1]

    [first, *rest] = generation.records[3:]
    assert 1 <= first.fork <= FORKS
    assert {generation.fork_of(number) for number in range(3)} == {0}
    assert {generation.fork_of(number) for number in range(3, len(generation.records))} == {first.fork}
    assert not any(record.fork for record in rest if not isinstance(record, Chunk))
    assert generation.sealed is not None
    assert bool(rest) is (model == "m")


async def test_stopping_a_stream_that_has_not_begun_seals_it():
    """Its asker was quicker than its leader."""
    service = Service(endless())
    answer = await service.ask()

    await service.lifecycle.stop(answer.stream_id, ANN)

    assert (await read(answer))[-1].state is State.CANCELLED
    assert await service.is_at_rest()


async def test_a_failure_is_sealed_with_its_reasons_and_frees_everything():
    """Every reader gets the same error."""
    service = Service((ProviderUnavailable("is down"),))
    (await service.breakers.acquire("b/b-1")).failure()
    service.breakers.told.clear()

    _, sealed = await service.asked()

    assert sealed.state is State.FAILED
    assert type(sealed.failure) is AllProvidersDown
    assert sealed.failure.attempts[0].reason == "is down"
    assert await service.is_at_rest()


class Unwritable(MemoryGenerationLog):
    """A log that has a defect, and takes no chunk."""

    async def append(self, lease, record):
        if isinstance(record, Chunk):
            raise ZeroDivisionError("of the log")
        await super().append(lease, record)


async def test_a_defect_of_ours_is_sealed_as_internal_and_told():
    """Readers must hear that the answer ended; the cause goes to the log, not to the client."""
    service = Service(log_kind=Unwritable)

    _, sealed = await service.asked()

    assert sealed.state is State.FAILED
    assert type(sealed.failure) is Internal
    assert "of the log" not in str(sealed.failure)
    assert [found.thread_id for found in service.events.of(DefectFound)] == ["t"]
    assert service.events.of(AttemptEnded)[0].outcome == "defect"
    assert len(service.provider.requests) + len(service.spare.requests) == 1
    assert await service.is_at_rest()


async def test_a_defect_in_reading_a_provider_is_told_and_costs_nobody_the_answer():
    """The next route gives the rest of it."""
    service = Service((Chunk("x"), ZeroDivisionError("of an adapter")))

    _, sealed = await service.asked()

    assert sealed.state is State.DONE
    assert [found.thread_id for found in service.events.of(DefectFound)] == ["t"]
    assert await service.is_at_rest()


class Canary:
    """Something in a frame of a request."""


@pytest.mark.parametrize(
    "failure", [ProviderUnavailable("is down"), ProviderRejected("is refused"), ZeroDivisionError("a defect"), None]
)
async def test_a_kept_failure_keeps_no_frame_alive(failure):
    """Ended generations are kept for an hour; their requests' frames are not."""
    service = Service(continues=False)
    canaries = []

    class Step(asyncio.Event):
        async def wait(self):
            canary = Canary()
            canaries.append(weakref.ref(canary))
            if failure is None:
                await super().wait()
            raise failure

    service.provider.scripts = ((Chunk("x"), Step()),)
    answer = await service.ask()
    await settle()
    if failure is None:
        await service.lifecycle.stop(answer.stream_id, ANN)
    sealed = (await read(answer))[-1]
    await settle()
    service.events.all.clear()
    if failure is not None:
        failure.__traceback__ = failure.__context__ = failure.__cause__ = None
    gc.collect()

    kept = sealed.failure
    assert (kept.__traceback__, kept.__context__, kept.__cause__) == (None, None, None)
    assert canaries
    assert [canary() for canary in canaries] == [None] * len(canaries)


async def test_sealing_is_published_with_its_stages_once():
    """Stage 5 and 6 belong to the leader; the trace of the asker ends with them."""
    service = Service()
    await service.asked()

    assert len(service.events.of(GenerationSealed)) == 1
    assert [event.stage for event in service.events.of(StageTimed)] == [
        "1", "CP.1", "CP.2", "CP.3", "CP.4", "2", "2.1", "2.2", "2.3", "3", "4", "5", "6", "CP.5",
    ]  # fmt: skip


async def test_a_listener_that_raises_costs_nobody_an_answer():
    """At whatever event."""
    service = Service()
    served = []

    def defective(event):
        served.append(event)
        raise RuntimeError

    for kind in (GenerationSealed, AttemptEnded, AnswerServed, StageTimed):
        service.events.subscribe(kind, defective)

    _, sealed = await service.asked()

    assert sealed.state is State.DONE
    assert served
    assert len(service.events.of(DefectFound)) == len(served)
    assert await service.is_at_rest()


def test_progress_counts_from_its_making():
    """One clock for the beginning, the first chunk and the end."""
    times_s = iter([1.0, 3.0, 7.0])
    progress = Progress(thread_id="t", clock=lambda: next(times_s))
    for chunk in (Chunk("x"), STOP):
        progress.came(chunk)

    sealed = progress.sealed(State.DONE)

    assert (sealed.ttft_s, sealed.duration_s, sealed.chunk_count) == (2.0, 6.0, 2)


class Unreadable(MemoryResponseCache):
    """A cache that has a defect."""

    async def get(self, fingerprint):
        raise ZeroDivisionError(f"of the cache, at {fingerprint}")


async def test_a_defect_in_a_cache_is_told_and_costs_nobody_the_answer():
    """What cannot be looked up can be asked for."""
    service = Service()
    kept = {"max_entries": 1, "max_bytes": 1000, "ttl_s": 60.0}
    unreadable = Unreadable(**kept, purges=service.purges, unix_now=service.loop.time)
    service.leaders._caches = (unreadable, service.l1)

    _, sealed = await service.asked()

    assert sealed.state is State.DONE
    assert [found.thread_id for found in service.events.of(DefectFound)] == ["t"]
    assert await service.is_at_rest()
