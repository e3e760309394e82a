"""What a map shows, as plain arrays: an outcome over any two settings of the runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.errors import InputError, listed
from downslope.explain.findings import VERDICTS
from downslope.ranking import varying as differing
from downslope.runs import Runs
from downslope.views.data.asked import outcome_of, pair_of, varies
from downslope.views.data.chosen import check_some
from downslope.views.data.losses import Floats, loss_words
from downslope.views.data.roofs import not_blown_up
from downslope.views.data.scales import FEW, Scale, binned, scale_of
from downslope.views.data.trainability import summed

MOST_VERDICTS = 400
"""Cells into which verdicts are written."""

_SPARSE = 0.25
"""Share of cells with runs below which numbers are put together in bins."""


@dataclass(frozen=True, eq=False)
class OutcomeMap:
    """An outcome over two settings, (cells of y, cells of x) in each array.

    Attributes:
        values: the median over a cell's runs; NaN where half of them or more diverged, and where
            there is no run.
        runs, diverged: how many there are, and how many of them diverged.
        grown: of sums, where the median run blew up, so that its value is the sum of inverses;
            None for other outcomes.
        best: row and column of the best cell; None if all diverged.
        limits: values between which colours change; capped: whether worse ones are left out.
        upward: whether the loss is maximised, so that those are smaller.
        verdicts: the most frequent verdict in each cell, "" where there is no run; None if not
            asked for.
    """

    x: Scale
    y: Scale
    values: Floats
    runs: NDArray[np.int64]
    diverged: NDArray[np.int64]
    grown: NDArray[np.bool_] | None
    best: tuple[int, int] | None
    limits: tuple[float, float]
    log: bool
    capped: bool
    upward: bool
    label: str
    title: str
    verdicts: tuple[tuple[str, ...], ...] | None

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Cells of which half the runs or more diverged."""
        made: NDArray[np.bool_] = (self.runs > 0) & ~np.isfinite(self.values)
        return made

    @property
    def best_label(self) -> str:
        """The best cell in words."""
        assert self.best is not None
        row, column = self.best
        places = ((self.x, column), (self.y, row))
        at = ", ".join(f"{s.name.replace('_', ' ')} {s.words[place]}" for s, place in places)
        value = f"{self.values[row, column]:.4g}"
        if self.x.binned or self.y.binned:  # a bin's middle is no setting that any run had
            return f"best bin: median {value} about {at}"
        return f"best: {value} at {at}"


def outcome_map(
    runs: Runs,
    x: str = "lr",
    y: str | None = None,
    of: str | None = None,
    verdicts: bool = False,
) -> OutcomeMap:
    """An outcome over two settings; see `Plots.map`.

    Raises:
        InputError: for a setting that does not vary, an unknown outcome, verdicts of too many
            cells.

    >>> import downslope as ds
    >>> problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    >>> runs = ds.descend(problem, lr=[0.1, 0.5], momentum=[0, 0.5], steps=9, progress=False)
    >>> outcome_map(runs).best_label
    'best: 0 at lr 0.5, momentum 0'
    """
    check_some(runs)
    x, y = pair_of(runs, x, y)
    of = outcome_of(runs, of)
    (across, columns), (up, rows) = (scale_of(runs.settings[name]) for name in (x, y))
    there = (columns >= 0) & (rows >= 0)
    if not there.any():
        raise InputError(f"no run has both {x} and {y}: choose another pair")
    filled = len(np.unique(rows[there] * len(across) + columns[there]))
    if filled < _SPARSE * len(across) * len(up):
        count = int(np.clip(np.sqrt(there.sum()) / 1.5, 4, 32))
        across, columns = _in_bins(runs.settings[x], across, columns, count)
        up, rows = _in_bins(runs.settings[y], up, rows, count)
    shape = (len(up), len(across))
    if verdicts and shape[0] * shape[1] > MOST_VERDICTS:
        raise InputError(
            f"verdicts are written into {MOST_VERDICTS} cells at most, and this map has "
            f"{shape[0] * shape[1]:,}: choose some of the runs, as runs.where(lr=[0.01, 0.1])"
        )
    cells = rows * shape[1] + columns
    chosen = np.flatnonzero(there)
    grown = None
    sign = float(runs.signs[chosen[0]])
    if of == "sum":
        values, counts, grown = _sums(runs, chosen, cells, shape)
    else:
        score = sign * runs.table[of].to_numpy().astype(np.float64)
        values, counts = medians(score[chosen], cells[chosen], shape)
    values = sign * values
    bad = np.bincount(cells[chosen], runs.diverged[chosen], shape[0] * shape[1])
    limits, log, capped = _colours(values, runs[chosen], sign, grown)
    return OutcomeMap(
        x=across,
        y=up,
        values=values,
        runs=counts,
        diverged=bad.astype(np.int64).reshape(shape),
        grown=grown,
        best=_best(sign * values, grown),
        limits=limits,
        log=log,
        capped=capped,
        upward=sign < 0,
        label=_label(runs, of),
        title=_title(runs, chosen, cells, counts, (x, y)),
        verdicts=_verdicts(runs, chosen, cells, shape) if verdicts else None,
    )


def medians(
    scores: Floats, cells: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[Floats, NDArray[np.int64]]:
    """Median and number of the runs of each cell; what is not finite counts as the worst.

    Args:
        scores: (runs,), less is better; cells: (runs,), rows of `shape` after each other.

    Returns:
        `shape` each; NaN where half the runs or more have no finite score, and where there is none.
    """
    size = shape[0] * shape[1]
    held = np.where(np.isfinite(scores), scores, np.inf)
    ordered = np.append(held[np.lexsort((held, cells))], np.inf)
    counts = np.bincount(cells, minlength=size)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    upper = np.where(counts > 0, ordered[first + counts // 2], np.inf)
    lower = ordered[first + np.maximum(counts - 1, 0) // 2]
    made = np.full(size, np.nan)
    known = np.isfinite(upper)
    made[known] = lower[known] + (upper[known] - lower[known]) / 2
    return made.reshape(shape), counts.reshape(shape)


def _sums(
    runs: Runs, chosen: NDArray[np.int64], cells: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Medians of the sums of those that went the way that most of a cell's runs went."""
    sums, blown = summed(runs)
    falling, rising = chosen[~blown[chosen]], chosen[blown[chosen]]
    down, fell = medians(sums[falling], cells[falling], shape)
    up, rose = medians(sums[rising], cells[rising], shape)
    grown = rose >= np.maximum(fell, 1)
    return np.where(grown, up, down), fell + rose, grown


def _best(scores: Floats, grown: NDArray[np.bool_] | None) -> tuple[int, int] | None:
    held = scores if grown is None else np.where(grown, np.nan, scores)
    if not np.isfinite(held).any():
        return None
    row, column = np.unravel_index(int(np.nanargmin(held)), held.shape)
    return int(row), int(column)


def _in_bins(
    column: pl.Series, scale: Scale, cells: NDArray[np.int64], count: int
) -> tuple[Scale, NDArray[np.int64]]:
    if len(scale) <= max(FEW, count) or scale.kind == "categories":
        return scale, cells
    return binned(column, scale, count)


def _colours(
    values: Floats, runs: Runs, sign: float, grown: NDArray[np.bool_] | None
) -> tuple[tuple[float, float], bool, bool]:
    """Where colours begin and end, whether by logarithms, and whether worse ones are left out."""
    known = values[np.isfinite(values)]
    if not len(known):
        return (0.1, 1.0), False, False
    seen = known if grown is not None else not_blown_up(known, runs.loss[:, 0], sign, sign)
    capped = bool(grown is None and 0 < len(seen) < len(known))
    seen = seen if len(seen) else known
    low, high = float(seen.min()), float(seen.max())
    positive = seen[seen > 0]
    log = bool(low >= 0 and len(positive) and high > 10 * positive.min())
    if log:
        low = max(float(positive.min()), high * 1e-32)
    if not low < high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return (low, high), log, capped


def _label(runs: Runs, of: str) -> str:
    words = loss_words(runs)
    named = {
        "final_loss": f"Final {words}",
        "final_validation_loss": f"Final validation {words}",
        "best_loss": f"Best recorded {words}",
        "sum": "Sum over the records, losses as shares of the start",
    }
    return named[of]


def _title(
    runs: Runs,
    chosen: NDArray[np.int64],
    cells: NDArray[np.int64],
    counts: NDArray[np.int64],
    axes: tuple[str, str],
) -> str:
    """What a cell stands for, and how many runs are left out."""
    some = counts[counts > 0]
    least, most = int(some.min()), int(some.max())
    told = []
    frame = runs.settings[chosen]
    may = [n for n in frame.columns if n in {"seed", "start", *differing(runs)} - {*axes}]
    within = frame.with_columns(cell=pl.Series(cells[chosen])).group_by("cell")
    several = within.agg(pl.all().drop_nulls().n_unique()).max().row(0, named=True)
    if most > 1:
        over = [name.replace("_", " ") for name in may if several[name] > 1]
        count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        told.append(f"median of {count} runs a cell{f' (over {listed(over)})' if over else ''}")
    apart = [n.replace("_", " ") for n in may if several[n] <= 1 and varies(frame[n])]
    if apart:
        told.append(f"neighbouring cells may differ in {listed(apart)} too")
    left_out = len(runs) - len(chosen)
    if left_out:
        told.append(f"{left_out:,} runs without both settings left out")
    return "; ".join(told)


def _verdicts(
    runs: Runs, chosen: NDArray[np.int64], cells: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[tuple[str, ...], ...]:
    """The most frequent verdict of each cell; of equals the first of `VERDICTS`."""
    found = [Counter[str]() for _ in range(shape[0] * shape[1])]
    for cell, finding in zip(cells[chosen], runs[chosen].explain(), strict=True):
        found[cell][finding.verdict] += 1
    named = [
        max(VERDICTS, key=lambda verdict: counts[verdict]) if counts else "" for counts in found
    ]
    return tuple(tuple(named[row * shape[1] : (row + 1) * shape[1]]) for row in range(shape[0]))
