"""Panels beside and below each other, one a problem, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
    StrMethodFormatter,
)

from downslope.views.data.comparisons import Panel, Panels
from downslope.views.drawing.style import (
    SMALL,
    WIDTH,
    Picture,
    families,
    legend,
    legend_height,
    picture,
    prepare,
    strokes,
    text,
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Optimizers differ in these too, for those who see no colours."""

_HEADING = 34


def marker(place: int) -> str:
    """The mark of the optimizer at this place: another one where colours come again."""
    return MARKERS[(place + place // len(MARKERS)) % len(MARKERS)]


def style_of(data: Panels[Any]) -> dict[str, tuple[Any, str]]:
    """Each optimizer's colour and mark."""
    shades = [colour for colour, _ in strokes(len(data.optimizers))]
    return {n: (shades[k], marker(k)) for k, n in enumerate(data.optimizers)}


def handles_of(data: Panels[Any]) -> list[Artist]:
    """Every optimizer's line for the legend."""
    return [
        Line2D([], [], color=colour, marker=mark, markersize=4.5, linewidth=1.4, label=name)
        for name, (colour, mark) in style_of(data).items()
    ]


def panels_for(
    data: Panels[Any], height: float, names: Sequence[str], share_x: bool = False
) -> tuple[Picture, list[Axes]]:
    """An empty picture with a panel a problem: one column for up to two, else two.

    Args:
        height: inches of a panel.
        names: what its legend will say.
    """
    count = len(data.panels)
    columns = 1 if count < 3 else 2
    rows = -(-count // columns)
    more = 0.25 if data.problems > count else 0.0
    figure = picture(WIDTH, 0.55 + height * rows + more + legend_height([*names, ""]))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x)
    for panel in grid.ravel()[count:]:
        panel.set_visible(False)
    say_how_many(figure, count, data.problems, "problems")
    return figure, list(grid.ravel()[:count])


def say_how_many(figure: Picture, drawn: int, there: int, what: str) -> None:
    """A line above the picture where not all are in it."""
    if there > drawn:
        figure.suptitle(f"The first {drawn} of {there:,} {what}", fontsize=SMALL)


def labelled(
    panels: Sequence[Axes], data: Panels[Any], x_label: str, y_label: str
) -> Iterator[tuple[Axes, Panel[Any]]]:
    """Each panel with its problem's name above; labels at the left and at the bottom alone."""
    columns = 1 if len(panels) < 3 else 2
    for place, (axes, panel) in enumerate(zip(panels, data.panels, strict=True)):
        low = place + columns >= len(panels)
        prepare(axes, x_label if low else "", y_label if place % columns == 0 else "")
        heading(axes, panel.problem)
        yield axes, panel


def heading(axes: Axes, words: str, more: str = "") -> None:
    """A small heading above one panel, that leaves room for its neighbour's."""
    cut = text(words, _HEADING - len(more))
    axes.set_title(cut + more, fontsize=SMALL, fontfamily=families())


def loss_axis(axes: Axes, panel: Panel[Any], vertical: bool, room: float = 0.0) -> float:
    """Make one axis the panel's losses, with a share of `room` for failures at its far end.

    Returns:
        The least loss that has a place on it.
    """
    low, high = panel.limits
    if panel.log:
        roof = float(min(high * (high / low) ** room, 1e307))
    else:
        roof = high + room * (high - low)
    axis = axes.yaxis if vertical else axes.xaxis
    if panel.log:
        (axes.set_yscale if vertical else axes.set_xscale)("log")
    (axes.set_ylim if vertical else axes.set_xlim)(low, roof)
    ticks(axis, low, high, panel.log)
    inside = [at for at in axis.get_majorticklocs() if low <= at <= high]
    if room and len(inside) > 1:  # none beside the failures, which have no loss
        axis.set_major_locator(FixedLocator(inside))
    return low if panel.log else -np.inf


def ticks(axis: Any, low: float, high: float, log: bool) -> None:
    """Few ticks, for a small panel: powers of ten, or plain numbers."""
    if log and high / low > 60:
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_formatter(NullFormatter())
    elif log:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=4))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def finish(figure: Picture, handles: Sequence[Artist], explained: str) -> Picture:
    """The legend, with a line above that says what the marks are."""
    legend(figure, handles, explained)
    return figure
