"""What the picture of gradient norms shows, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from downslope.errors import InputError
from downslope.runs import Runs
from downslope.views.data.chosen import check_some
from downslope.views.data.histories import check_axis
from downslope.views.data.losses import Axis, Floats, horizontal, limits, over_seeds
from downslope.views.data.roofs import BLOWN_UP
from downslope.views.data.settings import Setting, settings_of, thinned

_NOISY = 0.1
"""Spread of the logarithm about the smooth line, in decades, above which a line is noisy."""

_SHORTEST = 50
"""Updates of which a smooth line has something to say."""

_WINDOWS = 25
"""Stretches that a line is smoothed over, about."""


@dataclass(frozen=True, eq=False)
class NormCurve:
    """The gradient norms of one setting over its seeds.

    Attributes:
        x: (updates,); middle, low, high: median, least and greatest over the seeds, (updates,).
        smooth: (updates,), the moving mean of the middle's logarithm, where that is noisy.
        ends: where each diverged run had its last finite norm, (diverged, 2) of x and norm.
    """

    setting: Setting
    x: Floats
    middle: Floats
    low: Floats
    high: Floats
    smooth: Floats | None
    ends: Floats


@dataclass(frozen=True, eq=False)
class NormCurves:
    """Gradient norms, and the limits that show the runs that did not diverge.

    Attributes:
        window: updates that the smooth lines are a mean of; 0 where there is none.
    """

    curves: tuple[NormCurve, ...]
    others: tuple[NormCurve, ...]
    x_label: str
    y_label: str
    limits: tuple[float, float]
    log: bool
    window: int


def norm_curves(runs: Runs, axis: Axis = "step") -> NormCurves:
    """The norm of the batch's gradient before each update, a line a setting.

    Args:
        axis: "step" for the number of updates, or "epoch".

    Raises:
        InputError: for another axis, or if the norms were not kept.
    """
    check_axis(axis)
    check_some(runs)
    if runs.gradient_norm is None:
        raise InputError(
            "the gradients' norms were not kept: descend with keep=('loss', 'gradient_norm')"
        )
    values = np.asarray(runs.gradient_norm, dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    at = np.where(np.isfinite(values), np.arange(values.shape[1]), -1)
    x, x_label = horizontal(runs, at, axis, "batch_loss")
    window = _window(values.shape[1])
    curves = [_curve(runs, values, x, setting) for setting in settings_of(runs)]
    shown, others = thinned(curves)
    smoothed = tuple(replace(curve, smooth=_smooth(curve.middle, window)) for curve in shown)
    held = _seen(runs, values, [curve.setting for curve in shown] if others else [])
    log = bool((held > 0).any())
    clipped = "clip_norm" in runs.settings.columns
    return NormCurves(
        smoothed,
        others,
        x_label,
        "Norm of the batch's gradient" + (" (before clipping)" if clipped else ""),
        limits(held, log),
        log,
        window if any(curve.smooth is not None for curve in smoothed) else 0,
    )


def _seen(runs: Runs, values: Floats, shown: Sequence[Setting]) -> Floats:
    """The norms that the axis has to hold: those of the runs that did not diverge, and at the
    start; of thin lines, if any settings are `shown` thick, only those below the start."""
    start = values[:, :1]
    if runs.diverged.all():
        held = np.minimum(values, BLOWN_UP * start)
    else:
        held = np.where(runs.diverged[:, None], np.nan, values)
        if shown:
            thin = np.ones(len(runs), dtype=bool)
            thin[np.concatenate([setting.rows for setting in shown])] = False
            held = np.where(thin[:, None], np.minimum(held, start), held)
    held = np.concatenate([held, start], axis=1)
    return held[np.isfinite(held)]


def _curve(runs: Runs, values: Floats, x: Floats, setting: Setting) -> NormCurve:
    own = values[setting.rows]
    at = np.fmax.reduce(x[setting.rows])  # the longest of them
    there = np.isfinite(at)
    middle, low, high = over_seeds(own[:, there])
    ends = [
        (at[update], norms[update])
        for place, norms in zip(setting.rows, own, strict=True)
        if runs.diverged[place]
        for update in np.flatnonzero(np.isfinite(norms))[-1:]
    ]
    marks = np.asarray(ends, dtype=np.float64).reshape(-1, 2)
    return NormCurve(setting, at[there], middle, low, high, None, marks)


def _window(updates: int) -> int:
    """An odd number of updates."""
    return 2 * (updates // (2 * _WINDOWS)) + 1


def _smooth(values: Floats, window: int) -> Floats | None:
    """The moving geometric mean; shorter windows at the ends. None where it would show the same."""
    if len(values) < _SHORTEST or window < 5 or not (values > 0).all():
        return None
    logarithms = np.log10(values)
    total = np.concatenate([[0.0], np.cumsum(logarithms)])
    places = np.arange(len(values))
    reach = np.minimum(np.minimum(places, len(values) - 1 - places), window // 2)
    smooth = (total[places + reach + 1] - total[places - reach]) / (2 * reach + 1)
    if float(np.std(logarithms - smooth)) < _NOISY:
        return None
    made: Floats = 10**smooth
    return made
