"""Loss curves: a line a setting, its seeds as a band."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from downslope.views.data.losses import Curve, LossCurves
from downslope.views.drawing.marks import (
    at_the_foot,
    draw_others,
    mark_ends,
    plain_ticks,
    rest,
    widened,
)
from downslope.views.drawing.style import (
    BLACK,
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
    drawn = [np.column_stack([c.x, np.maximum(c.middle, floor)]) for c in data.curves]
    more = widened(drawn, data.limits, data.log)
    looks = zip(data.curves, strokes(len(data.curves)), more, strict=True)
    for curve, (colour, dashes), wider in looks:
        width = (1.6 if len(curve.x) <= _DRAWN_RECORDS else 0.8) + wider
        mark = "o" if len(curve.x) == 1 else "none"
        label = curve.setting.counted_label
        middle, low, high = np.maximum([curve.middle, curve.low, curve.high], floor)
        look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": width}
        look |= {"marker": mark, "markersize": 5 + 2 * wider}
        handles += axes.plot(curve.x, middle, label=label, **look)
        if len(curve.setting.rows) > 1:
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
        if curve.validation is not None:
            checked = np.maximum(curve.validation, floor)
            look |= {"linewidth": min(width, 1.6), "linestyle": "--"}
            axes.plot(curve.x, checked, **look)
        mark_ends(axes, curve.ends, colour, data.limits, 7.0)
    if any(curve.validation is not None for curve in data.curves):
        handles.append(Line2D([], [], color=BLACK, linestyle="--", label="validation rows"))
    handles += rest(axes, data.curves, data.others, data.limits)
    several = any(len(curve.setting.rows) > 1 for curve in data.curves)
    apart = [curve.validation for curve in data.curves if curve.validation is not None]
    said = [
        "Line: median of the seeds; band: their range" if several else "",
        at_the_foot([*(curve.low for curve in curves), *apart], floor),
    ]
    legend(figure, handles, "\n".join(filter(None, said)))


def _thin(curve: Curve, floor: float) -> np.ndarray:
    step = -(-len(curve.x) // _DRAWN_RECORDS)
    return np.column_stack([curve.x[::step], np.maximum(curve.middle[::step], floor)])
