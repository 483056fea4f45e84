"""One log, one leader, and every reader sees all of it, once and in order."""

import asyncio
import gc
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import Chunk
from domain.generation import (
    FORKS,
    MOVES,
    NOWHERE,
    Generation,
    IllegalMove,
    Move,
    Opened,
    ProviderChange,
    Reader,
    Sealed,
    StaleEpoch,
    State,
)
from tests.loops import run, settle

pytestmark = pytest.mark.anyio

OPENED = Opened(generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope="", model="m")
SEALS = {Move.ANSWERED: State.DONE, Move.FAILED: State.FAILED, Move.STOPPED: State.CANCELLED}
SILENCE_S = 8.0


def begun():
    """A generation and the epoch of its leader."""
    generation = Generation(OPENED)
    return generation, generation.claim()


def do(generation, epoch, move):
    """Make `move` happen by the method that is there for it."""
    if move is Move.CLAIMED:
        generation.claim()
    else:
        generation.append(epoch, Sealed(state=SEALS[move]) if move in SEALS else Chunk("more"))


@pytest.mark.parametrize(("state", "move"), list(itertools.product(State, Move)))
def test_every_pair_either_moves_as_the_table_says_or_is_refused(state, move):
    """What the table does not list is a defect, never a silent no-op."""
    generation, epoch = begun()
    generation.state = state
    records = list(generation.records)

    if (state, move) in MOVES:
        do(generation, epoch, move)
        assert generation.state is MOVES[state, move]
    else:
        with pytest.raises(IllegalMove, match=f"{move.name} cannot happen while {state.name}"):
            do(generation, epoch, move)
        assert (generation.state, generation.records) == (state, records)


@pytest.mark.parametrize("move", [Move.APPENDED, *SEALS])
def test_a_leader_that_was_replaced_can_write_no_more(move):
    """Two instances never both write."""
    generation, old = begun()
    new = generation.claim()

    with pytest.raises(StaleEpoch):
        do(generation, old, move)

    assert generation.records == [OPENED]
    do(generation, new, move)
    assert len(generation.records) == 2


def test_a_generation_says_who_is_asked_and_how_it_ended():
    """The latest change of provider counts; there is no end before the end."""
    generation, epoch = begun()
    assert (generation.opened, generation.provider, generation.sealed) == (OPENED, "", None)

    for name in ("a", "b"):
        generation.append(epoch, ProviderChange(status="selected", provider=name, model="m"))
    generation.append(epoch, Chunk("x"))
    sealed = Sealed(state=State.DONE)
    generation.append(epoch, sealed)

    assert (generation.provider, generation.sealed) == ("b", sealed)


STEPS = st.lists(
    st.one_of(
        st.just(("append",)),
        st.tuples(st.just("join"), st.integers(0, 30)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("silence"), st.sampled_from([1.0, 4.0, 8.0, 32.0])),
        st.just(("turn",)),
    ),
    max_size=40,
)


class Audience:
    """Readers that come and go, each in a task, and what each has seen."""

    def __init__(self, generation):
        self.generation = generation
        self.reading = []
        self.transcripts = []

    def join(self, position):
        position = min(position, len(self.generation.records))
        seen = []
        self.transcripts.append((position, seen))
        self.reading.append((asyncio.get_running_loop().create_task(self._read(position, seen)), seen))

    def leave(self, which):
        if self.reading:
            self.reading.pop(which % len(self.reading))[0].cancel()

    async def _read(self, position, seen):
        reader = Reader(self.generation, position)
        try:
            while not (seen and type(seen[-1]) is Sealed):
                seen += await reader.read(SILENCE_S)
        finally:
            reader.close()


async def play(steps):
    """The log, all transcripts, and those of the readers that stayed, after `steps` and an end."""
    generation, epoch = begun()
    audience = Audience(generation)
    for number, (step, *argument) in enumerate(steps):
        match step:
            case "append":
                generation.append(epoch, Chunk(str(number)))
            case "join":
                audience.join(*argument)
            case "leave":
                audience.leave(*argument)
            case "silence":
                await asyncio.sleep(*argument)
            case "turn":
                await asyncio.sleep(0)
    generation.append(epoch, Sealed(state=State.DONE))
    await asyncio.gather(*(task for task, _ in audience.reading))
    await settle()
    return generation, audience.transcripts, [seen for _, seen in audience.reading]


@given(STEPS)
def test_every_reader_sees_every_record_from_its_position_once_and_in_order(steps):
    """Whoever joins where, reads when and leaves early: no record is lost, doubled or out of place."""
    generation, transcripts, stayed = run(play(steps))

    assert all(seen[-1] is generation.sealed for seen in stayed)
    for position, seen in transcripts:
        assert seen == generation.records[position : position + len(seen)]
    assert generation.reader_count == 0
    assert not generation._waiting


@pytest.mark.parametrize("position", range(6))
async def test_a_reader_can_join_at_every_position_of_a_running_generation(position):
    """Also at the very end, where it waits for what comes."""
    generation, epoch = begun()
    for text in "abcd":
        generation.append(epoch, Chunk(text))
    reader = Reader(generation, min(position, len(generation.records)))
    seen = [] if position >= 5 else list(await reader.read(SILENCE_S))

    generation.append(epoch, Sealed(state=State.DONE))
    seen += await reader.read(SILENCE_S)
    reader.close()

    assert seen == generation.records[min(position, 5) :]


async def test_silence_is_told_again_and_again_after_exactly_that_long():
    """A heartbeat is due at every interval of silence, not only at the first."""
    generation, _ = begun()
    reader, loop = Reader(generation, 1), asyncio.get_running_loop()
    woken_s = []

    for _ in range(4):
        assert await reader.read(SILENCE_S) == []
        woken_s.append(loop.time())
    reader.close()

    assert [later - earlier for earlier, later in itertools.pairwise(woken_s)] == [SILENCE_S] * 3


@pytest.mark.parametrize("record_after_s", [1.0, 4.0, 7.5])
async def test_a_record_in_between_begins_a_new_silence(record_after_s):
    """One timer serves all waits; it must not wake the next wait early."""
    generation, epoch = begun()
    reader, loop = Reader(generation, 1), asyncio.get_running_loop()
    loop.call_later(record_after_s, generation.append, epoch, Chunk("a"))

    assert await reader.read(SILENCE_S) == [Chunk("a")]
    began_s = loop.time()
    assert await reader.read(SILENCE_S) == []
    reader.close()

    assert loop.time() - began_s == SILENCE_S


async def test_a_reader_that_was_busy_for_long_still_waits_a_whole_silence():
    """The timer goes on ticking while a slow client is being written to."""
    generation, epoch = begun()
    reader, loop = Reader(generation, 1), asyncio.get_running_loop()
    loop.call_later(1.0, generation.append, epoch, Chunk("a"))
    await reader.read(SILENCE_S)
    await asyncio.sleep(2.5 * SILENCE_S)
    began_s = loop.time()

    assert await reader.read(SILENCE_S) == []
    reader.close()

    assert loop.time() - began_s == SILENCE_S


async def test_readers_that_have_left_leave_nothing_behind():
    """A thousand readers, half of them cancelled while they wait: no future, no timer, no reader is kept."""
    generation, epoch = begun()
    audience = Audience(generation)
    for _ in range(1000):
        audience.join(0)
    await settle()
    for _ in range(500):
        audience.leave(0)
    await settle()
    assert len(generation._waiting) == 500

    generation.append(epoch, Sealed(state=State.DONE))
    await settle()
    gc.collect()

    assert (generation.reader_count, len(generation._waiting)) == (0, 0)
    assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []
    assert not [kept for kept in gc.get_objects() if isinstance(kept, Reader) and kept.generation is generation]


async def test_the_last_reader_to_leave_makes_the_generation_deserted():
    """Only the last one, and again when others have come and gone."""
    generation, _ = begun()
    deserted = []
    generation.on_deserted = lambda: deserted.append(generation.reader_count)
    first, second = Reader(generation), Reader(generation)

    first.close()
    assert deserted == []
    second.close()
    Reader(generation).close()

    assert deserted == [0, 0]


def test_the_size_counts_what_comes_beside_the_text():
    """A tool call's arguments take memory like any text."""
    plain, called = Generation(OPENED), Generation(OPENED)
    plain.append(plain.claim(), Chunk("x"))
    called.append(called.claim(), Chunk("x", delta={"tool_calls": ["y" * 1000]}))

    assert called.size_bytes > plain.size_bytes + 2000


CHANGES = st.integers(0, FORKS).map(
    lambda fork: ProviderChange(status="continued", provider="a", model="a-1", fork=fork)
)
LOGS = st.tuples(
    st.lists(st.text(max_size=5).map(Chunk) | CHANGES, max_size=8), st.sampled_from([None, *SEALS.values()])
)


@given(LOGS)
def test_a_log_that_is_replayed_is_as_one_that_was_appended_to(log):
    """What comes from elsewhere whole is built at once."""
    told, state = log
    generation = Generation(OPENED)
    for record in [*told, *([Sealed(state=state)] if state else [])]:
        generation.append(0, record)

    replayed = Generation.replayed(generation.records)

    assert replayed.records == generation.records
    assert (replayed.state, replayed.size_bytes) == (generation.state, generation.size_bytes)
    assert [*map(replayed.fork_of, range(12))] == [*map(generation.fork_of, range(12))]


def test_a_record_is_in_the_fork_that_began_last():
    """Also one that is still to come; but not the first two, which are told before it is known who goes on."""
    generation = Generation(OPENED)
    assert not generation.has_forked
    for fork in (0, 7, 0, 8):
        generation.append(0, ProviderChange(status="continued", provider="a", model="a-1", fork=fork))
        generation.append(0, Chunk("x"))

    assert [*map(generation.fork_of, range(11))] == [0, 0, 0, 7, 7, 7, 7, 8, 8, 8, 8]
    assert [generation.has_left(fork) for fork in (0, 7, 8, 9, NOWHERE)] == [True, True, False, False, True]
    assert [Generation(OPENED).has_left(fork) for fork in (0, 7, NOWHERE)] == [False, False, True]
    early = Generation.replayed([OPENED, Sealed(state=State.FAILED, fork=9)])
    assert [early.has_forked, *map(early.fork_of, range(4))] == [True, 0, 0, 9, 9]


def test_who_goes_on_has_a_fork_that_was_not_there():
    """For as long as there are some."""
    generation, forks = Generation(OPENED), []
    for _ in range(FORKS):
        forks.append(generation.new_fork())
        generation.append(0, ProviderChange(status="continued", provider="a", model="a-1", fork=forks[-1]))

    assert sorted(forks) == [*range(1, FORKS + 1)]
    assert generation.new_fork() in forks


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ([], ValueError),
        ([Chunk("no opening")], ValueError),
        ([OPENED, Sealed(state=State.DONE), Chunk("more")], IllegalMove),
    ],
)
def test_what_is_no_log_is_not_replayed(log, error):
    """It comes from where anybody may have written."""
    with pytest.raises(error):
        Generation.replayed(log)
