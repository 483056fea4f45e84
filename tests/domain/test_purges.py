"""What a purge conceals, what is kept of purges, and what an operator may do."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.caching import Purge, Purges
from domain.chat import OPERATOR, Caller, Chunk
from domain.errors import Forbidden, InvalidRequest, UnknownModel, UnknownProvider
from domain.fingerprint import CacheScope
from domain.operator import Operator, alone
from domain.operator_key import OperatorKey
from domain.warming import Warming
from tests.domain.service import ANN, ONE_A_MINUTE, QUESTION, Service, read
from tests.loops import FAKE_TIME, settle
from tests.recordings import recording

pytestmark = pytest.mark.anyio

MODELS, SCOPES = ["m", "n"], ["", "user:ann"]
WHICH = st.tuples(st.none() | st.sampled_from(MODELS), st.none() | st.sampled_from(SCOPES))


@pytest.fixture
def anyio_backend():
    return FAKE_TIME


@given(
    st.lists(st.tuples(WHICH, st.integers(1, 100))),
    st.sampled_from(MODELS),
    st.sampled_from(SCOPES),
    st.integers(0, 100),
)
def test_an_answer_is_concealed_by_every_purge_that_concerns_it_and_came_after_it(
    given_purges, model, scope, sealed_at_s
):
    """Whatever else was purged, and in whatever order that was heard."""
    purges = Purges(ttl_s=1000.0)
    for (purged_model, purged_scope), at_s in given_purges:
        purges.add(Purge(at_s=at_s, model=purged_model, scope=purged_scope))

    assert purges.conceal(recording(model, scope, sealed_at_s)) is any(
        purged_model in {None, model} and purged_scope in {None, scope} and sealed_at_s <= at_s
        for (purged_model, purged_scope), at_s in given_purges
    )


def test_a_purge_that_is_known_is_no_news():
    """It is told on every channel and read again after every gap."""
    purges = Purges(ttl_s=64.0)

    assert [purges.add(Purge(at_s=at_s, model="m")) for at_s in (8.0, 8.0, 7.0, 9.0)] == [True, False, False, True]


def test_a_purge_older_than_any_answer_is_forgotten():
    """An operator who purges every minute fills no memory."""
    purges = Purges(ttl_s=64.0)
    for second in range(1000):
        purges.add(Purge(at_s=second + 1.0, scope=f"user:{second}"))

    assert len(purges) == 64


async def test_what_is_purged_is_asked_again_and_stored_again():
    """In both tiers."""
    service = Service()
    await service.asked()
    service.purges.add(Purge(at_s=service.loop.time(), model="m"))
    await asyncio.sleep(1.0)

    tiers = []
    for _ in range(2):
        tiers.append((await service.asked())[0])
        await settle()

    assert tiers == ["miss", "l1"]
    assert service.call_count == 2


def operator(service):
    return Operator(
        purges=service.purges,
        tell=alone,
        breakers=service.breakers,
        providers=["a", "b"],
        circuits=["a/a-1", "a/a-2", "b/b-1"],
        models=["m"],
        publish=service.events.publish,
        unix_now=service.loop.time,
    )


async def test_an_operator_purges_only_models_that_there_are():
    """A typing error would pass for a purge."""
    service = Service()

    with pytest.raises(UnknownModel):
        await operator(service).purge("gpt", None)

    assert len(service.purges) == 0


async def test_an_operator_sees_and_closes_the_circuits_of_the_catalogue():
    """And no others."""
    service = Service()
    (await service.breakers.acquire("a/a-1")).failure()
    subject = operator(service)
    assert [(each.provider, each.state.value) for each in subject.circuits()] == [("a", "open"), ("b", "closed")]

    assert {name: each.state.value for name, each in subject.circuits()[0].models.items()} == {
        "a-1": "open",
        "a-2": "closed",
    }
    assert subject.reset("a").wait_s == 0.0
    with pytest.raises(UnknownProvider):
        subject.reset("c")


async def test_an_operator_has_no_limits_of_its_own():
    """Neither a rate nor a number of streams."""
    service = Service(rate=ONE_A_MINUTE, limit_per_user=1)
    answers = [await service.ask(OPERATOR, messages=({"role": "user", "content": str(number)},)) for number in range(5)]

    for answer in answers:
        await read(answer)


async def test_only_the_asker_and_an_operator_can_stop_a_stream():
    """Even of a scope that an operator is not in."""
    service = Service((Chunk("x"), asyncio.Event()), scope=CacheScope.TENANT)
    answer = await service.ask(ANN)
    with pytest.raises(Forbidden):
        await service.lifecycle.stop(answer.stream_id, Caller(user="bob", tenant=ANN.tenant))

    await service.lifecycle.stop(answer.stream_id, OPERATOR)

    assert str((await read(answer))[-1].failure) == "An operator stopped the stream."


def warming(service, **changes):
    options = {"scope": CacheScope.SHARED, "per_s": 0.5, "concurrency": 2} | changes
    return Warming(lifecycle=service.lifecycle, clock=service.loop.time, **options)


def requests(count):
    return [type(QUESTION)(model="m", messages=({"role": "user", "content": f"{number}?"},)) for number in range(count)]


async def test_questions_are_asked_ahead_no_faster_than_allowed():
    """What is stored already costs no time."""
    service = Service()
    subject = warming(service)

    first = await subject.warm(requests(9), "t")
    took_s = service.loop.time()
    again = await subject.warm(requests(9), "t")

    assert (first.answered, again.stored_already) == (9, 9)
    assert took_s >= (9 - 2) * 2.0
    assert service.call_count == 9
    assert await service.is_at_rest()


async def test_answers_that_nobody_else_would_be_served_are_not_asked_for():
    """They would be paid for, for nobody."""
    service = Service(scope=CacheScope.USER)

    with pytest.raises(InvalidRequest):
        await warming(service, scope=CacheScope.USER).warm(requests(1), "t")

    assert service.call_count == 0


def test_a_key_is_compared_whole():
    """And is not shown."""
    key = OperatorKey.of("key")

    assert [key.matches(given) for given in ("key", "ke", "keyy", "", "kéy")] == [True, False, False, False, False]
    assert "digest" not in repr(key)
