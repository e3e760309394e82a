"""One line a case: what, both sides' times, what was measured, the goal, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure and its bound, as "{value} {unit}"; with `at_most`, lower is better."""

    value: float
    bound: float
    unit: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def measured(self) -> str:
        return f"{self.value:.3g} {self.unit}"

    def wanted(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """A case's line. `others` is the share of the machine that other processes took meanwhile."""

    number: int
    title: str
    ours: str
    peer: str
    goals: tuple[Goal, ...]
    note: str = ""
    others: float = float("nan")

    def cells(self, judged: bool) -> list[str]:
        met = ["met" if goal.met else "not met" for goal in self.goals]
        return [
            str(self.number),
            self.title,
            self.ours,
            self.peer,
            "; ".join(goal.measured() for goal in self.goals),
            "; ".join(goal.wanted() for goal in self.goals),
            "; ".join(met) if judged else "(quick)",
            self.note,
            "" if self.others != self.others else f"{self.others:.0%}",
        ]


HEADINGS = ("case", "what", "ours, warm (cold)", "peer, warm (cold)", "measured", "goal", "met",
            "notes", "others' load")  # fmt: skip


def text(row: Row, judged: bool) -> str:
    """A row as printed, its parts told apart by bars."""
    return " | ".join(row.cells(judged))


def markdown(rows: Sequence[Row], judged: bool) -> str:
    """All rows as a markdown table."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells(judged) for row in rows)]
    return "".join(f"| {' | '.join(cell.strip() for cell in line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below a tenth."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def warm_and_cold(times: Sequence[float], cold: float) -> str:
    """The median of the warm times, and the first."""
    return f"{duration(statistics.median(times))} ({duration(cold)})"
