"""The loss's curvature along runs, and what each run's rate bears."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from downslope.views.data.sharpness import Sharpness, SharpRun
from downslope.views.drawing.marks import cross, mark_ends
from downslope.views.drawing.style import (
    BLACK,
    PALETTE,
    WIDTH,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    text,
)

_DRAWN = 2_000


def draw_sharpness(data: Sharpness) -> Figure:
    """Largest curvature as a line a run, the least dotted where it is negative, and dashed the
    curvature that the run's rate bears."""
    shades = PALETTE[: len(data.lines)]
    some = f"{len(data.lines)} of {data.runs:,} runs." if data.runs > len(data.lines) else ""
    heading = [text(line, 100) for note in (some, *data.notes) for line in wrap(note, 70) if note]
    names = [_name(line, data) for line in data.lines]
    with own_style():
        height = 3.7 + legend_height([*names, "", "", "", ""]) + 0.17 * len(heading)
        figure = picture(WIDTH, height)
        axes = figure.subplots()
        prepare(axes, data.x_label, data.y_label)
        if data.log:
            axes.set_yscale("log")
        axes.set_ylim(data.limits)
        last = max((float(line.x[-1]) for line in data.lines), default=1.0) or 1.0
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        handles: list[Artist] = []
        negative = False
        for line, colour, name in zip(data.lines, shades, names, strict=True):
            _draw(axes, data, line, colour)
            negative |= _bends_down(line, data)
            handles.append(Line2D([], [], color=colour, linewidth=1.6, marker=".", label=name))
        handles += _key(data, negative)
        legend(figure, handles, "\n".join(heading))
        return figure


def _name(line: SharpRun, data: Sharpness) -> str:
    """A run's name; with its threshold where that is a number too far up to be seen."""
    if line.bearable is None or np.ptp(line.bearable) > 0 or line.bearable[0] <= data.limits[1]:
        return line.label
    return f"{line.label} (bears {line.bearable[0]:.4g})"


def _draw(axes: Axes, data: Sharpness, line: SharpRun, colour: Any) -> None:
    axes.plot(line.x, line.largest, color=colour, linewidth=1.6, marker=".", markersize=5)
    if _bends_down(line, data):
        least = np.where(line.least < 0, line.least, np.nan)
        axes.plot(line.x, least, color=colour, linewidth=1.2, linestyle=":", marker=".",
                  markersize=3)  # fmt: skip
    if line.bearable is not None and line.bearable_x is not None:
        step = -(-len(line.bearable) // _DRAWN)
        x, y = line.bearable_x[::step], line.bearable[::step]
        x, y = np.append(x, line.x[-1:]), np.append(y, y[-1:])
        axes.plot(x, y, color=colour, linewidth=1.1, linestyle="--", zorder=1.9)
    if line.diverged:
        known = np.flatnonzero(np.isfinite(line.largest))[-1:]
        ends = np.column_stack([line.x[known], line.largest[known]])
        mark_ends(axes, ends, colour, data.limits, 7.0)


def _bends_down(line: SharpRun, data: Sharpness) -> bool:
    """Whether the least curvature is negative enough to be seen."""
    least = line.least[np.isfinite(line.least)]
    return not (data.log or line.diverged) and bool((least < -1e-3 * abs(data.limits[1])).any())


def _key(data: Sharpness, negative: bool) -> list[Artist]:
    """What lines of each kind are."""
    handles: list[Artist] = []
    if data.bearable_label:
        label = data.bearable_label
        handles.append(Line2D([], [], color=BLACK, linewidth=1.1, linestyle="--", label=label))
    if negative:
        label = "least curvature (negative)"
        handles.append(Line2D([], [], color=BLACK, linewidth=1.2, linestyle=":", label=label))
    if any(line.diverged for line in data.lines):
        handles.append(cross("diverged"))
    return handles
