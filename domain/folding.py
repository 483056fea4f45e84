"""Texts as they are compared when it is asked whether one repeats another.

What a model changes when it says the same again does not count: case, whitespace, the form of quotes, dashes and
accents, marks of emphasis. Each character is folded by itself, so a text can be folded as it comes.
"""

import unicodedata

MARKS = "*_`#"
"""What Markdown puts around words; a repeat may stand outside of them."""

_WIDE = 3
"""A character of Chinese, Japanese or Korean says about as much as so many letters."""

_REMEMBERED = 10_000

_ALIKE = str.maketrans(
    dict.fromkeys("“”„‟«»″", '"')
    | dict.fromkeys("‘’‚‛′", "'")  # noqa: RUF001  # that they look alike is why they are here
    | dict.fromkeys("‐‑‒–—―−", "-")  # noqa: RUF001  # likewise
)
_SILENT = frozenset({"Mn", "Me", "Cc", "Cf", "Zs", "Zl", "Zp"})


class _Folding(dict[int, str]):
    """What each character is folded to; those of most scripts in use are remembered."""

    def __missing__(self, code: int) -> str:
        letters = _folded(code)
        if len(self) < _REMEMBERED:
            self[code] = letters
        return letters


def _folded(code: int) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold()).translate(_ALIKE)
    return "".join(each for each in plain if unicodedata.category(each) not in _SILENT and each not in MARKS)


_FOLDING = _Folding({code: _folded(code) for code in range(128)})


def folded(text: str) -> str:
    """The letters of `text`: all that is compared of it."""
    return text.translate(_FOLDING)


def end_of(text: str, letters: int) -> int:
    """Where the first so many letters of `text` end; it has as many."""
    for at, each in enumerate(text):
        if letters <= 0:
            return at
        letters -= len(each.translate(_FOLDING))
    return len(text)


def tail(text: str) -> str:
    """What stands behind the last letter of `text`: whitespace and marks."""
    at = len(text)
    while at and not folded(text[at - 1]):
        at -= 1
    return text[at:]


def weight(letters: str) -> int:
    """How much `letters` say, in letters of an alphabet."""
    return len(letters) if letters.isascii() else sum(_WIDE if _is_wide(each) else 1 for each in letters)


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in {"W", "F"}
