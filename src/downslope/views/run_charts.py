"""Charts in text of runs: the best settings' losses, and the final loss against the rate."""

from __future__ import annotations

import numpy as np
import polars as pl
from rich.console import Console

from downslope.errors import InputError
from downslope.runs import Runs
from downslope.views.charts import MOST_LINES, Axis, Floats, Line, print_chart
from downslope.views.data.losses import limits, loss_curves
from downslope.views.data.rates import sensitivity
from downslope.views.data.roofs import not_blown_up, seen_plainly

_FEWEST_RATES = 3
"""Rates below which a table shows as much as a curve."""


def print_losses(runs: Runs, out: Console, every: object = None) -> None:
    """The loss of the best settings, `MOST_LINES` at most: the median of their seeds.

    Args:
        every: between which there are records, as `descend` was asked, where that is known of runs
            that come without their problem.
    """
    try:
        data = loss_curves(runs)
    except InputError as error:  # the losses were not kept
        out.print(f"no chart of losses: {error}", highlight=False, markup=False)
        return
    best = sorted(data.curves, key=lambda curve: curve.setting.score)[:MOST_LINES]
    best = [curve for curve in best if len(curve.x) > 1]
    if not best:
        return
    calm = [curve for curve in best if curve.setting.diverged < len(curve.setting.rows)]
    signs = runs.signs
    of_sign = [np.full(len(c.middle), signs[c.setting.rows[0]]) for c in calm or best]
    seen = np.concatenate([curve.middle for curve in calm or best])
    seen = _below_roof(seen, runs, np.concatenate(of_sign))
    log = bool((seen >= 0).all() and (seen > 0).any())
    low, high = limits(seen, log)
    lines = [
        Line(curve.setting.counted_label, curve.x, curve.middle, ends=curve.ends) for curve in best
    ]
    last = max(float(curve.x[-1]) for curve in best)
    if len(best) == 1:
        label = f"{data.y_label}: {best[0].setting.counted_label}"
    else:
        several = any(len(curve.setting.rows) > 1 for curve in best)
        label = f"{data.y_label} of the best settings" + (", medians" if several else "")
    x_label = data.x_label.partition(" (")[0].lower()
    if x_label == "record" and every == "epoch" and _at_epochs(runs):
        x_label = "epoch"
    print_chart(out, lines, Axis(0.0, last, False, x_label), Axis(low, high, log, label))


def _at_epochs(runs: Runs) -> bool:
    """Whether records that were made every epoch are: a length in steps may end within one."""
    there = runs.steps >= 0
    each = runs.steps[:, 1:2] if runs.steps.shape[1] > 1 else runs.steps
    return bool((runs.steps == each * np.arange(runs.steps.shape[1]))[there].all())


def print_rates(runs: Runs, out: Console) -> None:
    """The final loss against the rate, a line an optimizer (and momentum, and so on)."""
    try:
        data = sensitivity(runs)
    except InputError:  # there is no rate
        return
    best = sorted(data.lines, key=lambda line: line.setting.score)[:MOST_LINES]
    best = [line for line in best if len(line.rates) >= _FEWEST_RATES]
    if not best:
        return
    lines = [
        Line(line.counted_label, line.rates, line.middle, lost=line.rates[line.diverged > 0])
        for line in best
    ]
    label = data.y_label if len(best) > 1 else f"{data.y_label}: {best[0].counted_label}"
    x = Axis(*_ends(np.concatenate([line.rates for line in best]), data.log_x), data.log_x,
             data.x_label.lower())  # fmt: skip
    print_chart(out, lines, x, Axis(*data.y_limits, data.log_y, label), height=7)


def print_curve(curve: pl.DataFrame, runs: Runs, chosen: float | None, out: Console) -> None:
    """The curve of a search, as `Tuning.curve` has it, with the chosen rate marked."""
    rates = curve["lr"].to_numpy().astype(np.float64)
    if len(rates) < _FEWEST_RATES or not (rates > 0).all():
        return
    median = curve["median"].to_numpy().astype(np.float64)
    seen = _below_roof(median, runs, runs.signs[0])
    log = bool((seen >= 0).all() and (seen > 0).any())
    over = "" if runs.validation_loss is None else "validation "
    said = "learning rate" if chosen is None else "learning rate (^ take this)"
    print_chart(
        out,
        [Line("", rates, median, lost=rates[curve["diverged"].to_numpy() > 0])],
        Axis(*_ends(rates, True), True, said),
        Axis(*limits(seen, log), log, f"Median {over}loss against the rate"),
        height=7,
        pointer=chosen,
    )


def _ends(rates: Floats, log: bool) -> tuple[float, float]:
    """The lowest and highest rate; a little apart where they are the same."""
    low, high = float(rates.min()), float(rates.max())
    if low < high:
        return low, high
    return limits(rates, log)


def _below_roof(values: Floats, runs: Runs, signs: Floats | float) -> Floats:
    """The finite values that are not far worse than the losses at the start; all, if all are."""
    known = values[np.isfinite(values)]
    plain = bool((known < 0).any())
    kept = (seen_plainly if plain else not_blown_up)(values, runs.loss[:, 0], signs, runs.signs)
    return kept if len(kept) else known
