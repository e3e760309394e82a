"""Fits to data: points and prediction, residuals, regions of classes, or counts of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from downslope.views.data.fits import Fit
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PALETTE,
    RED,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    text,
    title,
)

_SHAPES = "os^DvPX"
"""A shape a class, for those who cannot tell the colours apart."""
_APART = (("s", GREEN), ("^", RED))
"""Shape and colour of validation rows, and of test rows."""


def draw_fit(data: Fit) -> Figure:
    """Points and prediction, predicted against true values, regions, or counts of classes."""
    with own_style():
        if data.kind == "classes":
            return _classes(data)
        if data.kind == "regions":
            return _regions(data)
        if data.kind == "numbers":
            return _numbers(data)
        figure = picture(WIDTH, 4.0)
        axes = figure.subplots()
        prepare(axes, *data.names)
        handles = _points(axes, data, [(data.x, data.y), *((p.x, p.y) for p in data.apart)])
        if data.kind == "curve":
            handles += axes.plot(
                data.made_x, data.made_y, color=BLACK, linewidth=2, label="prediction"
            )
        else:
            made = axes.scatter(
                data.made_x, data.made_y, s=_size(data.x), color=ORANGE, linewidths=0
            )
            made.set_label("prediction of training rows")
            handles.append(made)
        legend(figure, handles)
        return figure


def _size(points: np.ndarray) -> float:
    return 16 if len(points) <= 500 else 4


def _points(axes: Axes, data: Fit, places: list[tuple[np.ndarray, np.ndarray]]) -> list[Artist]:
    """Training rows as dots; validation and test rows hollow, each in a shape of their own."""
    (x, y), *apart = places
    points = axes.scatter(x, y, s=_size(x), color=BLUE, alpha=0.7, linewidths=0)
    points.set_label(data.label)
    handles: list[Artist] = [points]
    for (x, y), part, (shape, colour) in zip(apart, data.apart, _styles(data), strict=True):
        points = axes.scatter(
            x, y, s=1.5 * _size(x), marker=shape, facecolors="none", edgecolors=colour,
            linewidths=1.0 if len(x) <= 500 else 0.6, label=part.label,
        )  # fmt: skip
        handles.append(points)
    return handles


def _styles(data: Fit) -> list[tuple[str, str]]:
    return [_APART[1 if part.label.endswith("test rows") else 0] for part in data.apart]


def _numbers(data: Fit) -> Figure:
    """Predicted against true values, and below them residuals against predicted ones."""
    figure = picture(WIDTH, 7.6)
    upper, lower = figure.subplots(2, 1)
    prepare(upper, *data.names)
    prepare(lower, data.names[1], f"Residual: true − predicted {data.target}")
    rows = [(data.x, data.y), *((part.x, part.y) for part in data.apart)]
    handles = _points(upper, data, rows)
    _points(lower, data, [(predicted, true - predicted) for true, predicted in rows])
    both = np.concatenate([values for row in rows for values in row])
    both = both[np.isfinite(both)]
    ends = np.array([both.min(), both.max()]) if len(both) else np.array([0.0, 1.0])
    handles += upper.plot(ends, ends, color=BLACK, linewidth=1.2, label="predicted = true")
    lower.axhline(0.0, color=BLACK, linewidth=1.2)
    legend(figure, handles)
    return figure


def _regions(data: Fit) -> Figure:
    """The plane of two features: regions shaded by predicted class, rows by their own."""
    assert data.regions is not None
    shades = PALETTE[: len(data.classes)]
    named = [f"{data.target}: {name}" for name in data.classes]
    figure = picture(WIDTH, 4.0 + legend_height([*named, data.label, "", "", ""]))
    axes = figure.subplots()
    prepare(axes, *data.names)
    axes.grid(False)
    x, y = data.regions.axes
    axes.pcolormesh(
        x, y, data.regions.predicted, cmap=ListedColormap(shades), vmin=-0.5,
        vmax=len(shades) - 0.5, alpha=0.22, shading="nearest", linewidth=0, rasterized=True,
    )  # fmt: skip
    for number in np.unique(data.regions.predicted)[1:]:
        inside = (data.regions.predicted >= number).astype(float)
        axes.contour(x, y, inside, levels=[0.5], colors=BLACK, linewidths=0.8)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    parts = [(data.label, data.x, data.y, data.of_class),
             *((p.label, p.x, p.y, p.of_class) for p in data.apart)]  # fmt: skip
    size = 22 if sum(len(part[1]) for part in parts) <= 500 else 7
    handles: list[Artist] = []
    for number, (shade, name) in enumerate(zip(shades, named, strict=True)):
        shape = _SHAPES[number % len(_SHAPES)]
        for label, across, up, of_class in parts:
            mine = of_class == number
            axes.scatter(
                across[mine], up[mine], s=size, marker=shape, **_look(label, shade), zorder=3
            )
        handles.append(
            Line2D([], [], linestyle="none", marker=shape, color=shade, markersize=6, label=name)
        )
    handles.append(Patch(facecolor="#808080", alpha=0.22, label="shaded: predicted"))
    if len(parts) > 1:
        handles += [_sample(label) for label, *_ in parts]
    legend(figure, handles, "" if len(parts) > 1 else f"Points: {data.label}")
    return figure


def _look(label: str, shade: Any) -> dict[str, Any]:
    """Training rows are filled, validation rows hollow, test rows filled with a dark edge."""
    if label.endswith("validation rows"):
        return {"facecolors": "white", "edgecolors": [shade], "linewidths": 1.3}
    if label.endswith("test rows"):
        return {"facecolors": [shade], "edgecolors": BLACK, "linewidths": 0.9}
    return {"facecolors": [shade], "linewidths": 0}


def _sample(label: str) -> Line2D:
    """A mark for the legend, of no class."""
    fill = "white" if label.endswith("validation rows") else "#808080"
    edge = BLACK if label.endswith("test rows") else "#808080"
    return Line2D(
        [], [], linestyle="none", marker="o", markersize=6, markerfacecolor=fill,
        markeredgecolor=edge, label=label,
    )  # fmt: skip


def _classes(data: Fit) -> Figure:
    """How many rows of each class were predicted to be of each: a square for the training rows,
    and one below for those that were kept apart."""
    parts = [(data.label, data.counts)]
    parts += [(part.label, part.counts) for part in data.apart if part.counts is not None]
    side = float(np.clip(2.2 + 0.45 * len(data.classes), 3.4, 8.0))
    figure = picture(max(side + 0.6, WIDTH if len(parts) > 1 else 0), (side + 0.2) * len(parts))
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for panel, (label, counts) in zip(panels, parts, strict=True):
        low = panel is panels[-1]
        prepare(panel, data.names[0] if low else "", data.names[1])
        title(panel, f"{label}: {np.trace(counts):,} of {counts.sum():,} right")
        _square(panel, data, counts)
        panel.tick_params(labelbottom=low)
    return figure


def _square(axes: Axes, data: Fit, counts: np.ndarray) -> None:
    """The counts as colour, and as numbers where they are few."""
    count = len(data.classes)
    axes.grid(False)
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(float(counts.max()), 1.0))
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
        dark = counts.max() / 2
        for (row, column), number in np.ndenumerate(counts):
            colour = "white" if number > dark else BLACK
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour,
                      fontsize=SMALL)  # fmt: skip
