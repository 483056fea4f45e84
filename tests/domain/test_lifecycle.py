"""The six stages: what each does, and what each refuses."""

import asyncio

import pytest

from domain.answer import CacheStatus
from domain.chat import Caller, ChatRequest, Chunk, Usage
from domain.errors import (
    AllProvidersDown,
    AtCapacity,
    Forbidden,
    InvalidRequest,
    NotCached,
    ProviderUnavailable,
    RateLimited,
    StreamUnavailable,
    TooManyConnections,
    UnknownModel,
    UnknownStream,
    WeirError,
)
from domain.events import (
    AnswerServed,
    CacheHit,
    CacheMiss,
    Coalesced,
    FirstChunkServed,
    GenerationSealed,
    RequestAdmitted,
    RequestTurnedAway,
    StageTimed,
)
from domain.fingerprint import CacheScope, fingerprint
from domain.generation import NOWHERE, Opened, ProviderChange, Seen, State
from domain.ports import Claim
from domain.spending import Spending
from infrastructure.memory.generation_log import MemoryGenerationLog
from tests.domain.service import ANN, GRACE_S, LIMIT, ONE_A_MINUTE, QUESTION, STOP, TTL_S, WHOLE, Service, read
from tests.loops import settle

pytestmark = pytest.mark.anyio

BOB = Caller(user="bob", tenant="acme", tier="standard")
EVE = Caller(user="eve", tenant="evil", tier="standard")
L1, L2, MISS, BYPASS, COALESCED = (
    CacheStatus.L1, CacheStatus.L2, CacheStatus.MISS, CacheStatus.BYPASS, CacheStatus.COALESCED
)  # fmt: skip


async def refusal(service, kind, **how):
    """The refusal of kind `kind`, which has freed everything and was told once."""
    taken_count = service.slots.taken_count
    with pytest.raises(kind) as refused:
        await service.ask(**how)
    assert service.slots.taken_count == taken_count
    assert [event.code for event in service.events.of(RequestTurnedAway)] == [refused.value.code]
    return refused.value


# Stage 1


async def test_an_unknown_model_is_refused_before_anything_is_taken():
    """With the names that would do."""
    service = Service()

    error = await refusal(service, UnknownModel, model="gpt-9")

    assert "gpt-9" in str(error)
    assert str(error).endswith("It has m.")
    assert service.events.of(RequestAdmitted) == []


async def test_a_preferred_provider_must_have_a_route_for_the_model():
    """A wish that can't be met is told, not ignored."""
    error = await refusal(Service(), InvalidRequest, provider="c")

    assert [field.field for field in error.errors] == ["provider"]


async def test_one_stream_more_than_the_process_carries_is_refused():
    """And the next one is served again once a place is free."""
    service = Service()
    answers = [await service.ask() for _ in range(LIMIT)]

    error = await refusal(service, AtCapacity)
    assert error.retry_after_s == 1.0

    answers[0].close()
    (await service.ask()).close()


async def test_one_who_waits_is_served_when_a_stream_ends():
    """Asking or joining; the first chunk's time is that since it asked."""
    service = Service(limit=1, queue_size=4)
    answer = await service.ask(BOB)
    asked = asyncio.create_task(service.asked())
    await settle()
    joined = asyncio.create_task(service.lifecycle.join(answer.stream_id, ANN, "new", None))
    await settle()
    assert service.slots.waiting_count == 2

    await asyncio.sleep(4.0)
    answer.close()
    cache, sealed = await asked
    assert (cache, sealed.state) == (CacheStatus.L1, State.DONE)
    assert service.events.of(FirstChunkServed)[-1].seconds == 4.0
    assert (await read(await joined))[-1].state is State.DONE
    assert await service.is_at_rest()


async def test_one_who_leaves_while_waiting_leaves_nothing():
    """Neither a slot nor a place in the queue."""
    service = Service(limit=1, queue_size=2)
    answer = await service.ask()
    asked = asyncio.create_task(service.asked())
    await settle()
    asked.cancel()
    await asyncio.wait([asked])
    answer.close()
    await read(await service.ask())

    assert service.slots.waiting_count == 0
    assert await service.is_at_rest()


async def test_every_stage_of_a_slot_is_tracked():
    """Its release too, when the rest has been reported; and a refusal, with what it was."""
    service = Service(limit=1, limit_per_user=1)
    await read(await service.ask())
    stages = [event.stage for event in service.events.of(StageTimed)]
    assert [stage for stage in stages if stage.startswith("CP.")] == ["CP.1", "CP.2", "CP.3", "CP.4", "CP.5"]

    await service.ask()
    await refusal(service, AtCapacity)
    failed = [(event.stage, event.error_type) for event in service.events.of(StageTimed) if event.error_type]
    assert failed == [("1", "AtCapacity"), ("CP.2", "AtCapacity")]


async def test_who_comes_back_to_a_stream_has_the_stages_of_a_slot_too():
    """It takes one as who asks does, and may be refused it."""
    service = Service(limit_per_user=1)
    answer = await service.ask()
    await read(answer)
    service.events.all.clear()
    again = await service.lifecycle.join(answer.stream_id, ANN, "again", None)
    with pytest.raises(TooManyConnections):
        await service.lifecycle.join(answer.stream_id, ANN, "refused", None)
    again.close()
    stages = [(event.thread_id, event.stage, event.error_type) for event in service.events.of(StageTimed)]

    assert stages == [
        *(("again", f"CP.{number}", None) for number in range(1, 5)),
        *(("refused", f"CP.{number}", None) for number in (1, 2)),
        ("refused", "CP.3", "TooManyConnections"),
        ("again", "CP.5", None),
    ]


async def test_one_stream_more_than_a_caller_may_have_is_refused():
    """Others are served as ever."""
    service = Service(limit_per_user=2)
    for _ in range(2):
        await service.ask()

    await refusal(service, TooManyConnections)

    await service.ask(BOB)
    assert service.slots.taken_count == 3


@pytest.mark.parametrize(
    ("limits", "caller", "error"),
    [({"limit": 1}, BOB, AtCapacity), ({"limit_per_user": 1}, ANN, TooManyConnections)],
)
async def test_who_has_no_slot_to_come_can_be_told_before_it_has_asked(limits, caller, error):
    """As if it had been read; while a slot is free nothing is taken and nothing is told."""
    service = Service(**limits)
    service.lifecycle.check_room(caller, "t")
    assert (service.slots.taken_count, service.events.of(RequestTurnedAway)) == (0, [])

    answer = await service.ask(ANN)
    with pytest.raises(error):
        service.lifecycle.check_room(caller, "t2")
    (told,) = service.events.of(RequestTurnedAway)
    assert (told.thread_id, told.code, told.caller, told.requested) == ("t2", error.code, caller, None)
    assert [event.error_type for event in service.events.of(StageTimed) if event.error_type] == [error.__name__]
    answer.close()


# Stage 2


async def test_an_answer_is_stored_and_the_next_one_is_served_from_memory():
    """For nothing: no call, and what the call has cost counts as saved."""
    service = Service()
    assert (await service.asked())[0] is MISS
    await asyncio.sleep(16.0)

    answer = await service.ask(BOB, thread_id="t2")
    records = await read(answer)

    assert (answer.cache, answer.age_s) == (L1, 16.0)
    assert tuple(records[2:-1]) == WHOLE
    assert service.call_count == 1
    assert service.events.of(CacheHit) == [
        CacheHit(thread_id="t2", tier="l1", fingerprint=fingerprint(QUESTION, "tenant:acme"))
    ]
    assert service.events.of(CacheMiss) == [CacheMiss(thread_id="t")]


async def test_an_answer_that_only_the_fleet_has_is_served_and_kept_nearer():
    """L2 fills L1."""
    service = Service()
    await service.asked()
    service.l1._drop(next(iter(service.l1._recordings)))

    assert [(await service.asked())[0] for _ in range(2)] == [L2, L1]
    assert service.call_count == 1


async def test_a_stored_answer_expires():
    """And is asked for again."""
    service = Service()
    await service.asked()
    await asyncio.sleep(TTL_S)

    assert (await service.asked())[0] is MISS


async def test_a_question_under_way_is_joined():
    """And told as such."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    first = await service.ask()
    follower = await service.ask(BOB, thread_id="t2")
    gate.set()

    assert follower.cache is COALESCED
    assert await read(first) == await read(follower)
    assert service.events.of(Coalesced) == [Coalesced(thread_id="t2", generation_id=first.stream_id)]


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [({}, True), ({"options": {"temperature": 1}}, False), ({"messages": ()}, False), ({"provider": "a"}, False)],
)
async def test_only_the_same_question_has_the_same_answer(changes, is_same):
    """Everything that can change the answer tells questions apart."""
    service = Service()
    await service.asked()

    assert (await service.asked(**changes))[0] is (L1 if is_same else MISS)


@pytest.mark.parametrize(
    ("scope", "bob", "eve"),
    [(CacheScope.SHARED, L1, MISS), (CacheScope.TENANT, L1, MISS), (CacheScope.USER, MISS, MISS)],
)
async def test_answers_are_shared_within_the_scope_only(scope, bob, eve):
    """Bob is of Ann's tenant, Eve is not: a tenant's answers are its own in any scope."""
    service = Service(scope=scope)
    await service.asked()

    assert ((await service.asked(caller=BOB))[0], (await service.asked(caller=EVE))[0]) == (bob, eve)


@pytest.mark.parametrize("scope", CacheScope)
async def test_streams_are_joined_within_the_scope_only(scope):
    """Beyond it the stream does not exist, whoever knows its id."""
    service = Service(scope=scope)
    answer = await service.ask()
    reach = set() if scope is CacheScope.USER else {"bob"}

    for caller in (BOB, EVE):
        if caller.user in reach:
            (await service.lifecycle.join(answer.stream_id, caller, "new", None)).close()
        else:
            for attempt in (
                service.lifecycle.join(answer.stream_id, caller, "new", None),
                service.lifecycle.stop(answer.stream_id, caller),
            ):
                with pytest.raises(UnknownStream):
                    await attempt
    answer.close()


async def test_who_has_no_tenant_shares_with_others_who_have_none():
    """And with no tenant, whose answers it would read otherwise."""
    service = Service()
    await service.asked(caller=Caller(user="address:192.0.2.1"))

    assert (await service.asked(caller=Caller(user="address:192.0.2.2")))[0] is L1
    assert (await service.asked())[0] is MISS


async def test_a_key_asks_for_its_own_models_only():
    """It is told which, and of no others that there are; nothing is begun."""
    service = Service()
    bound = Caller(user="cy", models=frozenset({"x", "n"}))
    with pytest.raises(Forbidden, match=r"'m'.*may ask for n, x\."):
        await service.ask(bound)
    with pytest.raises(UnknownModel, match="It has none"):
        await service.ask(bound, model="x")

    assert service.provider.requests == []
    assert (await service.asked(caller=Caller(user="cy", models=frozenset({"m"}))))[0] is MISS


async def test_a_stream_of_another_model_is_not_joined_either():
    """By whoever knows its id."""
    service = Service()
    answer = await service.ask(Caller(user="ann"))
    with pytest.raises(Forbidden):
        await service.lifecycle.join(answer.stream_id, Caller(user="cy", models=frozenset({"n"})), "t", None)
    answer.close()


# RFC 9111, section 5.2.1


async def test_no_cache_takes_nothing_stored_and_nothing_under_way():
    """Section 5.2.1.4: not without asking the origin; the new answer may be stored, and is the next one's."""
    service = Service(WHOLE, (Chunk("new"), STOP))
    await service.asked()

    assert (await service.asked(cache_control="no-cache"))[0] is BYPASS
    answer = await service.ask()

    assert (answer.cache, (await read(answer))[2]) == (L1, Chunk("new"))
    assert service.events.of(CacheMiss) == [CacheMiss(thread_id="t")]


async def test_no_cache_does_not_join_and_is_not_joined():
    """Section 5.2.1.4."""
    service = Service((Chunk("x"), asyncio.Event()))
    answers = [await service.ask(cache_control=header) for header in ("", "no-cache", "", "no-cache")]
    await settle()

    assert [answer.cache for answer in answers] == [MISS, BYPASS, COALESCED, BYPASS]
    assert service.call_count == 3
    for answer in answers:
        answer.close()


async def test_no_store_stores_nothing_but_may_be_served_what_is_stored():
    """Section 5.2.1.5."""
    service = Service()
    assert (await service.asked(cache_control="no-store"))[0] is BYPASS
    assert len(service.l1) + len(service.l2) == 0

    assert (await service.asked())[0] is MISS
    assert (await service.asked(cache_control="no-store"))[0] is L1


async def test_what_must_not_be_stored_cannot_be_read_after_its_end():
    """Section 5.2.1.5: removed as promptly as possible."""
    service = Service()
    answer = await service.ask(cache_control="no-store")
    await read(answer)

    with pytest.raises(UnknownStream):
        await service.lifecycle.join(answer.stream_id, ANN, "new", None)


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("max-age=100", L1),
        ("max-age=99", MISS),
        ("max-age=0", MISS),
        ("min-fresh=412", L1),
        ("min-fresh=413", MISS),
        ("max-age=200, min-fresh=412", L1),
        ("max-age=200, min-fresh=413", MISS),
        ("max-stale=9999", L1),
        ("no-transform", L1),
    ],
)
async def test_a_stored_answer_must_be_as_fresh_as_is_asked(cache_control, expected):
    """Sections 5.2.1.1 to 5.2.1.3: it is 100 s old and fresh for 412 s more."""
    service = Service()
    await service.asked()
    await asyncio.sleep(100.0)

    assert (await service.asked(cache_control=cache_control))[0] is expected


async def test_only_if_cached_is_served_what_is_stored():
    """Section 5.2.1.7."""
    service = Service()
    await service.asked()

    assert (await service.asked(cache_control="only-if-cached"))[0] is L1


@pytest.mark.parametrize("cache_control", ["only-if-cached", "only-if-cached, no-cache", "only-if-cached, max-age=0"])
async def test_only_if_cached_never_causes_a_call(cache_control):
    """Section 5.2.1.7: 504, also when what is stored may not be taken."""
    service = Service()
    if cache_control != "only-if-cached":
        await service.asked()
        await asyncio.sleep(1.0)
    calls = service.call_count

    await refusal(service, NotCached, cache_control=cache_control)

    assert service.call_count == calls
    assert await service.is_at_rest()


@pytest.mark.parametrize(
    "script",
    [
        (Chunk("x"), Chunk(finish_reason="content_filter")),
        (Chunk("x"), Chunk(finish_reason="something_new")),
        (Chunk("x"), ProviderUnavailable("is lost")),
        (ProviderUnavailable("is down"),),
    ],
)
async def test_what_is_not_whole_is_never_stored(script):
    """A refusal or a stump must not be served for an hour."""
    service = Service(script)
    service.spare.scripts = (script,)
    await service.asked()

    assert len(service.l1) + len(service.l2) == 0
    assert await service.is_at_rest()


async def test_a_cancelled_answer_is_never_stored():
    """It is a stump too."""
    service = Service((Chunk("x"), asyncio.Event()))
    answer = await service.ask()
    await settle()
    await service.lifecycle.stop(answer.stream_id, ANN)
    await read(answer)

    assert len(service.l1) + len(service.l2) == 0
    assert await service.is_at_rest()


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call"])
async def test_every_answer_that_ended_by_itself_is_stored(reason):
    """Also one that was as long as it was allowed to be."""
    service = Service((Chunk("x"), Chunk(finish_reason=reason)))
    await service.asked()

    assert (len(service.l1), len(service.l2)) == (1, 1)


# Stage 3


async def test_who_causes_work_spends_a_token_and_is_refused_without_one():
    """With the time to wait, and everything given back."""
    service = Service(rate=ONE_A_MINUTE)
    answer = await service.ask()
    assert answer.quotas[0].remaining == 0
    await read(answer)

    error = await refusal(service, RateLimited, model="m", options={"seed": 1})

    assert error.retry_after_s == 64.0
    assert service.call_count == 1


async def test_stored_answers_and_followers_are_free():
    """They cause no work."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP), rate=ONE_A_MINUTE)
    first = await service.ask()
    followers = [await service.ask() for _ in range(5)]
    gate.set()
    for answer in (first, *followers):
        await read(answer)

    hits = [await service.asked() for _ in range(5)]

    assert {cache for cache, _ in hits} == {L1}
    assert service.events.of(RequestTurnedAway) == []


async def test_joining_a_stream_again_is_free():
    """A dropped network costs nothing."""
    service = Service(rate=ONE_A_MINUTE)
    answer = await service.ask()
    await read(answer)

    for _ in range(5):
        await read(await service.lifecycle.join(answer.stream_id, ANN, "new", None))


async def test_who_loses_the_claim_to_another_follows_and_gets_the_token_back():
    """Two instances looked, saw nothing, and claimed: one of them leads."""
    service = Service((Chunk("x"), asyncio.Event()), rate=ONE_A_MINUTE)
    leading = await service.ask(BOB)
    log = service.lifecycle._log = LateLog(service.log)

    follower = await service.ask(thread_id="t2")

    assert log.claims == [Claim(leading.generation, None)]
    assert (follower.cache, follower.generation) == (COALESCED, leading.generation)
    assert follower.quotas[0].remaining == 1
    assert [event.stage for event in service.events.of(StageTimed) if event.thread_id == "t2"][-1] == "4"
    leading.close()
    follower.close()


class LateLog:
    """A log whose news of what is under way has not arrived yet."""

    def __init__(self, log):
        self._log = log
        self.claims = []

    async def under_way(self, _):
        return None

    async def claim(self, opened: Opened, request: ChatRequest):
        self.claims.append(await self._log.claim(opened, request))
        return self.claims[-1]


# Stage 4


async def test_with_every_circuit_open_the_request_is_refused_but_stored_answers_are_served():
    """What is known is served through an outage."""
    service = Service()
    await service.asked()
    for name in "ab":
        (await service.breakers.acquire(f"{name}/{name}-1")).failure()

    assert (await service.asked())[0] is L1
    error = await refusal(service, AllProvidersDown, options={"seed": 1})

    assert [attempt.provider for attempt in error.attempts] == ["a", "b"]


async def test_a_request_that_no_route_can_take_gets_its_token_back():
    """It has caused no work."""
    service = Service(rate=ONE_A_MINUTE)
    for name in ("a", "b"):
        (await service.breakers.acquire(f"{name}/{name}-1")).failure()

    for _ in range(2):
        with pytest.raises(AllProvidersDown):
            await service.ask()


async def test_a_preferred_provider_is_asked_first():
    """And the others after it."""
    service = Service()

    _, sealed = await service.asked(provider="b")

    assert (sealed.provider, service.provider.requests) == ("b", [])


# Stages 5 and 6: domain/leading.py; the slot


@pytest.mark.parametrize(
    ("port", "method"),
    [("l1", "get"), ("l2", "get"), ("log", "under_way"), ("spending", "begin"), ("log", "claim")],
)
@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_request_that_breaks_off_at_any_stage_frees_its_slot(port, method, error):
    """Whether by a defect or because its client is gone; a refusal is told, these are not."""
    service = Service()
    setattr(service.lifecycle, *broken(service, port, method, error))

    with pytest.raises(error):
        await service.ask()

    assert service.slots.taken_count == 0
    assert service.events.of(RequestTurnedAway) == []
    assert service.events.of(StageTimed)
    assert await service.is_at_rest()


def broken(service, port, method, error):
    """The lifecycle's attribute for `port`, and a port whose `method` raises."""
    ported = Broken(getattr(service, port), method, error)
    if port in {"l1", "l2"}:
        tiers = [(L1, service.l1), (L2, service.l2)]
        return "_tiers", [(name, ported if name == port else cache) for name, cache in tiers]
    return f"_{port}", ported


class Broken:
    """A port with one method that raises."""

    def __init__(self, port, method, error):
        self._port, self._method, self._error = port, method, error

    def __getattr__(self, name):
        return self._raise if name == self._method else getattr(self._port, name)

    async def _raise(self, *_):
        raise self._error


async def test_a_defect_after_the_claim_frees_the_slot_and_the_generation_ends_unread():
    """The last thing that can go wrong before there is an answer."""
    service = Service((Chunk("x"), asyncio.Event()))
    service.lifecycle._spending = Spending(BrokenQuota(), service.usage)

    with pytest.raises(ZeroDivisionError):
        await service.ask()
    await asyncio.sleep(8.0)

    assert service.events.of(GenerationSealed)[0].sealed.state is State.CANCELLED
    assert await service.is_at_rest()


class BrokenQuota:
    async def spend(self, _):
        """Nothing is limited."""

    def quota(self, _):
        raise ZeroDivisionError


async def test_a_slot_is_free_once_however_often_an_answer_is_closed():
    """Closing twice must not free another's place."""
    service = Service()
    first, second = await service.ask(), await service.ask(BOB)

    for _ in range(3):
        first.close()

    assert service.slots.taken_count == 1
    assert len(service.events.of(AnswerServed)) == 1
    second.close()
    assert service.slots.taken_count == 0


# Coming back


@pytest.mark.parametrize("after", [None, *map(Seen, range(6))])
async def test_a_stream_is_joined_after_any_event_and_nothing_is_lost_or_doubled(after):
    """Last-Event-ID says exactly what was seen."""
    service = Service()
    answer = await service.ask()
    whole = await read(answer)
    assert len(whole) == 6

    again = await service.lifecycle.join(answer.stream_id, ANN, "new", after)

    seen = 0 if after is None else after.number + 1
    assert again.has_nothing_left is (seen == 6)
    if seen < 6:
        assert await read(again) == whole[seen:]
    again.close()
    assert await service.is_at_rest()


@pytest.mark.parametrize("after", [Seen(6), Seen(7), Seen(10**9)])
async def test_an_event_beyond_the_end_cannot_have_been_seen(after):
    """It is another stream's number."""
    service = Service()
    answer = await service.ask()
    await read(answer)

    with pytest.raises(InvalidRequest, match="the last event of this stream is 5"):
        await service.lifecycle.join(answer.stream_id, ANN, "new", after)
    assert service.slots.taken_count == 0


async def test_an_event_that_is_still_to_come_cannot_have_been_seen():
    """Nobody knows more of an answer than who leads it."""
    service = Service((Chunk("x"), asyncio.Event()))
    answer = await service.ask()
    await settle()

    with pytest.raises(InvalidRequest, match="the last event of this stream is 2"):
        await service.lifecycle.join(answer.stream_id, ANN, "new", Seen(50))
    answer.generation.claim()  # an earlier leader may have had more, and it is not said yet that there was one
    with pytest.raises(StreamUnavailable):
        await service.lifecycle.join(answer.stream_id, ANN, "new", Seen(50))
    answer.close()


@pytest.mark.parametrize(
    ("after", "fits"),
    [
        (Seen(2), True),
        (Seen(2, fork=7), False),
        (Seen(3), False),
        (Seen(3, fork=6), False),
        (Seen(3, fork=7), True),
        (Seen(4, fork=7), True),
        (Seen(6), False),
        (Seen(10**6), False),
        (Seen(10**6, fork=6), False),
    ],
)
async def test_who_was_told_otherwise_is_not_told_the_rest_of_this(after, fits):
    """Who went on with it has its own records under their numbers, and so has who was gone on without."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, Chunk("y"), STOP))
    answer = await service.ask()
    await settle()
    change = ProviderChange(status="continued", provider="a", model="a-1", previous="a", fork=7)
    answer.generation.append(answer.generation.epoch, change)
    gate.set()
    whole = await read(answer)

    again = await service.lifecycle.join(answer.stream_id, ANN, "new", after)

    assert (again.failure and again.failure.code) == (None if fits else "stream_interrupted")
    assert not again.has_nothing_left
    assert not fits or await read(again) == whole[after.number + 1 :]
    again.close()
    assert service.events.of(AnswerServed)[-1].failure == (again.failure and again.failure.code)
    assert await service.is_at_rest()


class Behind(MemoryGenerationLog):
    """What it has may not be all."""

    async def catch_up(self, generation, number):  # noqa: ARG002  # the port's
        """Nobody can tell."""
        raise StreamUnavailable


@pytest.mark.parametrize(("fork", "may_come"), [(0, False), (NOWHERE, False), (7, True), (6, True)])
async def test_what_cannot_come_any_more_is_not_waited_for(fork, may_come):
    """Who was told by a leader that others went on without need not come again and again."""
    service = Service((Chunk("x"), asyncio.Event()), log_kind=Behind)
    answer = await service.ask()
    await settle()
    change = ProviderChange(status="continued", provider="a", model="a-1", previous="a", fork=7)
    answer.generation.append(answer.generation.epoch, change)
    answer.close()

    joining = service.lifecycle.join(answer.stream_id, ANN, "new", Seen(50, fork))
    if may_come:
        with pytest.raises(StreamUnavailable):
            await joining
    else:
        again = await joining
        assert again.failure.code == "stream_interrupted"
        again.close()


async def test_a_running_stream_can_be_joined_at_its_end():
    """Where it waits for what comes."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP))
    answer = await service.ask()
    await settle()
    again = await service.lifecycle.join(answer.stream_id, ANN, "new", Seen(len(answer.generation.records) - 1))
    assert not again.has_nothing_left
    gate.set()

    assert (await read(again))[0] == STOP
    answer.close()


async def test_an_unknown_stream_is_refused_and_so_is_one_no_longer_kept():
    """By the same words: who has no right to it must not see a difference."""
    service = Service()
    answer = await service.ask()
    await read(answer)
    await asyncio.sleep(TTL_S)

    for stream_id in ("nobody's", answer.stream_id):
        with pytest.raises(UnknownStream):
            await service.lifecycle.join(stream_id, ANN, "new", None)


async def test_nobody_joins_an_answer_that_is_being_stopped():
    """The next asker would be told that a stream was cancelled which it has never stopped."""
    hang = asyncio.Event()
    service = Service((Chunk("x"), hang, STOP), WHOLE)
    stopped = await service.ask()
    await settle()
    await service.lifecycle.stop(stopped.stream_id, ANN)

    cache, sealed = await service.asked()

    assert (cache, sealed.state) == (MISS, State.DONE)
    assert (await read(stopped))[-1].state is State.CANCELLED
    assert await service.is_at_rest()


async def test_who_waits_for_a_slot_to_come_back_is_a_reader_already():
    """The answer goes on although the wait is longer than what was left of the grace period."""
    gate = asyncio.Event()
    service = Service((Chunk("x"), gate, STOP), limit=1, queue_size=2)
    answer = await service.ask()
    await settle()
    answer.close()
    await asyncio.sleep(GRACE_S - 1.0)
    other = await service.ask(cache_control="no-cache")
    again = asyncio.create_task(service.lifecycle.join(answer.stream_id, ANN, "new", None))
    await asyncio.sleep(GRACE_S)
    other.close()
    joined = await again
    gate.set()

    assert (await read(joined))[-1].state is State.DONE
    assert answer.generation.reader_count == 0


async def test_who_waited_for_a_slot_in_vain_reads_no_more():
    """The grace period is counted from then on."""
    service = Service((Chunk("x"), asyncio.Event()), limit=1, queue_size=2)
    answer = await service.ask()
    with pytest.raises(AtCapacity):
        await service.lifecycle.join(answer.stream_id, ANN, "new", None)
    assert answer.generation.reader_count == 1

    answer.close()
    await asyncio.sleep(GRACE_S + 1.0)
    assert await service.is_at_rest()


async def test_joining_takes_a_slot_like_any_stream():
    """Otherwise the limit would be none."""
    service = Service((Chunk("x"), asyncio.Event()), limit_per_user=1)
    answer = await service.ask()

    with pytest.raises(TooManyConnections):
        await service.lifecycle.join(answer.stream_id, ANN, "new", None)
    assert [event.code for event in service.events.of(RequestTurnedAway)] == ["too_many_connections"]
    answer.close()


@pytest.mark.parametrize(
    ("cache_control", "thread_id", "cache"),
    [
        ("", None, MISS),
        ("", "t", MISS),
        ("no-cache", None, BYPASS),
        ("", "t2", COALESCED),
        ("no-cache", "t2", COALESCED),
    ],
)
async def test_a_joined_stream_is_told_as_it_was_to_its_asker(cache_control, thread_id, cache):
    """Another thread is another request, which caused no work."""
    service = Service()
    answer = await service.ask(cache_control=cache_control)
    await read(answer)

    again = await service.lifecycle.join(answer.stream_id, ANN, thread_id or "new", None, is_given=bool(thread_id))

    assert (again.cache, again.thread_id) == (cache, thread_id or "t")
    again.close()


@pytest.mark.parametrize(("thread_id", "is_given"), [("new", False), ("t2", True), ("t", True)])
async def test_a_stranger_who_joins_is_not_told_the_askers_thread(thread_id, is_given):
    """It is the name under which support finds the asker; who guesses it is no asker for that."""
    service = Service()
    answer = await service.ask()
    await read(answer)

    joined = await service.lifecycle.join(answer.stream_id, BOB, thread_id, None, is_given=is_given)

    assert (joined.cache, joined.thread_id) == (COALESCED, thread_id)
    joined.close()


async def test_a_refused_join_is_told_under_the_threads_name():
    """The log has to lead support from the client's id to the reason."""
    service = Service()

    with pytest.raises(UnknownStream):
        await service.lifecycle.join("nobody's", ANN, "new", None)

    assert [event.thread_id for event in service.events.of(RequestTurnedAway)] == ["new"]


@pytest.mark.parametrize("is_given", [False, True])
async def test_who_joins_has_not_asked_again(is_given):
    """What was waited for and saved was told when it was asked; a bad network must not look like a good cache."""
    service = Service(priced())
    answer = await service.ask()
    await read(answer)
    told = len(service.events.of(FirstChunkServed))

    await read(await service.lifecycle.join(answer.stream_id, ANN, "t2", None, is_given=is_given))

    assert len(service.events.of(FirstChunkServed)) == told
    assert [event.saved_usd for event in service.events.of(AnswerServed)] == [0.0, 0.0]


async def test_a_stored_answer_can_be_joined_for_as_long_as_it_is_served():
    """However many others have been asked since: the hit's id is that of the stream that was stored."""
    service = Service()
    await service.asked()
    service.log._max_entries = 3
    for seed in range(5):
        await service.asked(options={"seed": seed})
    hit = await service.ask()

    joined = await service.lifecycle.join(hit.stream_id, ANN, "new", Seen(3))

    assert hit.cache is L1
    assert joined.generation is hit.generation
    joined.close()
    hit.close()


# What is told of an answer


async def test_the_first_chunk_is_told_once_with_its_time():
    """And by whom it came."""
    gate = asyncio.Event()
    service = Service((gate, *WHOLE))
    service.loop.call_later(2.0, gate.set)

    await service.asked()

    assert service.events.of(FirstChunkServed) == [FirstChunkServed(provider="a", cache="miss", seconds=2.0)]


async def test_a_whole_answer_is_told_with_what_it_saved():
    """Nothing for the one who caused the call, its price for everybody else."""
    service = Service(priced())
    await service.asked()
    answer = await service.ask()
    answer.served_whole()
    answer.close()

    served = service.events.of(AnswerServed)
    assert [(event.cache, event.is_whole, event.saved_usd) for event in served] == [(MISS, True, 0.0), (L1, True, 3.0)]
    assert (served[1].provider, served[1].model, served[1].chunk_count) == ("a", "a-1", 2)
    assert len(service.events.of(FirstChunkServed)) == 2
    assert await service.is_at_rest()


def priced():
    """A script whose answer costs three dollars."""
    return Chunk("x"), STOP, Chunk(usage=Usage(prompt_tokens=0, completion_tokens=3_000_000, total_tokens=3_000_000))


@pytest.mark.parametrize("is_ended", [True, False])
async def test_an_answer_that_a_client_left_is_told_as_not_whole(is_ended):
    """Nothing was saved by what was not taken."""
    service = Service(priced())
    if is_ended:
        await service.asked()
    answer = await service.ask(BOB)
    answer.close()

    served = service.events.of(AnswerServed)[-1]
    assert (served.is_whole, served.saved_usd) == (False, 0.0)
    assert (served.provider is None) is not is_ended


def test_every_refusal_has_a_code_of_its_own():
    """Clients tell them apart by it."""
    leaves = [kind for kind in descendants(WeirError) if kind.__module__ == "domain.errors" and "code" in vars(kind)]

    assert leaves
    assert len({leaf.code for leaf in leaves}) == len(leaves)


def descendants(kind):
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)
