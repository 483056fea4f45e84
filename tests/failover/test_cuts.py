"""A provider that is cut anywhere: the client's text is the whole answer, whatever the next one makes of it."""

import pytest

from tests.app.asking import question
from tests.failover.asking import CATALOGUE, FORMS, ask, expected
from tests.serving import serving

pytestmark = pytest.mark.anyio

LENGTH = 60
NEXT = {
    "takes a prefix": ("deepseek", {"continues": "exact"}),
    "refuses prefixes": ("deepseek", {"continues": "refused"}),
    "starts over": ("deepseek", {"continues": "starts_over"}),
    "repeats some words": ("gemini", {"continues": "repeats_tail"}),
    "is told in words": ("gemini", {"continues": "exact"}),
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
    first = FIRST[behind]
    for provider in {"openai", "deepseek", "gemini"} - {first}:
        client.simulator.behave(provider, tokens=LENGTH, gap_s=0, **continues)
    queries = [question() for _ in range(LENGTH)]
    wrong = {}

    for position, query in enumerate(queries, start=1):
        client.simulator.behave(first, tokens=LENGTH, gap_s=0, fault="cut", at=position)
        told = await ask(client, first, form, query)
        if (told.text, told.code) != (expected(query, LENGTH), None) or not told.is_ended_well:
            wrong[position] = told

    assert wrong == {}
