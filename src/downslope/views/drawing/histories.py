"""Lines over time: parameters, and the norms of gradients."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from downslope.views.data.gradients import NormCurve, NormCurves
from downslope.views.data.histories import Histories, History, Trace
from downslope.views.drawing.marks import (
    at_the_foot,
    cross,
    draw_others,
    mark_ends,
    plain_ticks,
    rest,
    widened,
)
from downslope.views.drawing.style import (
    GREY,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    strokes,
    text,
)

_LETTERS = 13.5
"""Small letters to an inch, about."""
_DRAWN = 2_000
"""Points of a line: more could not be seen."""


def draw_histories(data: Histories) -> Figure:
    """A panel for each run, all with the same axes."""
    count = len(data.histories)
    columns = min(count, 2)
    rows = -(-count // columns)
    names = list(dict.fromkeys(t.name for h in data.histories for t in h.traces))
    others = max(len(history.others) for history in data.histories)
    beside = f"{others:,} other tensors, which changed less" if others else ""
    height = 0.6 + (3.2 if rows == 1 else 2.4) * rows + legend_height([*names, beside, ""])
    with own_style():
        figure = picture(WIDTH, height)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for panel in panels.ravel()[count:]:
            panel.set_visible(False)
        # Side by side, the whole labels would touch.
        across = data.x_label.split(" (")[0] if columns > 1 else data.x_label
        shades = dict(zip(names, strokes(len(names)), strict=True))
        for place, (panel, history) in enumerate(zip(panels.ravel(), data.histories, strict=False)):
            low, first = place + columns >= count, place % columns == 0
            prepare(panel, across if low else "", data.y_label if first else "")
            panel.tick_params(labelbottom=low, labelleft=first)
            name = history.label + (" (diverged)" if history.diverged else "")
            letters = int(_LETTERS * (WIDTH - 0.6) / columns)
            lines = [text(line, letters) for line in wrap(name, letters)]
            panel.set_title("\n".join(lines), fontsize=SMALL, fontfamily=families())
            _draw_history(panel, data, history, shades)
        handles: list[Artist] = [
            Line2D([], [], color=shade, linestyle=dashes, linewidth=1.6, label=name)
            for name, (shade, dashes) in shades.items()
        ]
        others = max(len(history.others) for history in data.histories)
        if others:
            label = f"{others:,} other tensors, which changed less"
            handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=label))
        if any(history.diverged for history in data.histories):
            handles.append(cross("diverged"))
        legend(figure, handles)
        return figure


def _draw_history(
    axes: Axes, data: Histories, history: History, shades: dict[str, tuple[Any, Any]]
) -> None:
    if data.log:
        axes.set_yscale("log")
    axes.set_ylim(data.limits)
    _whole_numbers(axes, [h.x for h in data.histories])
    draw_others(axes, [np.column_stack(_points(history, trace)) for trace in history.others])
    for trace in history.traces:
        x, y = _points(history, trace)
        shade, dashes = shades[trace.name]
        axes.plot(x, y, color=shade, linestyle=dashes, linewidth=1.4)
        known = np.flatnonzero(np.isfinite(trace.values))[-1:]
        if history.diverged:
            ends = np.column_stack([history.x[known], trace.values[known]])
            mark_ends(axes, ends, shade, data.limits, 6.0)


def _points(history: History, trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    step = -(-len(history.x) // _DRAWN) or 1
    return history.x[::step], trace.values[::step]


def draw_norms(data: NormCurves) -> Figure:
    """A line a setting, the range over its seeds as a band; a thick smooth line where the thin one
    is noisy, and a cross where a run diverged."""
    names = [curve.setting.counted_label for curve in data.curves]
    with own_style():
        figure = picture(WIDTH, 3.6 + legend_height([*names, "", "", ""]))
        axes = figure.subplots()
        prepare(axes, data.x_label, data.y_label)
        if data.log:
            axes.set_yscale("log")
        axes.set_ylim(data.limits)
        if data.log:
            plain_ticks(axes.yaxis, data.limits)
        _whole_numbers(axes, [curve.x for curve in (*data.curves, *data.others)])
        floor = data.limits[0] if data.log else -np.inf  # 0 has no place on a logarithmic axis
        draw_others(axes, [_thin(curve, floor) for curve in data.others])
        handles: list[Artist] = []
        drawn = [np.column_stack([c.x, np.maximum(c.middle, floor)]) for c in data.curves]
        more = widened(drawn, data.limits, data.log)
        for curve, stroke, wider in zip(data.curves, strokes(len(drawn)), more, strict=True):
            handles.append(_draw_norms(axes, curve, (*stroke, wider), floor, data.limits))
        handles += rest(axes, data.curves, data.others, data.limits)
        legend(figure, handles, _heading(data, floor))
        return figure


def _draw_norms(
    axes: Axes,
    curve: NormCurve,
    look: tuple[Any, Any, float],
    floor: float,
    limits: tuple[float, float],
) -> Artist:
    colour, dashes, wider = look
    step = -(-len(curve.x) // _DRAWN) or 1
    x = curve.x[::step]
    middle, low, high = np.maximum([curve.middle, curve.low, curve.high], floor)[:, ::step]
    noisy = curve.smooth is not None
    width, alpha = (0.6, 0.4) if noisy else (1.6 if len(x) <= 500 else 1.0, 1.0)
    axes.plot(
        x, middle, color=colour, linestyle="-" if noisy else dashes, alpha=alpha,
        linewidth=width + (0 if noisy else wider), marker="o" if len(x) == 1 else "none",
        markersize=5 + 2 * wider,
    )  # fmt: skip
    if curve.smooth is not None:
        smooth = np.maximum(curve.smooth, floor)[::step]
        axes.plot(x, smooth, color=colour, linestyle=dashes, linewidth=1.8, zorder=3)
    if len(curve.setting.rows) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.12 if noisy else 0.18, linewidth=0)
    mark_ends(axes, curve.ends, colour, limits, 7.0)
    return Line2D(
        [], [], color=colour, linestyle=dashes, linewidth=1.8, label=curve.setting.counted_label
    )


def _heading(data: NormCurves, floor: float) -> str:
    several = any(len(curve.setting.rows) > 1 for curve in data.curves)
    said = ["Line: median of the seeds; band: their range"] if several else []
    if data.window:
        said.append(f"Thick: mean of the logarithm over {data.window:,} updates")
    said.append(at_the_foot([curve.low for curve in (*data.curves, *data.others)], floor))
    return "\n".join(filter(None, said))


def _thin(curve: NormCurve, floor: float) -> np.ndarray:
    step = -(-len(curve.x) // 500) or 1
    return np.column_stack([curve.x[::step], np.maximum(curve.middle[::step], floor)])


def _whole_numbers(axes: Axes, lines: list[np.ndarray]) -> None:
    """A horizontal axis of steps or epochs that holds all lines."""
    last = max((float(x[-1]) for x in lines if len(x)), default=1.0) or 1.0
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
