"""What the pictures of losses show, as plain arrays: computed and tested apart from any drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from downslope.engines.work import Status
from downslope.errors import InputError
from downslope.runs import Runs
from downslope.views.data.chosen import check_some
from downslope.views.data.roofs import BLOWN_UP, seen_plainly
from downslope.views.data.settings import Setting, settings_of, thinned

Floats = NDArray[np.float64]
Axis = Literal["epoch", "step"]
Which = Literal["loss", "batch_loss"]

_DECADES = 32.0
_LEAST_ROOM = 0.01
"""Decades, or a share of the value: differences of rounding are not blown up to fill a picture."""

_LOSS_WORDS: dict[Any, str] = {
    nn.MSELoss: "mean squared error",
    nn.L1Loss: "mean absolute error",
    nn.CrossEntropyLoss: "cross-entropy",
    nn.BCEWithLogitsLoss: "binary cross-entropy",
    nn.HuberLoss: "Huber loss",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses of one setting over its seeds.

    Attributes:
        x: (records,); middle, low, high: median, least and greatest over the seeds, (records,).
        validation: the median validation loss, (records,), or None.
        ends: where each diverged run had its last finite loss, (diverged, 2) of x and loss.
    """

    setting: Setting
    x: Floats
    middle: Floats
    low: Floats
    high: Floats
    validation: Floats | None
    ends: Floats


@dataclass(frozen=True, eq=False)
class LossCurves:
    """Loss curves, and the limits that show the runs that did not diverge."""

    curves: tuple[Curve, ...]
    others: tuple[Curve, ...]
    x_label: str
    y_label: str
    limits: tuple[float, float]
    log: bool


def loss_curves(
    runs: Runs, axis: Axis = "epoch", log: bool = True, which: Which = "loss"
) -> LossCurves:
    """The loss curves of runs, a line a setting.

    Args:
        axis: "epoch", or "step" for the number of updates.
        log: a logarithmic loss axis, where no loss is below 0.
        which: "loss" at the records, or "batch_loss" before each update.

    Raises:
        InputError: for another axis, a loss that was not kept, or no runs at all.
    """
    for name, given, allowed in (
        ("axis", axis, ("epoch", "step")),
        ("which", which, ("loss", "batch_loss")),
    ):
        if given not in allowed:
            raise InputError(f"{name} must be {' or '.join(map(repr, allowed))}, got {given!r}")
    check_some(runs)
    values, at = _kept(runs, which)
    x, x_label = horizontal(runs, at, axis, which)
    curves = [_curve(runs, values, x, setting, which) for setting in settings_of(runs)]
    shown, others = thinned(curves)
    together, signs = _seen(runs, values, [c.setting for c in shown] if others else [], which)
    log = bool(log and not (together < 0).any() and (together > 0).any())
    if not log:  # where wild ones would flatten all others
        together = seen_plainly(together, values[:, 0], signs, runs.signs)
    words = loss_words(runs) if which == "loss" else f"batch's {loss_words(runs)}"
    return LossCurves(
        shown, others, x_label, words[0].upper() + words[1:], limits(together, log), log
    )


def limits(values: Floats, log: bool) -> tuple[float, float]:
    """The ends of an axis that holds the finite `values` with a little room.

    A logarithmic one spans `_DECADES` at most: 0, or what is as good as it, stands at its foot.
    """
    values = values[values > 0] if log else values
    if not len(values):
        return (0.1, 10.0) if log else (-1.0, 1.0)
    scaled = np.log10(values) if log else values
    low, high = float(scaled.min()), float(scaled.max())
    low = max(low, high - _DECADES) if log else low
    room = 0.05 * (high - low) or (0.5 if log else 0.05 * abs(high) or 1.0)
    room = max(room, _LEAST_ROOM if log else _LEAST_ROOM * abs(high))
    low, high = low - room, high + room
    return (float(10**low), float(10 ** min(high, 307.0))) if log else (low, high)


def over_seeds(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Median, least and greatest of the values (seeds, records) that are there, (records,)."""
    ordered = np.sort(values.astype(np.float64), axis=0)  # NaN last
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    count = (~np.isnan(ordered)).sum(0)
    columns = np.arange(ordered.shape[1])
    lower = ordered[np.maximum(count - 1, 0) // 2, columns]
    upper = ordered[np.minimum(count // 2, len(ordered) - 1), columns]
    middle = lower + (upper - lower) / 2
    return middle, ordered[0], ordered[np.maximum(count - 1, 0), columns]


def loss_words(runs: Runs) -> str:
    """The loss in words; of a standardised target this is said, for it has no unit then."""
    if runs.plan is None:
        return "loss"
    problem = runs.plan.problem
    if problem.train is None:
        return "value of the function"
    loss: Any = type(problem.template.loss)
    words = _LOSS_WORDS.get(loss, "loss")
    standardised = problem.table is not None and not problem.table.schema.target.classes
    return f"{words} (standardised target)" if standardised else words


def _seen(
    runs: Runs, values: Floats, shown: Sequence[Setting], which: Which
) -> tuple[Floats, Floats]:
    """The losses that the axis has to hold, and their runs' signs: those of the runs that did not
    diverge, and where they started; of thin lines, if any settings are `shown` thick, only those
    better than the start."""
    start, signs = values[:, :1], runs.signs[:, None]
    if runs.diverged.all():
        return _finite(signs * np.minimum(signs * values, BLOWN_UP * abs(start)), signs)
    held = np.where(runs.diverged[:, None], np.nan, values)
    validation = runs.validation_loss if which == "loss" else None
    checked = np.full_like(start, np.nan) if validation is None else validation
    checked = np.where(runs.diverged[:, None], np.nan, checked)
    if shown:
        thin = np.ones(len(runs), dtype=bool)
        thin[np.concatenate([setting.rows for setting in shown])] = False
        held = np.where(thin[:, None], signs * np.minimum(signs * held, signs * start), held)
        checked = np.where(thin[:, None], np.nan, checked)
    return _finite(np.concatenate([start, held, checked], axis=1), signs)


def _curve(runs: Runs, values: Floats, x: Floats, setting: Setting, which: Which) -> Curve:
    rows = setting.rows
    own = values[rows]
    at = np.fmax.reduce(x[rows])  # the longest of them
    there = np.isfinite(at)
    validation = None
    if which == "loss" and runs.validation_loss is not None:
        validation = over_seeds(
            _held(runs, runs.validation_loss[rows].astype(np.float64), rows)[:, there]
        )[0]
    middle, low, high = over_seeds(_held(runs, own, rows)[:, there])
    ends = []
    for place, losses in zip(rows, own, strict=True):
        if runs.diverged[place]:
            last = np.flatnonzero(np.isfinite(losses))[-1:]
            ends += [(at[record], losses[record]) for record in last]
    marks = np.asarray(ends, dtype=np.float64).reshape(-1, 2)
    return Curve(setting, at[there], middle, low, high, validation, marks)


def _held(runs: Runs, values: Floats, rows: NDArray[np.int64]) -> Floats:
    """Losses (seeds, records), those of runs that stopped early held to the last record.

    Else the median would be of other seeds from record to record.
    """
    early = np.isin(runs.status[rows], (Status.stopped, Status.converged))
    if len(rows) == 1 or not early.any():
        return values
    held = values.copy()
    for place in np.flatnonzero(early):
        last = np.flatnonzero(np.isfinite(values[place]))[-1:]
        for record in last:
            held[place, record:] = values[place, record]
    return held


def _kept(runs: Runs, which: Which) -> tuple[Floats, NDArray[np.int64]]:
    """The losses (runs, records) and the updates done at each, -1 after the end."""
    if which == "batch_loss":
        if runs.batch_loss is None:
            raise InputError(
                "the batches' losses were not kept: descend with keep=('loss', 'batch_loss')"
            )
        values = np.asarray(runs.batch_loss, dtype=np.float64)
        return values, np.where(np.isfinite(values), np.arange(values.shape[1]), -1)
    values = np.asarray(runs.loss, dtype=np.float64)
    lacking = np.isnan(values[:, 1:-1]) & (runs.steps[:, 1:-1] >= 0) & ~runs.diverged[:, None]
    if lacking.any():
        raise InputError("the loss at the records was not kept: descend with 'loss' in keep=")
    return values, runs.steps


def horizontal(runs: Runs, at: NDArray[np.int64], axis: Axis, which: Which) -> tuple[Floats, str]:
    """Where the records (runs, records) stand on the axis, NaN after the end, and its label."""
    x = np.where(at >= 0, at, np.nan).astype(np.float64)
    without_data = runs.plan is not None and runs.plan.problem.train is None
    if axis == "step" or without_data:
        return x, "Step (updates of the parameters)"
    each = _updates_per_epoch(runs)
    if each is not None:
        return x / each[:, None], "Epoch (passes over the training rows)"
    if which == "batch_loss":
        return x, "Step (updates of the parameters)"
    return np.where(at >= 0, np.arange(at.shape[1]), np.nan), "Record"


def _updates_per_epoch(runs: Runs) -> NDArray[np.int64] | None:
    """How many updates make an epoch, (runs,), if the plan is there to ask."""
    if runs.plan is None:
        return None
    of_group = {c.group: c for c in reversed(runs.plan.chunks)}
    each = np.ones(runs.plan.runs, dtype=np.int64)
    for number, chunk in of_group.items():
        each[runs.plan.groups[number].index] = runs.plan.work(chunk).updates_per_epoch
    chosen: NDArray[np.int64] = each[runs.settings["run"].to_numpy()]
    return chosen


def _finite(values: Floats, signs: Floats) -> tuple[Floats, Floats]:
    """The finite of the values (runs, some), and their runs' signs."""
    known = np.isfinite(values)
    return values[known], np.broadcast_to(signs, values.shape)[known]
