"""Ways over the loss: on the curve of one number, or on contours over two or over a plane."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from downslope.views.data.paths import MISS, Paths
from downslope.views.data.ways import Path
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    RED,
    SMALL,
    WIDTH,
    families,
    legend,
    own_style,
    picture,
    prepare,
    text,
)

_MOST_DOTS = 200
_LEVELS = 14
_MIND = "#A33B00"
"""The palette's red, dark enough to be read as letters."""
_LETTERS = 13.5
"""Small letters to an inch, about."""


def draw_paths(data: Paths) -> Figure:
    """A panel for each run, all with the same axes."""
    count = len(data.paths)
    columns = min(count, 2)
    rows = -(-count // columns)
    letters = int(_LETTERS * WIDTH)
    warning, notes = _lines(data.warning, letters), _lines(_notes(data), letters)
    heads = [_head(data, way, int(_LETTERS * (WIDTH - 0.6) / columns)) for way in data.paths]
    lines = sum(max(map(len, heads[row * columns : (row + 1) * columns])) for row in range(rows))
    height = 0.7 + (3.2 if rows == 1 else 2.3) * rows + 0.17 * (len(warning) + len(notes))
    with own_style():
        figure = picture(WIDTH, height + 0.15 * (lines - rows))
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for panel in panels.ravel()[count:]:
            panel.set_visible(False)
        bottom = {id(panels[(count - 1 - c) // columns, c]) for c in range(columns) if c < count}
        vertical = data.names[1] if len(data.names) == 2 else data.y_label
        levels = _levels(data)
        handles: dict[str, Artist] = {}
        for place, (panel, way) in enumerate(zip(panels.ravel(), data.paths, strict=False)):
            first, low = place % columns == 0, id(panel) in bottom
            prepare(panel, data.names[0] if low else "", vertical if first else "")
            panel.tick_params(labelbottom=low, labelleft=first)
            panel.set_title(
                "\n".join(heads[place]), fontsize=SMALL, fontfamily=families(), linespacing=1.1
            )
            if len(data.names) == 1:
                drawn = _path_on_curve(panel, data, way)
            else:
                drawn = _path_on_contours(panel, data, way, levels)
            handles |= {str(artist.get_label()): artist for artist in drawn}
        if warning:
            figure.suptitle("\n".join(warning), fontsize=SMALL, fontfamily=families(), color=_MIND)
        legend(figure, list(handles.values()), "\n".join(notes))
    return figure


def _notes(data: Paths) -> str:
    count = len(data.paths)
    said = [f"{count} of {data.runs:,} runs."] if data.runs > count else []
    return " ".join([*said, *data.notes])


def _lines(words: str, letters: int) -> list[str]:
    return [text(line, letters) for line in wrap(words, letters)]


def _head(data: Paths, way: Path, letters: int) -> list[str]:
    """A run's name, and how far it is off the plane, in lines."""
    lines = _lines(way.label + (" (diverged)" if way.diverged else ""), letters)
    if data.plane is not None:
        known = way.off[np.isfinite(way.off)]
        lines.append(f"{way.share:.1%} on the plane")
        end = "" if way.diverged else f", at the end {known[-1]:.2g}"
        lines.append(f"off it: at most {known.max():.2g}{end}")
    if way.miss > MISS:
        lines.append(f"surface misses by {way.miss:.0%}")
    return lines


def _path_on_curve(axes: Axes, data: Paths, way: Path) -> list[Artist]:
    (x,) = data.axes
    shown = data.surface[np.isfinite(data.surface)]
    handles: list[Artist] = []
    handles += axes.plot(x, data.surface, color=GREY, linewidth=1.6, label=data.y_label)
    axes.set_xlim(x[0], x[-1])
    if len(shown):
        low, high = shown.min(), shown.max()
        axes.set_ylim(low - 0.08 * (high - low or 1.0), high + 0.04 * (high - low or 1.0))
    return handles + _path(axes, way, way.losses)


def _levels(data: Paths) -> np.ndarray:
    """Losses at which contours are drawn: close together near the best loss, where ways end."""
    known = data.surface[np.isfinite(data.surface)]
    if not len(known) or known.max() <= known.min():
        return np.empty(0)
    low, high = known.min(), known.max()
    share = np.linspace(0.02, 1, _LEVELS) ** 2
    made: np.ndarray = np.sort(
        high - (high - low) * share if data.upward else low + (high - low) * share
    )
    return made


def _path_on_contours(axes: Axes, data: Paths, way: Path, levels: np.ndarray) -> list[Artist]:
    x, y = data.axes
    if len(levels):
        surface = np.ma.masked_invalid(data.surface)
        axes.contour(x, y, surface, levels=levels, colors=GREY, linewidths=0.7, linestyles="solid")
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
