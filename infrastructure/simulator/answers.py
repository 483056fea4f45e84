"""What the simulated models say: fixed sentences, in an order that the question decides.

The same question gets the same answer from every provider; another question almost always gets another.
"""

import re
from collections.abc import Iterator
from itertools import islice
from zlib import crc32

_SENTENCES = (
    "A river keeps its shape by changing all its water.",
    "The weir holds back what the mill will need by noon.",
    "Nobody in the village remembers who laid the first stone.",
    "Snow in the hills becomes bread in the valley.",
    "On still days the pool shows the whole sky.",
    "Eels pass in autumn, and they pass at night.",
    "The keeper opens the gate a hand's breadth and listens.",
    "Too much at once breaks the bank; too little starves the wheel.",
    "Every spring the ledger begins on a clean page.",
    "Three boats wait below for the level to rise.",
    "Fog makes the far shore a rumour.",
    "A heron stands where the current turns.",
    "The oldest beams are elm, black and hard as iron.",
    "Children count the leaves that go over the edge.",
    "Two streams meet here without a sound.",
    "Rain on the slate roof keeps its own time.",
    "The miller measures flour, the river measures the miller.",
    "Flood marks are cut into the wall, one for each generation.",
    "When the wind is west, you can hear the bells.",
    "What is lost upstream is found downstream.",
    "A fish ladder has eleven steps and no door.",
    "Ice forms first along the quiet side.",
    "Somebody has painted the handrail green again.",
    "The lamp is lit at dusk and never early.",
    "Willows lean further every year.",
    "An answer, like water, takes the path that is open.",
    "Old maps draw the channel twice as wide.",
    "Swallows stitch the evening together.",
    "It costs nothing to cross before the harvest.",
    "The gauge reads seven, and seven is enough.",
    "After midnight only the water speaks.",
)
_TOKEN = re.compile(r"\s*\S+|\s+")


def answer_tokens(question: str, tokens: int) -> tuple[str, ...]:
    """Return the first `tokens` tokens of the answer to `question`; joined, they are its text."""
    return tuple(islice(_endless(crc32(question.encode())), tokens))


def split_tokens(text: str) -> tuple[str, ...]:
    """Return `text` cut before each space, so that joining gives it back."""
    return tuple(_TOKEN.findall(text))


def _endless(seed: int) -> Iterator[str]:
    """Walk the sentences from one place in one stride; their number is prime, so every walk meets all of them."""
    place, stride = seed % len(_SENTENCES), 1 + seed // len(_SENTENCES) % (len(_SENTENCES) - 1)
    yield from split_tokens(_SENTENCES[place])
    while True:
        place = (place + stride) % len(_SENTENCES)
        yield from split_tokens(" " + _SENTENCES[place])
