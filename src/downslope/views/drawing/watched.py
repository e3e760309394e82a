"""A watched loop as a picture: panels below each other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from downslope.views.data.watched import Line, WatchData
from downslope.views.drawing.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SMALL,
    WIDTH,
    families,
    own_style,
    picture,
    prepare,
)

_CLIMB = 1e4
"""Times the first value up to which a loop that diverges is followed."""


def watch_figure(data: WatchData) -> Figure:
    """Loss, norms and rates below each other; where measured, curvature with the 2 / rate of plain
    descent, and the share of what the optimizer bears, with the limit at 1."""
    panels = [
        ("Loss", data.loss, (GREY, BLUE)),
        ("Norm", data.norms, (BLUE, ORANGE)),
        ("Rate", data.rates, (BLUE, ORANGE, GREEN, RED)),
    ]
    if data.sharpness:
        panels.append(("Curvature", data.sharpness, (BLUE, RED)))
    if data.limit:
        panels.append(("Rate / its limit", data.limit, (BLUE,)))
    with own_style():
        figure = picture(WIDTH, 1.7 * len(panels) + 0.5)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (label, lines, shades) in zip(grid[:, 0], panels, strict=True):
            _draw(axes, lines, shades, data.bad_step)
            if lines is data.limit and lines:
                axes.axhline(1.0, color=RED, linewidth=1.0, linestyle="--")
            prepare(axes, "Step (updates of the parameters)" if axes is grid[-1, 0] else "", label)
    return figure


def _draw(axes: Axes, lines: tuple[Line, ...], shades: tuple[str, ...], bad: int | None) -> None:
    for place, line in enumerate(lines):
        marker = "." if len(line.steps) < 40 else ""
        axes.plot(
            line.steps,
            line.values,
            color=shades[place % len(shades)],
            label=line.name,
            linewidth=1.0,
            linestyle="--" if line.name == "2 / rate" else "-",
            marker=marker,
        )
    values = np.concatenate([line.values for line in lines]) if lines else np.array([])
    if len(values) and (values > 0).all() and values.max() > 20 * values.min():
        axes.set_yscale("log")
    if bad is not None:
        label = f"first bad step: {bad:,}"
        axes.axvline(bad, color=RED, linewidth=1.0, linestyle=":", label=label)
        if len(values) and values.max() > (roof := _CLIMB * max(abs(values[0]), 1e-12)):
            axes.set_ylim(top=roof)  # a climb to 1e38 would leave nothing else to be seen
    if len(lines) > 1 or (lines and bad is not None):
        axes.legend(prop={"size": SMALL, "family": families()}, frameon=False, loc="best")
