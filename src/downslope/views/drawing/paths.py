"""Paths over a loss: on its curve, or on its contours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from downslope.views.data.paths import Path, Paths
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    RED,
    SMALL,
    legend,
    picture,
    prepare,
    title,
)

_MOST_DOTS = 200


def draw_paths(data: Paths) -> Figure:
    """A panel for each run, all with the same axes."""
    count = len(data.paths)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = picture(max(5.6, 2.9 * columns), 0.7 + (3.2 if columns < 3 else 2.5) * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel in panels.ravel()[count:]:
        panel.set_visible(False)
    bottom = {id(panels[(count - 1 - c) // columns, c]) for c in range(columns) if c < count}
    vertical = data.names[1] if len(data.names) == 2 else data.y_label
    handles: dict[str, Artist] = {}
    for place, (panel, way) in enumerate(zip(panels.ravel(), data.paths, strict=False)):
        first, low = place % columns == 0, id(panel) in bottom
        prepare(panel, data.names[0] if low else "", vertical if first else "")
        panel.tick_params(labelbottom=low, labelleft=first)
        title(panel, way.label + (" (diverged)" if way.diverged else ""))
        draw = _path_on_curve if len(data.names) == 1 else _path_on_contours
        handles |= {str(drawn.get_label()): drawn for drawn in draw(panel, data, way)}
    if data.runs > count:
        figure.suptitle(f"{count} of {data.runs:,} runs", fontsize=SMALL)
    legend(figure, list(handles.values()))
    return figure


def _path_on_curve(axes: Axes, data: Paths, way: Path) -> list[Artist]:
    (x,) = data.axes
    shown = data.surface[np.isfinite(data.surface)]
    handles: list[Artist] = []
    handles += axes.plot(x, data.surface, color=GREY, linewidth=1.6, label=data.y_label)
    axes.set_xlim(x[0], x[-1])
    low, high = shown.min(), shown.max()
    axes.set_ylim(low - 0.08 * (high - low), high + 0.04 * (high - low))
    return handles + _path(axes, way, way.losses)


def _path_on_contours(axes: Axes, data: Paths, way: Path) -> list[Artist]:
    x, y = data.axes
    low, high = np.nanmin(data.surface), np.nanmax(data.surface)
    if high > low:
        # Close together near the least loss, where the ways end.
        levels = low + (high - low) * np.linspace(0.02, 1, 14) ** 2
        axes.contour(x, y, data.surface, levels=levels, colors=GREY, linewidths=0.7)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    contours = Line2D([], [], color=GREY, linewidth=1.2, label="equal loss")
    return [contours, *_path(axes, way, way.points[:, 1])]


def _path(axes: Axes, way: Path, y: np.ndarray) -> list[Artist]:
    x = way.points[:, 0]
    dots: dict[str, Any] = {"marker": "o", "markersize": 3} if len(x) <= _MOST_DOTS else {}
    drawn = axes.plot(x, y, color=RED, linewidth=0.9, label="steps", **dots)
    drawn += axes.plot(
        x[:1], y[:1], linestyle="none", marker="s", markersize=6, color=BLUE, label="start"
    )
    end = axes.plot(
        x[-1:], y[-1:], linestyle="none", marker="x" if way.diverged else "*", zorder=4,
        markersize=8 if way.diverged else 11, color=BLACK,
        label="diverged" if way.diverged else "end",
    )  # fmt: skip
    return [*drawn, *end]
