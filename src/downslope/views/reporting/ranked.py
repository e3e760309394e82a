"""The ranked settings as a table of cells: what is shown, and the number it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from downslope.ranking import Ranked
from downslope.run import watched
from downslope.runs import Runs
from downslope.scoring import in_own_units
from downslope.views.data.settings import said
from downslope.views.terminal import number

MOST_ROWS = 200
"""Settings in the table; the others are counted."""

LACKING = "–"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and its number; None for words, and for what is lacking."""

    words: str
    value: float | None = None


@dataclass(frozen=True)
class RankedTable:
    """The best settings, a row each.

    Attributes:
        headings: of the columns; numbers: which of them hold numbers.
        settings: how many there are in all.
    """

    headings: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    settings: int


def measure_of(runs: Runs) -> tuple[str, Callable[[float], float]]:
    """What runs are chosen by, and its values as they are told (a loss below 0 as it is)."""
    if watched(runs):
        return "batch loss", lambda value: value
    measure, units = in_own_units(None if runs.plan is None else runs.plan.problem)
    if runs.plan is None and runs.validation_loss is not None:
        measure = "validation loss"
    return measure, lambda value: units(value) if value >= 0 else value


def sign_of(runs: Runs) -> float:
    """-1 where losses are maximised, so that the ranking has turned them round."""
    columns = runs.settings.columns
    return -1.0 if "maximize" in columns and bool(runs.settings["maximize"].any()) else 1.0


def ranked_table(runs: Runs, ranked: Sequence[Ranked]) -> RankedTable:
    """The first `MOST_ROWS` of the ranking.

    Args:
        ranked: all settings, the best first, as `downslope.ranking.rank` gives them.
    """
    shown = ranked[:MOST_ROWS]
    measure, units = measure_of(runs)
    names = list(dict.fromkeys(name for one in shown for name in one.settings))
    several = any(one.seeds > 1 for one in shown)
    spread = ["lowest", "highest"] if several else []
    # The loss comes first: what is right of it may lie outside a narrow screen.
    headings = ["place", f"median final {measure}" if several else f"final {measure}"]
    headings += [*(name.replace("_", " ") for name in names), *spread]
    headings += ["diverged seeds" if several else "diverged", "best run"]
    sign = sign_of(runs)
    rows = []
    for place, one in enumerate(shown, start=1):
        losses = [one.loss, one.low, one.high] if several else [one.loss]
        loss, *around = (_loss(units(sign * value)) for value in losses)
        cells = [Cell(str(place), place), loss]
        cells += [*(_setting(one.settings.get(name)) for name in names), *around]
        of = f"{one.diverged} of {one.seeds}" if several else ("yes" if one.diverged else "no")
        cells.append(Cell(of, one.diverged))
        every = one.diverged == one.seeds
        cells.append(Cell(LACKING) if every else Cell(str(one.best_run), one.best_run))
        rows.append(tuple(cells))
    columns = list(zip(*rows, strict=True))
    numbers = tuple(
        any(cell.value is not None or cell.words == LACKING for cell in column)
        for column in columns
    )
    return RankedTable(tuple(headings), numbers, tuple(rows), len(ranked))


def _setting(value: object) -> Cell:
    if value is None:
        return Cell("")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int | float):
        return Cell(said(value), float(value)) if isfinite(value) else Cell("none")
    if isinstance(value, list):
        return Cell(said(tuple(value)))
    words = str(value)
    return Cell(words, float(words)) if words.isdigit() else Cell(words)


def _loss(value: float) -> Cell:
    return Cell(number(value), float(value)) if isfinite(value) else Cell(LACKING)
