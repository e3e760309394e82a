"""Rate curves of a comparison as lines of text: a mark for every trial, failures included."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log10

import polars as pl

MARKS = "▁▂▃▄▅▆▇█"
FAILED = "×"
WIDEST = 60
"""Trials shown a line at most; of more, every so many-th by its rate."""

LEGEND = (
    "a mark a trial, from the lowest rate to the highest: the higher, the further its median on "
    "the tuning seeds lies above the lowest of the problem, in the logarithm; × diverged on a seed"
)


def rate_curves(sensitivity: pl.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each problem, (optimizer, curve) of every optimizer whose rate was searched.

    Args:
        sensitivity: a row a trial, as `Comparison.sensitivity` has them.
    """
    found = []
    rated = sensitivity.filter(pl.col("lr").is_not_null())
    for part in rated.partition_by("problem", maintain_order=True):
        medians = part.filter(pl.col("diverged") == 0)["median"].to_list()
        marks = _scale(medians)
        curves = []
        for mine in part.partition_by("optimizer", maintain_order=True):
            rows = mine.sort("lr", maintain_order=True).select("median", "diverged").rows()
            shown = rows if len(rows) <= WIDEST else _some(rows)
            line = "".join(FAILED if bad else marks[value] for value, bad in shown)
            curves.append((mine["optimizer"][0], line))
        found.append((part["problem"][0], curves))
    return found


def _some(rows: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    return [rows[floor(k * len(rows) / WIDEST)] for k in range(WIDEST)]


def _scale(medians: Sequence[float]) -> dict[float, str]:
    """A mark for each median: the lowest for the lowest, the others evenly in the logarithm of how
    far above it they lie, over six decades at most."""
    finite = [value for value in medians if isfinite(value)]
    if not finite:
        return {value: MARKS[-1] for value in medians}
    least, most = min(finite), max(finite)
    widest = most - least
    marks = {}
    for value in medians:
        if not isfinite(value):
            marks[value] = MARKS[-1]
        elif value == least:
            marks[value] = MARKS[0]
        else:
            part = 1 + max(log10((value - least) / widest), -6) / 6
            marks[value] = MARKS[round(part * (len(MARKS) - 1))]
    return marks
