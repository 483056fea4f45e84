"""What was measured, beside what was hoped for."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a scenario; without a bound it is there to be read, not judged."""

    scenario: str
    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The bound in words; empty: none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """Whether the bound is kept; empty: there is none."""
        if not self.target:
            return ""
        is_met = self.value >= self.at_least if self.at_least is not None else self.value <= (self.at_most or 0.0)
        return "yes" if is_met else "MISSED"


_TITLES = ("scenario", "figure", "value", "target", "met")


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of a figure."""
    value = f"{figure.value:,.0f}" if abs(figure.value) >= 1000 else f"{figure.value:.3g}"
    return (figure.scenario, figure.name, f"{value} {figure.unit}".strip(), figure.target, figure.verdict)


def table(figures: Iterable[Figure]) -> str:
    """All figures as a Markdown table that is also readable as it is."""
    rows = [_TITLES, *map(row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, cells, widths)) + " |" for cells in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
