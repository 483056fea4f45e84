"""What calls have used: counted by their providers, or estimated, which is said."""

import pytest

from domain.books import Booking, estimated_usage, total_usage
from domain.chat import ChatRequest, Chunk, Usage
from domain.generation import State
from domain.progress import Progress, Share
from domain.selection import Route

ASKED = ChatRequest(model="m", messages=({"role": "user", "content": "x" * 35},))
ROUTE = Route(provider="a", model="a-1", usd_per_mtok_in=1, usd_per_mtok_out=10)
COUNTED = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, details={"prompt_tokens_details": {}})


def test_what_no_provider_has_counted_is_estimated():
    """Thoughts and calls of tools are written too."""
    text = estimated_usage(ASKED, [Chunk("x" * 30), Chunk("x" * 5)])
    thought = estimated_usage(ASKED, [Chunk(delta={"reasoning_content": "x" * 35})])

    assert text == Usage(prompt_tokens=14, completion_tokens=10, total_tokens=24, details={"estimated": True})
    assert thought.completion_tokens > text.completion_tokens


@pytest.mark.parametrize("total", [0, 7])
def test_a_count_of_nothing_is_no_count(total):
    """An answer whose provider says null for its tokens would cost nothing, and no budget would ever end."""
    said = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=total)
    share = Share(route=ROUTE, request=ASKED, usage=said, chunks=[Chunk("x" * 35)])

    assert share.booking().usage == estimated_usage(ASKED, share.chunks)


def test_a_call_costs_what_its_own_route_asks():
    """For what it read and what it wrote."""
    assert Booking(route=ROUTE, usage=COUNTED).cost_usd == 21 / 1_000_000


def test_the_cost_of_an_answer_is_told_without_the_noise_of_its_sum():
    """0.1 and 0.2 are 0.3, and not 0.30000000000000004."""
    route = Route(provider="a", model="a-1", usd_per_mtok_in=0.1, usd_per_mtok_out=0.1)
    progress = Progress(thread_id="t", clock=lambda: 0.0)
    progress.shares = [Share(route=route, request=ASKED, usage=COUNTED, chunks=[Chunk("x")])]

    assert progress.bookings()[0].cost_usd != 3e-07
    assert progress.sealed(State.DONE).cost_usd == 3e-07


def test_the_total_of_one_call_is_its_own_count():
    """With all that its provider says beside."""
    assert total_usage([]) is None
    assert total_usage([Booking(route=ROUTE, usage=COUNTED)]) == COUNTED


def test_a_total_with_an_estimate_in_it_is_one():
    """Other counts cannot be added up: no two providers mean the same by them."""
    counted, estimated = Booking(route=ROUTE, usage=COUNTED), Booking(route=ROUTE, usage=estimated_usage(ASKED, []))

    assert total_usage([counted, counted]) == Usage(prompt_tokens=2, completion_tokens=4, total_tokens=6)
    assert total_usage([counted, estimated]) == Usage(
        prompt_tokens=15, completion_tokens=2, total_tokens=17, details={"estimated": True}
    )
