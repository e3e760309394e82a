"""What the pictures of a comparison show of each problem, out of its tables alone.

Infinite medians stand for runs that diverged, as in the tables; NaN for what there is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.errors import InputError
from downslope.views.data.losses import Floats, limits
from downslope.views.data.roofs import BLOWN_UP

MOST_PANELS = 12
"""Problems that get a panel of their own; of more, the first are drawn, and it is said."""

_SPAN = 10.0
"""Times the least loss from which on a logarithmic axis shows more than a plain one."""

Line = TypeVar("Line")


@dataclass(frozen=True, eq=False)
class Panel(Generic[Line]):
    """What is drawn of one problem.

    Attributes:
        lines: one an optimizer, in the order in which they were given.
        limits: of the loss axis, from runs that did not diverge.
        log: whether the losses span so much that their axis is logarithmic.
    """

    problem: str
    lines: tuple[Line, ...]
    limits: tuple[float, float]
    log: bool


@dataclass(frozen=True, eq=False)
class Panels(Generic[Line]):
    """The problems that are drawn, and how many there are.

    Attributes:
        optimizers: those of any panel, in order: each has one colour in all panels.
    """

    panels: tuple[Panel[Line], ...]
    problems: int
    optimizers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Results:
    """The fresh seeds' final losses of one optimizer, at its chosen setting.

    Attributes:
        losses: of the runs that did not diverge, in the order of the seeds, (n − diverged,).
        median, low, high: the median of all n, and the bounds that hold it with `coverage`;
            what diverged counts as infinite, and bounds are NaN where there are none.
        lower_quartile, upper_quartile: the spread of the runs.
        default: the default setting's median; NaN where there is none.
    """

    optimizer: str
    losses: Floats
    n: int
    diverged: int
    median: float
    low: float
    high: float
    coverage: float
    lower_quartile: float
    upper_quartile: float
    default: float
    default_diverged: int


@dataclass(frozen=True, eq=False)
class Rates:
    """The trials of one optimizer, by rising rate.

    Attributes:
        rates: (trials,); median, lowest, highest: over the tuning seeds, (trials,).
        n, diverged: how many seeds there were, and how many diverged, (trials,).
        chosen: the place of the chosen one.
        joined: whether the trials differ in their rate alone, so that a line through them means
            something.
    """

    optimizer: str
    rates: Floats
    median: Floats
    lowest: Floats
    highest: Floats
    n: NDArray[np.int64]
    diverged: NDArray[np.int64]
    chosen: int
    joined: bool


def results(table: pl.DataFrame, runs: pl.DataFrame) -> Panels[Results]:
    """Each problem's final losses on the fresh seeds.

    Args:
        table, runs: `Comparison.table` and `Comparison.results`.
    """
    tuned = runs.filter(pl.col("setting") == "tuned")

    def line(mine: pl.DataFrame, row: dict[str, Any]) -> Results:
        own = tuned.filter(
            (pl.col("problem") == row["problem"]) & (pl.col("optimizer") == row["optimizer"])
        )
        return Results(
            optimizer=row["optimizer"],
            losses=own["final_loss"].drop_nulls().to_numpy().astype(np.float64),
            **{name: row[name] for name in _AS_IN_TABLE},
            default=_number(row["default_median"]),
            default_diverged=row["default_diverged"] or 0,
        )

    def seen(lines: tuple[Results, ...]) -> Floats:
        return np.concatenate([[one.median, one.default, *one.losses] for one in lines])

    return panels_of(table, runs, line, seen)


_AS_IN_TABLE = ("n", "diverged", "median", "low", "high", "coverage", "lower_quartile",
                "upper_quartile")  # fmt: skip


def rates(trials: pl.DataFrame, table: pl.DataFrame, runs: pl.DataFrame) -> Panels[Rates]:
    """Each problem's trials against their rates.

    Args:
        trials, table, runs: `Comparison.sensitivity`, `.table` and `.results`.

    Raises:
        InputError: if no trial had a learning rate of its own.
    """
    rated = trials.filter(pl.col("lr").is_not_null())
    if not rated.height:
        raise InputError("no trial has a learning rate of its own to draw the final loss against")
    searched = table.select("problem", "optimizer", more=pl.col("chosen").is_not_null())
    rated = rated.join(searched, on=["problem", "optimizer"], maintain_order="left")

    def line(mine: pl.DataFrame, row: dict[str, Any]) -> Rates:
        mine = mine.sort("lr", maintain_order=True)
        return Rates(
            row["optimizer"],
            rates=numbers(mine, "lr"),
            median=numbers(mine, "median"),
            lowest=numbers(mine, "lowest"),
            highest=numbers(mine, "highest"),
            n=mine["n"].to_numpy().astype(np.int64),
            diverged=mine["diverged"].to_numpy().astype(np.int64),
            chosen=int(mine["chosen"].arg_max() or 0),
            joined=not row["more"],
        )

    def seen(lines: tuple[Rates, ...]) -> Floats:
        return np.concatenate([one.median[one.diverged == 0] for one in lines])

    return panels_of(rated, runs, line, seen)


def panels_of(
    frame: pl.DataFrame,
    runs: pl.DataFrame | None,
    line: Callable[[pl.DataFrame, dict[str, Any]], Line],
    seen: Callable[[tuple[Line, ...]], Floats],
) -> Panels[Line]:
    """A panel a problem, with axes that hold what was `seen`; what lies far above the losses at
    the start is left outside."""
    names = frame["problem"].unique(maintain_order=True).to_list()
    panels = []
    for name in names[:MOST_PANELS]:
        parts = frame.filter(pl.col("problem") == name).partition_by(
            "optimizer", maintain_order=True
        )
        lines = tuple(line(mine, mine.row(0, named=True)) for mine in parts)
        values = seen(lines)
        values = values[np.isfinite(values)]
        if runs is not None:
            start = runs.filter(pl.col("problem") == name)["initial_loss"].to_numpy()
            roof = BLOWN_UP * np.abs(start[np.isfinite(start)]).max(initial=0.0)
            values = values[values <= roof] if (values <= roof).any() else values
        above = values[values > 0]
        log = bool(len(above) and (values >= 0).all() and values.max() > _SPAN * values.min())
        panels.append(Panel(name, lines, limits(values, log), log))
    optimizers = frame["optimizer"].unique(maintain_order=True).to_list()
    return Panels(tuple(panels), len(names), tuple(optimizers))


def numbers(frame: pl.DataFrame, name: str) -> Floats:
    """A column as an array, NaN where there is nothing."""
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
