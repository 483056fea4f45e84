"""The table of reactions is whole, and is what the handbook draws."""

from pathlib import Path

import pytest

from domain import errors
from domain.errors import CircuitOpen, ProviderError
from domain.reactions import REACTIONS, WAYS

HANDBOOK = Path(__file__).resolve().parents[2] / "docs" / "failover.md"
HEAD = "| a provider … | same route again, before its first token | another route | counts | outcome |"


def drawn():
    """The rows of the handbook's table, as they should be."""
    for way, leaf in WAYS.items():
        reaction = REACTIONS[leaf]
        counts = "yes" if reaction.counts else "no"
        cells = (way, reaction.here.value, reaction.elsewhere.value, counts, f"`{reaction.outcome}`")
        yield f"| {' | '.join(cells)} |"


def leaves(kind):
    """All errors that an attempt can end with."""
    return {kind} | {leaf for child in kind.__subclasses__() for leaf in leaves(child)}


def test_the_handbook_draws_the_table_that_is_followed():
    """Row by row."""
    table = HANDBOOK.read_text().split(f"{HEAD}\n|---|---|---|---|---|\n")[1].split("\n\n")[0]

    assert table.splitlines() == list(drawn())


def test_every_error_of_a_provider_has_a_reaction_and_a_way_to_come_about():
    """One that had none would be a defect in the middle of an outage."""
    expected = leaves(ProviderError) - {ProviderError} | {CircuitOpen}

    assert set(REACTIONS) == expected
    assert set(WAYS.values()) == expected


@pytest.mark.parametrize("leaf", REACTIONS, ids=lambda leaf: leaf.__name__)
def test_the_tree_of_errors_draws_every_leaf(leaf):
    """Who looks for the error finds it."""
    assert f"── {leaf.__name__} " in errors.__doc__
