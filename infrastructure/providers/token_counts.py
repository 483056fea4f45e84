"""Counts of tokens as providers tell them, some of which cannot be."""

from domain.chat import Json

MAX_TOKENS = 2**31 - 1
"""More than any model reads or writes in one call; what is above it was not counted."""


def token_count(said: Json) -> int:
    """What the provider said, or 0 where that cannot be a count.

    Raises:
        TypeError, ValueError: it is no number.
    """
    count = int(said) if isinstance(said, str) else said or 0
    return int(count) if 0 <= count <= MAX_TOKENS else 0
