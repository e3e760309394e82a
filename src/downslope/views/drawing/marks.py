"""Marks that several pictures share: crosses where runs ended, thin grey lines of many others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from downslope.views.data.settings import Setting
from downslope.views.drawing.style import (
    BLACK,
    GREY,
    SMALL,
)

_ALIKE = 0.01
"""Share of the axis within which lines are in the same place."""

_WIDER, _MOST_WIDER = 1.4, 3
"""Points by which a line is thicker for each that lies over it, and how many count."""


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


class _Curve(Protocol):
    @property
    def setting(self) -> Setting: ...

    @property
    def ends(self) -> np.ndarray: ...


def rest(
    axes: Axes, curves: Sequence[_Curve], others: Sequence[_Curve], limits: tuple[float, float]
) -> list[Line2D]:
    """Crosses where the thin lines of the `others` ended, and what the legend says of them and of
    all runs that diverged."""
    handles = []
    if others:
        mark_ends(axes, np.concatenate([curve.ends for curve in others]), GREY, limits, 4.0)
        lost = all(c.setting.diverged == len(c.setting.rows) for c in others)
        words = "settings that diverged" if lost else "other settings"
        label = f"{len(others):,} {words}"
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=label))
    diverged = sum(curve.setting.diverged for curve in (*curves, *others))
    if diverged:
        handles.append(cross(f"diverged ({diverged:,} {'run' if diverged == 1 else 'runs'})"))
    return handles


def widened(lines: Sequence[np.ndarray], limits: tuple[float, float], log: bool) -> list[float]:
    """How much thicker each line is to be drawn, in points, so that those that are drawn later in
    the same place leave it to be seen.

    Args:
        lines: (points, 2) each, in the order of drawing.
    """
    ends = np.log10(limits) if log else np.asarray(limits)
    places = []
    for line in lines:
        with np.errstate(divide="ignore", invalid="ignore"):
            up = np.log10(line[:, 1]) if log else line[:, 1]
        places.append(np.clip((up - ends[0]) / (ends[1] - ends[0]), -1.0, 2.0))
    more = []
    for first, (line, place) in enumerate(zip(lines, places, strict=True)):
        over = 0
        for later, other in zip(lines[first + 1 :], places[first + 1 :], strict=True):
            alike = len(line) == len(other) and np.array_equal(line[:, 0], later[:, 0])
            over += alike and bool((np.nan_to_num(abs(place - other)) < _ALIKE).all())
        more.append(_WIDER * min(over, _MOST_WIDER))
    return more


def at_the_foot(lines: Sequence[np.ndarray], floor: float) -> str:
    """A sentence where any of these values lies below the `floor`, at which it is drawn."""
    below = any(bool((line < floor).any()) for line in lines)
    return "At the foot: 0, or less than the axis holds" if below else ""


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
    axis.set_major_formatter(StrMethodFormatter("{x:.6g}"))
    axis.set_minor_formatter(NullFormatter())
