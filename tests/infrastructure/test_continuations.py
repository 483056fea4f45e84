"""The rest of an answer, asked of each provider through its adapter and joined to what was sent: always the whole."""

import asyncio
from dataclasses import replace

import pytest

from domain.chat import ChatRequest
from domain.continuation import continued
from domain.errors import ProviderRejected, Unaligned
from domain.prefilled import says_enough
from domain.selection import Prefill, Route
from domain.splice import Splice
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.openai import OpenAIProvider
from infrastructure.simulator.answers import answer_tokens

pytestmark = pytest.mark.anyio

QUESTION = "How does a weir work?"
ASKED = ChatRequest(model="m", messages=({"role": "user", "content": QUESTION},), options={"max_tokens": 400})
TOKENS = answer_tokens(QUESTION, 60)
PREFILLS = {"openai": Prefill.ASSISTANT, "deepseek": Prefill.DEEPSEEK, "gemini": Prefill.ASSISTANT}


@pytest.fixture(params=PREFILLS)
async def provider(simulator, request):
    adapter = GeminiProvider if request.param == "gemini" else OpenAIProvider
    provider = adapter(simulator.urls[request.param], "key", 5.0)
    provider.name = request.param
    yield provider
    await provider.close()


async def gone_on(provider, sent, prefill, continues):
    """What a client has that was sent `sent` before; None: what came cannot be joined to it."""
    try:
        return await joined(provider, sent, prefill, continues)
    except Unaligned:
        return None


async def joined(provider, sent, prefill, continues):
    """All the text, or Unaligned."""
    route = Route(
        provider=provider.name, model=f"m@tokens=60,ttft_ms=0,gap_ms=0,continues={continues}", prefill=prefill
    )
    splice = Splice(sent, is_prefilled=prefill is not Prefill.NONE)
    async with provider.open(route, continued(ASKED, sent, prefill, 0)) as chunks:
        new = [splice.push(chunk.content) async for chunk in chunks]
    return sent + "".join(new) + splice.finish()


ANSWER = "".join(TOKENS)
CUTS = [ANSWER[: len("".join(TOKENS[:count]))] for count in range(1, 61)]
CERTAIN = ["exact", "starts_over", "repeats_tail", "rewraps", "recases", "refused"]
UNCERTAIN = ["differs", "breaks_off", "remarks", "fences", "nothing"]


@pytest.mark.parametrize("continues", CERTAIN)
async def test_who_is_asked_in_words_makes_it_whole_wherever_it_was_cut(provider, continues):
    """Whatever is repeated, and however it is written."""
    answers = await asyncio.gather(*(gone_on(provider, sent, Prefill.NONE, continues) for sent in CUTS))

    assert set(answers) == {ANSWER}


@pytest.mark.parametrize("continues", UNCERTAIN)
async def test_who_does_not_say_where_he_goes_on_is_not_joined(provider, continues):
    """Not a word is lost or doubled."""
    answers = await asyncio.gather(*(gone_on(provider, sent, Prefill.NONE, continues) for sent in CUTS))

    assert set(answers) == {None}


async def test_who_goes_on_with_what_was_given_makes_it_whole(provider):
    """The normal case; only a rest of nothing leaves it open whether that was all."""
    long = [sent for sent in CUTS if says_enough(sent)]
    prefill = PREFILLS[provider.name]

    *answers, last = await asyncio.gather(*(gone_on(provider, sent, prefill, "exact") for sent in long))

    assert set(answers) == {ANSWER}
    assert last is None


@pytest.mark.parametrize("continues", [*CERTAIN[1:-1], *UNCERTAIN])
async def test_who_does_not_go_on_with_what_was_given_is_not_joined(provider, continues):
    """It is asked in words."""
    long = [sent for sent in CUTS if says_enough(sent)]
    prefill = PREFILLS[provider.name]

    answers = await asyncio.gather(*(gone_on(provider, sent, prefill, continues) for sent in long))

    assert set(answers) == {None}


async def test_a_provider_that_takes_no_beginning_says_so(provider):
    """So that it can be asked in words."""
    with pytest.raises(ProviderRejected, match="ending with a model turn are not supported"):
        await joined(provider, "".join(TOKENS[:9]), PREFILLS[provider.name], "refused")


@pytest.mark.parametrize("given", ["", "/v1", "/beta"])
async def test_only_a_marked_beginning_goes_to_the_beta_address(simulator, given):
    """All else stays where it was."""
    provider = OpenAIProvider(simulator.urls["deepseek"] + given, "key", 5.0)
    provider.name = "deepseek"
    try:
        await gone_on(provider, "", Prefill.DEEPSEEK, "exact")
        await gone_on(provider, TOKENS[0], Prefill.DEEPSEEK, "exact")
    finally:
        await provider.close()

    assert [call["path"] for call in simulator.calls("deepseek")] == [
        f"{given}/chat/completions",
        "/beta/chat/completions",
    ]


async def test_a_clients_own_mark_does_not_lead_where_a_provider_has_nothing(simulator):
    """Its 404 would count against the circuit, and a few such requests would shut a provider off for everybody."""
    provider = OpenAIProvider(simulator.urls["openai"], "key", 5.0)
    marked = replace(ASKED, messages=(*ASKED.messages, {"role": "assistant", "content": "A", "prefix": True}))
    try:
        async with provider.open(Route(provider="openai", model="gpt-4o-mini"), marked) as chunks:
            assert [chunk async for chunk in chunks]
    finally:
        await provider.close()

    assert [call["path"] for call in simulator.calls("openai")] == ["/v1/chat/completions"]
