"""What the picture of a watched loop shows: loss, norms, rates and curvature over the steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SMOOTHED = 50
"""Windows into which the smoothed loss divides the steps."""


@dataclass(frozen=True, eq=False)
class Line:
    """Points of one line: steps and values, where it was measured."""

    name: str
    steps: Floats
    values: Floats


@dataclass(frozen=True, eq=False)
class WatchData:
    """Everything that the picture shows, as plain numbers.

    Attributes:
        loss: each batch's, and its running mean; norms: of gradients and updates.
        rates: one for each group of parameters.
        sharpness: the measured curvature, and 2 / rate at the same steps; empty without a probe.
        limit: rate × curvature as a share of what the optimizer bears (1 is the limit).
        bad_step: the first step that was not finite, or None.
    """

    loss: tuple[Line, ...]
    norms: tuple[Line, ...]
    rates: tuple[Line, ...]
    sharpness: tuple[Line, ...]
    limit: tuple[Line, ...]
    bad_step: int | None


def watch_data(table: pl.DataFrame, bad_step: int | None = None) -> WatchData:
    """The lines of a watch's table."""
    losses = _lines(table, {"loss": "batch's loss"})
    if losses and len(losses[0].values) >= 4:
        losses = (*losses, _smoothed(losses[0]))
    curvature = _lines(table, {"sharpness": "largest curvature"})
    if curvature:
        measured = table.filter(pl.col("sharpness").is_not_null() & (pl.col("lr") > 0))
        bound = measured.select("step", bound=2 / pl.col("lr"))
        curvature = (*curvature, *_lines(bound, {"bound": "2 / rate"}))
    rates = {n: n for n in table.columns if n == "lr" or n.startswith("lr_")}
    return WatchData(
        loss=losses,
        norms=_lines(table, {"gradient_norm": "gradient", "update_norm": "update"}),
        rates=_lines(table, rates),
        sharpness=curvature,
        limit=_lines(table, {"rate_over_limit": "rate over its limit"}),
        bad_step=bad_step,
    )


def _lines(table: pl.DataFrame, names: dict[str, str]) -> tuple[Line, ...]:
    made = []
    for column, words in names.items():
        known = table.filter(pl.col(column).is_not_null() & pl.col(column).is_finite())
        if known.height:
            steps = known["step"].to_numpy().astype(np.float64)
            made.append(Line(words, steps, known[column].to_numpy().astype(np.float64)))
    return tuple(made)


def _smoothed(line: Line) -> Line:
    width = max(1, len(line.values) // _SMOOTHED)
    mean = np.convolve(line.values, np.ones(width) / width, mode="valid")
    return Line("running mean", line.steps[width - 1 :], mean)
