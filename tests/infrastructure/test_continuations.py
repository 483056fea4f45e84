"""The rest of an answer, asked of each provider through its adapter and joined to what was sent: always the whole."""

import asyncio
from dataclasses import replace

import pytest

from domain.chat import ChatRequest
from domain.continuation import continued
from domain.errors import ProviderRejected
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
    """What a client has that was sent `sent` before."""
    route = Route(
        provider=provider.name, model=f"m@tokens=60,ttft_ms=0,gap_ms=0,continues={continues}", prefill=prefill
    )
    splice = Splice(sent, is_prefilled=prefill is not Prefill.NONE)
    async with provider.open(route, continued(ASKED, sent, prefill)) as chunks:
        new = [splice.push(chunk.content) async for chunk in chunks]
    return sent + "".join(new) + splice.finish()


CONTINUES = ["exact", "starts_over", "repeats_tail", "rewraps"]
WAYS = [(way, is_prefilled) for way in CONTINUES for is_prefilled in (True, False)] + [("refused", False)]


@pytest.mark.parametrize(("continues", "is_prefilled"), WAYS)
async def test_an_answer_cut_anywhere_is_whole_in_the_end(provider, continues, is_prefilled):
    """However the next provider is asked, and whatever it repeats; of a prefill no less than a few words."""
    prefill = PREFILLS[provider.name] if is_prefilled else Prefill.NONE
    first = 8 if is_prefilled and continues in {"repeats_tail", "rewraps"} else 1
    cuts = ["".join(TOKENS[:count]) for count in range(first, 61)]

    answers = await asyncio.gather(*(gone_on(provider, sent, prefill, continues) for sent in cuts))

    assert set(answers) == {"".join(TOKENS)}


async def test_a_provider_that_takes_no_beginning_says_so(provider):
    """So that it can be asked in words."""
    with pytest.raises(ProviderRejected, match="ending with a model turn are not supported"):
        await gone_on(provider, "".join(TOKENS[:9]), PREFILLS[provider.name], "refused")


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
