"""Marks that several pictures share: crosses where runs ended, thin grey lines of many others."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

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


def with_room(limits: tuple[float, float], log: bool, share: float) -> tuple[float, float]:
    """Limits with a share more room at the top."""
    low, high = limits
    if log:
        return low, float(min(high * (high / low) ** share, 1e307))
    return low, high + share * (high - low)
