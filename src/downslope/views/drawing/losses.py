"""Loss curves: a line a setting, its seeds as a band."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from downslope.views.data.losses import Curve, LossCurves
from downslope.views.drawing.marks import cross, draw_others, mark_ends, plain_ticks
from downslope.views.drawing.style import (
    BLACK,
    GREY,
    legend,
    prepare,
    strokes,
)

_DRAWN_RECORDS = 500
"""Points of a thin grey line: more could not be seen."""


def draw_losses(figure: Figure | SubFigure, data: LossCurves) -> None:
    """A line a setting, the range over its seeds as a band, a cross where a run diverged."""
    axes = figure.subplots()
    prepare(axes, data.x_label, data.y_label)
    if data.log:
        axes.set_yscale("log")
    axes.set_ylim(data.limits)
    if data.log:
        plain_ticks(axes.yaxis, data.limits)
    curves = [*data.curves, *data.others]
    last = max((float(c.x[-1]) for c in curves if len(c.x)), default=1.0) or 1.0
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    handles: list[Line2D | Patch] = []
    floor = data.limits[0] if data.log else -np.inf  # 0 has no place on a logarithmic axis
    draw_others(axes, [_thin(curve, floor) for curve in data.others])
    for curve, (colour, dashes) in zip(data.curves, strokes(len(data.curves)), strict=True):
        width = 1.6 if len(curve.x) <= _DRAWN_RECORDS else 0.8
        label = curve.setting.counted_label
        middle, low, high = np.maximum([curve.middle, curve.low, curve.high], floor)
        look = {"color": colour, "linestyle": dashes, "linewidth": width, "label": label}
        handles += axes.plot(curve.x, middle, **look)
        if len(curve.setting.rows) > 1:
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
        if curve.validation is not None:
            checked = np.maximum(curve.validation, floor)
            axes.plot(curve.x, checked, color=colour, linewidth=width, linestyle="--")
        mark_ends(axes, curve.ends, colour, data.limits, 7.0)
    for curve in data.others:
        mark_ends(axes, curve.ends, GREY, data.limits, 4.0)
    if data.others:
        settings = f"{len(data.others):,} other settings"
        if all(c.setting.diverged == len(c.setting.rows) for c in data.others):
            settings = f"{len(data.others):,} settings that diverged"
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=settings))
    if any(curve.validation is not None for curve in data.curves):
        handles.append(Line2D([], [], color=BLACK, linestyle="--", label="validation rows"))
    diverged = sum(curve.setting.diverged for curve in curves)
    if diverged:
        label = f"diverged ({diverged:,} {'run' if diverged == 1 else 'runs'})"
        handles.append(cross(label))
    several = any(len(curve.setting.rows) > 1 for curve in data.curves)
    legend(figure, handles, "Line: median of the seeds; band: their range" if several else "")


def _thin(curve: Curve, floor: float) -> np.ndarray:
    step = -(-len(curve.x) // _DRAWN_RECORDS)
    return np.column_stack([curve.x[::step], np.maximum(curve.middle[::step], floor)])
