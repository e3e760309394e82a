"""What the pictures of budgets show: what fewer trials would have found, and times to targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.views.data.comparisons import Panels, numbers, panels_of
from downslope.views.data.losses import Floats


@dataclass(frozen=True, eq=False)
class BestOf:
    """What so many trials would have found, (trials,) each; see `Comparison.expected_best`.

    Attributes:
        expected: the mean of what was found, where anything was.
        all_diverged: the chance that every one of so many diverged.
    """

    optimizer: str
    trials: NDArray[np.int64]
    expected: Floats
    low: Floats
    middle: Floats
    high: Floats
    all_diverged: Floats


@dataclass(frozen=True, eq=False)
class Times:
    """How long one optimizer took to targets further and further on the way, (shares,) each.

    Attributes:
        shares: of the baseline's way from its start to its end.
        steps, evaluations: medians over the fresh seeds; NaN where it was not reached by most
            (or, of evaluations, where nobody counts them).
        reached: how many of the `n` seeds reached it.
    """

    optimizer: str
    shares: Floats
    steps: Floats
    evaluations: Floats
    reached: NDArray[np.int64]
    n: int


def expected_best(best: pl.DataFrame, runs: pl.DataFrame) -> Panels[BestOf]:
    """What fewer trials would have found on each problem.

    Args:
        best, runs: `Comparison.expected_best` and `.results`.
    """

    def line(mine: pl.DataFrame, row: dict[str, Any]) -> BestOf:
        names = ("expected", "lower_quartile", "median", "upper_quartile", "all_diverged")
        return BestOf(
            row["optimizer"],
            mine["trials"].to_numpy().astype(np.int64),
            *(numbers(mine, name) for name in names),
        )

    def seen(lines: tuple[BestOf, ...]) -> Floats:
        return np.concatenate([np.concatenate([one.middle, one.low]) for one in lines])

    return panels_of(best, runs, line, seen)


def times(targets: pl.DataFrame) -> Panels[Times]:
    """How the time to the target depends on the target, on each problem.

    Args:
        targets: `Comparison.targets`.
    """

    def line(mine: pl.DataFrame, row: dict[str, Any]) -> Times:
        mine = mine.sort("share")
        return Times(
            row["optimizer"],
            shares=numbers(mine, "share"),
            steps=numbers(mine, "steps"),
            evaluations=numbers(mine, "gradient_evaluations"),
            reached=mine["reached"].to_numpy().astype(np.int64),
            n=row["n"],
        )

    return panels_of(targets, None, line, lambda lines: np.empty(0))
