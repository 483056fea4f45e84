"""A provider that is cut anywhere: the client's text is the whole answer, or its true beginning and an error."""

import pytest

from tests.app.asking import STREAM, question, text
from tests.failover.asking import CATALOGUE, FORMS, ask, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

LENGTH = 60
NEXT = {
    "takes a prefix": ("deepseek", {"continues": "exact"}),
    "refuses prefixes": ("deepseek", {"continues": "refused"}),
    "has no address for prefixes": ("deepseek", {"continues": "nowhere"}),
    "starts over": ("deepseek", {"continues": "starts_over"}),
    "repeats some words": ("gemini", {"continues": "repeats_tail"}),
    "is told in words": ("gemini", {"continues": "exact"}),
    "repeats it in other letters": ("deepseek", {"continues": "recases"}),
    "is told in words, and repeats it in other letters": ("gemini", {"continues": "recases"}),
}
"""What the one behind which first route does; behind gemini is openai, which is asked in words."""

FIRST = {"deepseek": "openai", "gemini": "gemini"}


@pytest.fixture(scope="module")
def failing_service(simulation):
    with serving(simulation, WEIR_CATALOGUE=CATALOGUE) as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", NEXT)
async def test_at_every_token_the_text_is_the_expected_answer(client, how, form):
    """Sixty runs each; none loses a word, and none has one twice."""
    behind, continues = NEXT[how]
    told = await told_at_every_token(client, FIRST[behind], form, continues)

    assert {position: each for position, (each, whole) in told.items() if not is_whole(each, whole)} == {}


@pytest.mark.parametrize(("behind", "form"), [("deepseek", "named"), ("gemini", "whole")])
@pytest.mark.parametrize("continues", ["differs", "breaks_off", "remarks", "fences", "nothing"])
async def test_what_cannot_be_joined_for_certain_is_an_interruption(client, continues, behind, form):
    """If all that are left go on so: no word is lost or doubled, and nothing that is cut looks whole."""
    told = await told_at_every_token(client, FIRST[behind], form, {"continues": continues})

    wrong = {at: each for at, (each, whole) in told.items() if not (is_whole(each, whole) or is_cut(each, whole))}
    assert wrong == {}
    assert any(is_cut(each, whole) for each, whole in told.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("continues", ["differs", "breaks_off", "remarks", "fences", "nothing"])
async def test_what_cannot_be_joined_is_asked_of_the_route_after(client, continues, form):
    """One that can go on with it is enough."""
    client.simulator.behave("gemini", tokens=LENGTH, gap_s=0)
    client.simulator.behave("deepseek", tokens=LENGTH, gap_s=0, continues=continues)
    client.simulator.behave("openai", tokens=LENGTH, gap_s=0, fault="cut", at=20)
    query = question()

    assert is_whole(await ask(client, "openai", form, query), expected(query, LENGTH))


async def test_a_rest_has_what_is_left_of_a_limit_of_tokens(client):
    """Neither is it cut short, nor much longer than was asked for."""
    for provider in ("deepseek", "gemini"):
        client.simulator.behave(provider, tokens=200, gap_s=0)
    for first, limit in (("openai", 150), ("gemini", 150), ("openai", 101)) * 12:
        client.simulator.behave("openai", tokens=200, gap_s=0)
        client.simulator.behave(first, tokens=200, gap_s=0, fault="cut", at=100, times=1)
        query = question()
        stream = await client.ask(STREAM, query, model=f"{first}-first", max_tokens=limit)

        wholes = {count: expected(query, count) for count in range(limit, limit + 15)}
        assert text(stream.events) in wholes.values()
        assert stream.events[-1].json["finish_reason"] == "length"


async def told_at_every_token(client, first, form, continues):
    """What the client was told, and what the whole answer is, by where the first route was cut."""
    for provider in {"openai", "deepseek", "gemini"} - {first}:
        client.simulator.behave(provider, tokens=LENGTH, gap_s=0, **continues)
    told = {}
    for position in range(1, LENGTH + 1):
        query = question()
        client.simulator.behave(first, tokens=LENGTH, gap_s=0, fault="cut", at=position)
        told[position] = await ask(client, first, form, query), expected(query, LENGTH)
    return told


def is_whole(told, whole):
    return (told.text, told.code, told.is_ended_well) == (whole, None, True)


def is_cut(told, whole):
    return told.code == "stream_interrupted" and whole.startswith(told.text) and told.is_ended_well
