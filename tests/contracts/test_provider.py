"""The contract of domain.ports.Provider, run against every implementation."""

import asyncio

import pytest

from domain.chat import ChatRequest, Chunk, Usage
from domain.errors import ProviderRejected, ProviderUnavailable
from domain.ports import Provider
from domain.selection import Route
from infrastructure.providers.gemini import GeminiProvider
from infrastructure.providers.openai import OpenAIProvider
from tests.fakes import ACCEPTED, ScriptedProvider
from tests.simulation import Simulation

pytestmark = pytest.mark.anyio

REQUEST = ChatRequest(model="m", messages=({"role": "user", "content": "How does a weir work?"},))
USAGE = Usage(prompt_tokens=1, completion_tokens=3, total_tokens=4)
ANSWER = (Chunk("The "), Chunk("keeper "), Chunk("listens."))
END = (Chunk(finish_reason="stop"), Chunk(usage=USAGE))


class Fake:
    """The scripted provider, told by the words of the simulator's behaviours."""

    choice_count = 2

    def __init__(self) -> None:
        self.provider = ScriptedProvider((*ANSWER, *END))
        self.route = Route(provider="fake", model="fake-1")

    def behave(self, *, fault: str = "", choices: int = 1) -> None:
        forever = asyncio.Event()
        self.provider.scripts = (
            {
                "": tuple(Chunk(c.content, c.finish_reason, i) for c in (*ANSWER, END[0]) for i in range(choices)),
                "400": (ProviderRejected("Invalid value"),),
                "500": (ProviderUnavailable("answered 500"),),
                "cut": (*ANSWER, ProviderUnavailable("broke off the stream")),
                "no_finish": ANSWER,
                "malformed": (*ANSWER, ProviderUnavailable("sent a malformed event")),
                "silence_headers": (forever,),
                "silence_first_token": (ACCEPTED, forever, *ANSWER),
                "stall": (*ANSWER, forever, *END),
            }[fault],
        )

    async def until_asked(self) -> None:
        await self.provider.asked.wait()

    def answer_count(self) -> int:
        return len(self.provider.requests)

    async def until_left(self) -> None:
        assert self.provider.entering + self.provider.open_streams == 0


class Simulated:
    """A real adapter and its SDK, calling the simulator."""

    def __init__(self, name: str, provider: Provider, simulator: Simulation) -> None:
        self.name, self.provider, self._simulator = name, provider, simulator
        self.choice_count = 2 if name == "openai" else 1  # of the others, one takes no notice of n and one refuses it
        self.route = Route(provider=name, model="gemini-2.5-flash" if name == "gemini" else "some-model")

    def behave(self, *, fault: str = "", **_: int) -> None:
        """Nothing else has to be arranged: the simulator gives as many choices as it is asked for."""
        self._simulator.behave(self.name, tokens=4, at=3, **({"fault": fault} if fault else {}))

    async def until_asked(self) -> None:
        await self._simulator.until(f"{self.name}.live==1")

    def answer_count(self) -> int:
        return len(self._simulator.calls(self.name))

    async def until_left(self) -> None:
        await self._simulator.until(f"{self.name}.closed_by_client==1")
        await self._simulator.until(f"{self.name}.live==0")


@pytest.fixture(params=["fake", "openai", "deepseek", "gemini"])
async def subject(request, simulator):
    if request.param == "fake":
        yield Fake()
        return
    adapter = GeminiProvider if request.param == "gemini" else OpenAIProvider
    provider = adapter(simulator.urls[request.param], "sk-test", 5.0)
    yield Simulated(request.param, provider, simulator)
    await provider.close()


async def ask(subject, request=REQUEST) -> list[Chunk]:
    async with subject.provider.open(subject.route, request) as chunks:
        return [chunk async for chunk in chunks]


async def ask_until_broken(subject) -> tuple[list[Chunk], ProviderUnavailable | None]:
    """What came, and how it ended; the entering must succeed."""
    seen = []
    async with subject.provider.open(subject.route, REQUEST) as chunks:
        try:
            async for chunk in chunks:
                seen += [chunk]
        except ProviderUnavailable as broken:
            return seen, broken
    return seen, None


async def test_a_whole_answer_ends_with_one_finish_reason_and_its_usage(subject):
    """What is cached and billed rests on both."""
    chunks = await ask(subject)

    assert "".join(chunk.content for chunk in chunks)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0


async def test_no_chunk_is_empty(subject):
    """An event on the wire for each would be noise, and would stop the clock of the first token."""
    assert Chunk() not in await ask(subject)


async def test_every_choice_is_told_apart(subject):
    subject.behave(choices=subject.choice_count)
    options = {"n": subject.choice_count}

    chunks = await ask(subject, ChatRequest(model="m", messages=REQUEST.messages, options=options))

    expected = list(range(subject.choice_count))
    assert sorted({chunk.index for chunk in chunks if chunk.content}) == expected
    assert sorted(chunk.index for chunk in chunks if chunk.finish_reason) == expected


@pytest.mark.parametrize(("fault", "leaf"), [("400", ProviderRejected), ("500", ProviderUnavailable)])
async def test_a_refusal_is_known_on_entering(subject, fault, leaf):
    """Only there can it still be answered with a status, or by another route."""
    subject.behave(fault=fault)

    with pytest.raises(leaf):
        async with subject.provider.open(subject.route, REQUEST):
            pytest.fail("entered")


@pytest.mark.parametrize("fault", ["cut", "no_finish", "malformed"])
async def test_an_answer_that_is_not_whole_never_ends_normally(subject, fault):
    """What came before is given all the same."""
    subject.behave(fault=fault)

    seen, broken = await ask_until_broken(subject)

    assert len([chunk for chunk in seen if chunk.content]) == 3
    assert not any(chunk.finish_reason for chunk in seen)
    assert broken is not None


async def test_a_check_asks_for_no_answer_and_passes_when_our_key_is_taken(subject):
    """An operator's check must cost nothing."""
    await subject.provider.check()

    assert subject.answer_count() == 0


async def test_leaving_early_ends_the_call_at_once(subject):
    """The provider would go on, and we would pay for it."""
    subject.behave(fault="stall")

    async with subject.provider.open(subject.route, REQUEST) as chunks:
        assert (await anext(chunks)).content

    await subject.until_left()


async def test_cancelling_while_entering_ends_the_call(subject):
    subject.behave(fault="silence_headers")
    asking = asyncio.create_task(ask(subject))
    await subject.until_asked()

    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await subject.until_left()


@pytest.mark.parametrize("fault", ["silence_first_token", "stall"])
async def test_cancelling_while_waiting_for_a_chunk_ends_the_call(subject, fault):
    subject.behave(fault=fault)
    asking = asyncio.create_task(ask(subject))
    await subject.until_asked()

    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await subject.until_left()


async def test_the_next_call_is_not_affected_by_one_that_was_left(subject):
    """A connection with half an answer in it must not be used again."""
    subject.behave(fault="stall")
    async with subject.provider.open(subject.route, REQUEST) as chunks:
        await anext(chunks)

    subject.behave()

    assert (await ask(subject))[0].content
