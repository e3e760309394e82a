"""Marks that several pictures share: crosses where runs ended, thin grey lines of many others."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from downslope.views.drawing.style import (
    BLACK,
    GREY,
    SMALL,
)


def mark_ends(
    axes: Axes, ends: np.ndarray, colour: object, limits: tuple[float, float], size: float
) -> None:
    """A cross where each diverged run ended, at the edge if that lies outside."""
    if len(ends):
        axes.plot(
            ends[:, 0], np.clip(ends[:, 1], *limits), linestyle="none", marker="x", color=colour,
            markersize=size, markeredgewidth=size / 4, clip_on=False, zorder=5,
        )  # fmt: skip


def draw_others(axes: Axes, lines: list[np.ndarray]) -> None:
    """Thin grey lines, each (points, 2), that do not move the limits."""
    if lines:
        axes.add_collection(
            LineCollection(lines, colors=GREY, linewidths=0.6, alpha=0.6), autolim=False
        )


def cross(label: str) -> Line2D:
    """A cross for the legend."""
    return Line2D(
        [], [], linestyle="none", marker="x", color=BLACK, markersize=SMALL - 3, label=label
    )


def with_room(
    limits: tuple[float, float], log: bool, above: float, below: float = 0.0
) -> tuple[float, float]:
    """Limits with shares more room at the top and at the foot."""
    low, high = limits
    if log:
        ratio = high / low
        return float(max(low / ratio**below, 1e-307)), float(min(high * ratio**above, 1e307))
    return low - below * (high - low), high + above * (high - low)


def plain_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Numbers as people write them on a logarithmic axis of less than three decades.

    Matplotlib writes powers of ten, which within a decade take room and are hard to read.
    """
    low, high = limits
    decades = np.log10(high / low)
    if decades > 3 or (decades > 1 and not (low > 1e-5 and high < 1e6)):
        return
    if decades < 0.5:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.6g}"))
    axis.set_minor_formatter(NullFormatter())
