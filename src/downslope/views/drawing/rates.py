"""The final loss against the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from downslope.views.data.rates import RateLine, Sensitivity, Tuned
from downslope.views.data.settings import said
from downslope.views.drawing.marks import cross, draw_others, plain_ticks, with_room
from downslope.views.drawing.style import (
    BLACK,
    GREY,
    ORANGE,
    RED,
    SKY,
    legend,
    prepare,
    strokes,
    text,
)

_NAMED_THRESHOLDS = 4
"""Thresholds up to which each has a line of its own in the legend."""


def draw_sensitivity(figure: Figure | SubFigure, data: Sensitivity) -> None:
    """A line an optimizer, crosses at the top where runs diverged, the best run ringed."""
    axes = figure.subplots()
    prepare(axes, data.x_label, data.y_label)
    if data.log_x:
        axes.set_xscale("log")
    if data.log_y:
        axes.set_yscale("log")
    axes.set_xlim(data.x_limits)
    wild = [line for line in data.lines if line.diverged.any()]
    row = min(0.05, 0.3 / max(len(wild), 1))  # of crosses, as a share of the height
    foot = 0.0 if data.tuned is None else 0.1  # for the bars
    axes.set_ylim(with_room(data.y_limits, data.log_y, 1.3 * row * len(wild), foot))
    if data.log_y:
        plain_ticks(axes.yaxis, axes.get_ylim())
    if data.log_x:
        plain_ticks(axes.xaxis, data.x_limits)
    handles: list[Line2D | Patch] = []
    floor = data.y_limits[0] if data.log_y else -np.inf
    others = [(line.rates, np.maximum(line.middle, floor)) for line in data.others]
    draw_others(axes, [np.column_stack(line) for line in others])
    points = [np.column_stack(line) for line in others if len(line[0]) == 1]
    alone = np.concatenate([np.empty((0, 2)), *points])
    axes.plot(
        alone[:, 0],
        alone[:, 1],
        linestyle="none",
        marker="o",
        markersize=2.5,
        color=GREY,
        zorder=1.5,
    )
    lost = np.unique([*np.empty(0), *(r for o in data.others for r in o.rates[o.diverged > 0])])
    axes.plot(
        lost,
        np.full(len(lost), 0.985),
        linestyle="none",
        marker="x",
        markersize=4,
        color=GREY,
        transform=axes.get_xaxis_transform(),
    )
    for low, high in data.hopeless:
        ends = np.clip([low, high], *data.x_limits)
        axes.axvspan(ends[0], ends[1], color=BLACK, alpha=0.07, linewidth=0, zorder=0)
    for line, (colour, dashes) in zip(data.lines, strokes(len(data.lines)), strict=True):
        label = line.counted_label
        middle, low, high = np.maximum([line.middle, line.low, line.high], floor)
        handles += axes.plot(
            line.rates, middle, color=colour, linestyle=dashes, linewidth=1.6, marker="o",
            markersize=4.0 if len(line.rates) <= 30 else 2.5, label=label,
        )  # fmt: skip
        if line.runs.max() > 1:
            axes.fill_between(line.rates, low, high, color=colour, alpha=0.18, linewidth=0)
        if line.diverged.any():
            _mark_diverged(axes, line, colour, 1 - row * (wild.index(line) + 0.5))
    handles += _theory(axes, data)
    if data.tuned is not None:
        handles += _tuned(axes, data.tuned, data.x_limits)
    if data.best is not None:
        rate, loss, label = data.best
        handles += axes.plot(
            [rate], np.clip([loss], *axes.get_ylim()), linestyle="none", marker="o",
            markersize=11, markeredgewidth=1.6,
            markerfacecolor="none", markeredgecolor=BLACK, label=label, zorder=6, clip_on=False,
        )  # fmt: skip
    if data.others:
        handles.append(_others(data.others))
    if wild:
        handles.append(cross("diverged (faint: some)"))
    if len(data.hopeless):
        handles.append(Patch(color=BLACK, alpha=0.07, label="rates where every run diverged"))
    several = any(line.runs.max() > 1 for line in data.lines)
    said = ["Line: median of the seeds; band: their range"] if several else []
    legend(figure, handles, "\n".join([*said, *unknown_thresholds(data)]))


def unknown_thresholds(data: Sensitivity) -> list[str]:
    """Why theory's threshold of some lines is not drawn, in lines."""
    why = data.theory.unknown
    return wrap(text(f"Threshold not drawn: {why}", 150), 70) if why else []


def _others(lines: Sequence[RateLine]) -> Line2D:
    """The thin lines in the legend: as dots where each has but one rate, or both."""
    alone = [len(line.rates) == 1 for line in lines]
    return Line2D(
        [], [], color=GREY, linewidth=0.8, linestyle="none" if all(alone) else "-",
        marker="o" if any(alone) else "none", markersize=2.5,
        label=f"{len(lines):,} other settings",
    )  # fmt: skip


def _theory(axes: Axes, data: Sensitivity) -> list[Line2D | Patch]:
    """Dashed vertical lines at the thresholds, each in the colour of its line; black if shared."""
    shades = [colour for colour, _ in strokes(len(data.lines))]
    inside = [t for t in data.theory.found if data.x_limits[0] <= t.rate <= data.x_limits[1]]
    handles: list[Line2D | Patch] = []
    for one in inside:
        alone = len(one.lines) == 1 and len(data.lines) > 1
        colour = shades[one.lines[0]] if alone else BLACK
        if one.high > one.low:
            axes.axvspan(one.low, one.high, color=colour, alpha=0.15, linewidth=0, zorder=1)
        handles.append(
            axes.axvline(one.rate, color=colour, linewidth=1.2, linestyle="--", label=one.label)
        )
    if len(inside) > _NAMED_THRESHOLDS:
        words = "thresholds, each in its line's colour"
        return [Line2D([], [], color=BLACK, linewidth=1.2, linestyle="--", label=words)]
    return handles


def _tuned(axes: Axes, tuned: Tuned, limits: tuple[float, float]) -> list[Line2D | Patch]:
    """Bars at the foot over the spans that a search found, and where stability ended."""
    handles: list[Line2D | Patch] = []
    foot = axes.get_xaxis_transform()
    for span, height, colour, words in (
        (tuned.stable, 0.015, SKY, "no run diverged"),
        (tuned.flat, 0.05, ORANGE, "about as good (within 10 %)"),
    ):
        if span is not None:
            ends = _wide_enough(np.clip(span, *limits), limits, axes.get_xscale() == "log")
            label = f"{words}: {said(span[0])} to {said(span[1])}"
            handles += axes.plot(
                ends, [height, height], color=colour, linewidth=5, solid_capstyle="butt",
                transform=foot, label=label, zorder=4,
            )  # fmt: skip
    if tuned.first_unstable is not None:
        handles += axes.plot(
            [tuned.first_unstable], [0.015], linestyle="none", marker="|", markersize=11,
            markeredgewidth=2, color=RED, transform=foot, zorder=6,
            label=f"first rate at which a run diverged: {said(tuned.first_unstable)}",
        )  # fmt: skip
    return handles


def _wide_enough(
    ends: np.ndarray, limits: tuple[float, float], log: bool, least: float = 0.01
) -> np.ndarray:
    """A bar's ends, apart by a share of the axis at `least`: that of one rate is seen too."""
    low, high = np.log10(limits) if log else limits
    places = np.log10(ends) if log else np.asarray(ends)
    middle, half = places.mean(), max(np.ptp(places), least * (high - low)) / 2
    made = middle + np.array([-half, half])
    return np.asarray(10.0**made if log else made)


def _mark_diverged(axes: Axes, line: RateLine, colour: object, height: float) -> None:
    """A cross near the top for each rate with diverged runs, faint where some did not diverge."""
    for which, alpha in ((line.diverged == line.runs, 1.0), (line.diverged < line.runs, 0.4)):
        rates = line.rates[which & (line.diverged > 0)]
        axes.plot(
            rates, np.full(len(rates), height), linestyle="none", marker="x", markersize=5,
            color=colour, alpha=alpha, transform=axes.get_xaxis_transform(), zorder=5,
        )  # fmt: skip
