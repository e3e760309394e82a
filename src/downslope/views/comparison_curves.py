"""Rate curves of a comparison as lines of text: a mark for every trial, failures included."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, log10
from typing import Any

import polars as pl

MARKS = "▁▂▃▄▅▆▇█"
FAILED = "×"
WIDEST = 48
"""Marks a line at most; of more trials, several share one."""

LEGEND = (
    "a mark a trial, between the lowest rate and the highest: the higher, the further its median "
    "on the tuning seeds lies above the lowest of the problem, in the logarithm; × diverged on a "
    "seed; where trials are too many for a line, neighbours share a mark: that of the chosen one, "
    "else of one that diverged, else of the best"
)


def rate_curves(
    sensitivity: pl.DataFrame, widest: int = WIDEST
) -> list[tuple[str, list[tuple[str, float, str, float]]]]:
    """For each problem, (optimizer, lowest rate, curve, highest rate) of every optimizer whose rate
    was searched.

    Args:
        sensitivity: a row a trial, as `Comparison.sensitivity` has them.
        widest: marks in a curve at most.
    """
    found = []
    rated = sensitivity.filter(pl.col("lr").is_not_null())
    for part in rated.partition_by("problem", maintain_order=True):
        medians = part.filter(pl.col("diverged") == 0)["median"].to_list()
        marks = _scale(medians)
        curves = []
        for mine in part.partition_by("optimizer", maintain_order=True):
            rows = mine.sort("lr", maintain_order=True).to_dicts()
            columns = min(len(rows), max(widest, 1))
            ends = [len(rows) * k // columns for k in range(columns + 1)]
            shares = [_told(rows[a:b]) for a, b in pairwise(ends)]
            line = "".join(FAILED if row["diverged"] else marks[row["median"]] for row in shares)
            curves.append((mine["optimizer"][0], rows[0]["lr"], line, rows[-1]["lr"]))
        found.append((part["problem"][0], curves))
    return found


def _told(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The trial that a shared mark shows: the chosen, else one that diverged, else the best."""
    return min(rows, key=lambda row: (not row["chosen"], not row["diverged"], row["median"]))


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
