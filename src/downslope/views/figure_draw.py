"""Drawing paths over a loss, and fits to data."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from downslope.views.figure_fits import Fit
from downslope.views.figure_paths import Path, Paths
from downslope.views.figure_style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    RED,
    SMALL,
    families,
    legend,
    picture,
    prepare,
    text,
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


def draw_fit(data: Fit) -> Figure:
    """Points and prediction, predicted against true values, or counts of classes."""
    if data.kind == "classes":
        return _classes(data)
    figure = picture(5.6, 4.0)
    axes = figure.subplots()
    prepare(axes, *data.names)
    size = 16 if len(data.x) <= 500 else 4
    points = axes.scatter(data.x, data.y, s=size, color=BLUE, alpha=0.7, linewidths=0)
    points.set_label(data.label)
    handles: list[Artist] = [points]
    if data.kind == "curve":
        handles += axes.plot(
            data.made_x, data.made_y, color="#E00000", linewidth=2, label="prediction"
        )
    elif data.kind == "feature":
        made = axes.scatter(data.made_x, data.made_y, s=size, color=ORANGE, linewidths=0)
        made.set_label("prediction")
        handles.append(made)
    else:
        both = np.concatenate([data.x, data.y])
        ends = np.array([both.min(), both.max()])
        handles += axes.plot(ends, ends, color="#E00000", linewidth=1.2, label="predicted = true")
    legend(figure, handles)
    return figure


def _classes(data: Fit) -> Figure:
    """How many rows of each class were predicted to be of each."""
    count = len(data.classes)
    side = float(np.clip(2.2 + 0.45 * count, 4.0, 8.0))
    figure = picture(side + 0.6, side)
    axes = figure.subplots()
    prepare(axes, *data.names)
    axes.grid(False)
    axes.imshow(data.counts, cmap="Blues", vmin=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if count <= 20:
        names = [text(name, 16) for name in data.classes]
        turn = 45 if max(map(len, names)) > 6 else 0
        axes.set_xticks(
            range(count), names, fontsize=SMALL, fontfamily=families(), rotation=turn,
            ha="right" if turn else "center", rotation_mode="anchor",
        )  # fmt: skip
        axes.set_yticks(range(count), names, fontsize=SMALL, fontfamily=families())
        dark = data.counts.max() / 2
        for (row, column), number in np.ndenumerate(data.counts):
            colour = "white" if number > dark else BLACK
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour,
                      fontsize=SMALL)  # fmt: skip
    return figure
