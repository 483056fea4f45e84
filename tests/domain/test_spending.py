"""What a request spends at stage 3, and what becomes of it at the answer's end."""

import asyncio

import pytest

from domain.chat import Caller, ChatRequest, Chunk, Usage
from domain.errors import AllProvidersDown, ProviderUnavailable, RateLimited
from domain.generation import Sealed, State
from domain.limiting import Rate
from domain.selection import Route
from domain.usage import NOTHING, Use, estimate, usage_limits, used
from tests.domain.service import ANN, STOP, Service, read

pytestmark = pytest.mark.anyio

QUESTION = ChatRequest(model="m", messages=({"role": "user", "content": "x" * 400},))
ASKED_TOKENS = 1 + 4 + 512
"""What tests.domain.service asks is taken to need: one token of text, one message, an answer of unknown length."""
TEN_TOKENS = Usage(prompt_tokens=4, completion_tokens=6, total_tokens=10)
WHOLE = (Chunk("x"), STOP, Chunk(usage=TEN_TOKENS))


async def left(service, *, after_asking):
    """How many of the minute's tokens are left once so many answers have ended."""
    for number in range(after_asking):
        await service.asked(options={"seed": number})
    return next(quota.remaining for quota in service.spending.quotas(ANN) if quota.unit == "tokens")


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({}, 631), ({"max_tokens": 50}, 169), ({"max_completion_tokens": 10, "max_tokens": 50}, 129),
     ({"max_tokens": 50, "n": 3}, 269)],
)  # fmt: skip
def test_an_estimate_is_the_prompt_and_the_longest_answer(options, tokens):
    """The prompt counts as in the books (domain/tokens.py); who sets no bound is taken to want a usual answer."""
    request = ChatRequest(model="m", messages=QUESTION.messages, options=options)

    assert estimate(request, ()) == Use(tokens=tokens, usd=0.0)


def test_an_estimate_is_of_the_dearest_route():
    """Whichever will answer."""
    routes = [Route(provider="a", model="a", usd_per_mtok_in=1.0, usd_per_mtok_out=price) for price in (2.0, 8.0, 4.0)]

    assert estimate(QUESTION, routes).usd == pytest.approx((119 * 1.0 + 512 * 8.0) / 1e6)


def test_parts_of_a_message_count_by_what_they_are():
    """What is no text is taken for a picture."""
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {"url": "data:…"}}]
    request = ChatRequest(model="m", messages=({"role": "user", "content": parts}, {"role": "assistant"}))

    assert estimate(request, ()).tokens == 12 + 1000 + 2 * 4 + 512


@pytest.mark.parametrize(
    ("sealed", "use"),
    [(Sealed(state=State.DONE, usage=TEN_TOKENS, cost_usd=0.5, chunk_count=3), Use(tokens=10, usd=0.5)),
     (Sealed(state=State.FAILED), NOTHING), (Sealed(state=State.CANCELLED, chunk_count=3), None)],
)  # fmt: skip
def test_what_was_used_is_what_the_provider_counted(sealed, use):
    """Nothing if there was no answer; who was cut off did cost something."""
    assert used(sealed) == use


@pytest.mark.parametrize(
    ("caller", "limits"),
    [({}, None), ({"tier": "limited"}, (600, None)), ({"tokens_per_minute": 5}, (5, None)),
     ({"tier": "limited", "tokens_per_minute": 5, "budget_usd_per_day": 1.0}, (5, 1.0)),
     ({"tier": "limited", "is_operator": True}, None)],
)  # fmt: skip
def test_a_keys_own_limits_come_before_its_tiers(caller, limits):
    """And operators have none."""
    found = usage_limits(Caller(user="u", **caller), {"limited": 600, "anonymous": 0})

    assert (found and (found.tokens_per_minute, found.budget_usd_per_day)) == limits


async def test_an_answer_takes_in_the_end_what_it_used():
    """Not what was thought."""
    assert await left(Service(WHOLE, tokens_per_minute=2000), after_asking=3) == 1970


async def test_while_it_runs_an_answer_takes_what_it_may_use():
    """Many that begin at once stay within the limit."""
    service = Service((Chunk("x"), asyncio.Event()), tokens_per_minute=2000)
    answers = [await service.ask(options={"seed": number}) for number in range(3)]
    assert answers[-1].quotas[0].remaining == 2000 - 3 * ASKED_TOKENS

    with pytest.raises(RateLimited, match="2000 tokens a minute are allowed, 449 are left"):
        await service.ask(options={"seed": 3})

    for answer in answers:
        answer.close()


async def test_who_follows_or_is_served_from_a_store_takes_no_tokens():
    """As no request."""
    service = Service(WHOLE, tokens_per_minute=2000)
    for _ in range(5):
        await service.asked()

    assert await left(service, after_asking=0) == 1990


async def test_an_answer_that_failed_before_its_first_token_takes_nothing():
    service = Service((ProviderUnavailable("down"),), tokens_per_minute=2000)
    service.spare.scripts = ((ProviderUnavailable("down"),),)

    assert await left(service, after_asking=1) == 2000


async def test_a_request_that_no_route_can_take_spends_nothing():
    service = Service(rate=Rate(amount=1, per_s=64.0), tokens_per_minute=2000)
    for name in ("a", "b"):
        (await service.breakers.acquire(f"{name}/{name}-1")).failure()

    with pytest.raises(AllProvidersDown):
        await service.ask()

    assert [quota.remaining for quota in service.spending.quotas(ANN)] == [1, 2000]


async def test_a_refusal_by_tokens_costs_no_request_and_tells_both_limits():
    """Who is told to wait should not also lose its turn."""
    service = Service(WHOLE, rate=Rate(amount=5, per_s=64.0), tokens_per_minute=600)
    answer = await service.ask(options={"max_tokens": 590})

    with pytest.raises(RateLimited) as refused:
        await service.ask(options={"max_tokens": 500})

    assert [(quota.policy, quota.unit, quota.remaining) for quota in refused.value.quotas] == [
        ("standard", "requests", 4),
        ("standard-tokens", "tokens", 5),
    ]
    await read(answer)


async def test_an_answer_that_its_provider_has_not_counted_takes_what_its_text_is_estimated_at():
    """Or that was cut off before it could: five tokens read and one written."""
    service = Service((Chunk("x"), STOP), tokens_per_minute=2000)

    assert await left(service, after_asking=1) == 2000 - 6


async def test_a_days_budget_is_kept():
    """By what answers cost by the catalogue: here a dollar for a million tokens."""
    half = Usage(prompt_tokens=0, completion_tokens=500_000, total_tokens=500_000)
    poor = Caller(user="poor", tier="standard", budget_usd_per_day=1.2)
    service = Service((Chunk("x"), STOP, Chunk(usage=half)))
    for number in range(2):
        await service.asked(caller=poor, options={"seed": number, "max_tokens": 500_000})

    with pytest.raises(RateLimited, match=r"0.2000 USD are left .* may cost 0.5000") as refused:
        await service.ask(caller=poor, options={"seed": 3, "max_tokens": 500_000})

    assert refused.value.retry_after_s <= 86_400
    assert refused.value.quotas == ()
