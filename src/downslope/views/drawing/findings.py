"""A finding: the loss with what is marked there, a ruler of rates, and the sentence below."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len, chop_cells

from downslope.views.data.findings import FindingData
from downslope.views.data.rulers import RateMark, Ruler
from downslope.views.drawing.panels import ticks
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    text,
)

_LINE = 78
"""Cells of a line of the sentence, in the picture's width."""

_KINDS = {
    "run": (BLACK, "o"),
    "threshold": (RED, "|"),
    "otherwise": (PURPLE, "|"),
    "advised": (GREEN, "D"),
}


_LEVELS: tuple[dict[str, Any], ...] = (
    {"color": BLACK, "linestyle": "-", "linewidth": 1.3},
    {"color": GREEN, "linestyle": "--", "linewidth": 1.5},
    {"color": ORANGE, "linestyle": ":", "linewidth": 2.0},
)
_PEAK: dict[str, Any] = {"color": ORANGE, "linestyle": "none", "marker": "v", "markersize": 7}
_BAD: dict[str, Any] = {"color": RED, "linestyle": "--", "linewidth": 1.2}
_MEASURED: dict[str, Any] = {"color": BLACK, "linestyle": "none", "marker": "^", "markersize": 6}
_WAVE: dict[str, Any] = {"color": PURPLE, "linewidth": 1.4, "marker": "|", "markersize": 7}

_LETTER = 0.072
"""Inches of a letter of the ruler's labels, about."""


def draw_finding(data: FindingData) -> Figure:
    """The loss over the steps, the ruler below it, the sentence below that."""
    lines = wrapped(data.sentence, _LINE)
    handles = _handles(data)
    names = [str(handle.get_label()) for handle in handles]
    heights = [2.5 + legend_height(names)]
    if data.ruler is not None:
        heights.append(0.85 + 0.21 * len(data.ruler.marks))
    below = 0.12 + 0.18 * len(lines)
    with own_style():
        figure = picture(WIDTH, sum(heights) + below)
        share = below / (sum(heights) + below)
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(rect=(0, share, 1, 1 - share))
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _losses(parts[0].subplots(), data)
        legend(parts[0], handles)
        if data.ruler is not None:
            _ruler(parts[1].subplots(), data.ruler)
        figure.text(
            0.015, share, "\n".join(text(line, 4 * _LINE) for line in lines), va="top", ha="left",
            fontsize=SMALL, fontfamily=families(), linespacing=1.35,
        )  # fmt: skip
        return figure


def _last_step(data: FindingData) -> float:
    every = [*data.steps[-1:], *data.batch_steps[-1:], *data.measured[-1:], data.bad_step or 0]
    return max(map(float, every), default=0.0) or 1.0


def _handles(data: FindingData) -> list[Artist]:
    """What the legend names."""
    found: list[Artist] = []
    if len(data.batch_losses):
        found.append(Line2D([], [], color=SKY, linewidth=1.0, label="batch's loss"))
    found.append(Line2D([], [], color=BLUE, linewidth=1.6, label=data.loss_words))
    for level, look in zip(data.levels, _LEVELS, strict=False):
        found.append(Line2D([], [], label=f"{level.words}: {level.loss:.4g}", **look))
    if data.peak is not None:
        found.append(Line2D([], [], label=f"highest loss: {data.peak[1]:.4g}", **_PEAK))
    if data.bad_step is not None:
        found.append(Line2D([], [], label=f"first bad step: {data.bad_step:,}", **_BAD))
    if data.measured:
        found.append(Line2D([], [], label="measured here", **_MEASURED))
    if data.wave is not None:
        found.append(Line2D([], [], label=f"a wave: about {data.wave:.3g} steps", **_WAVE))
    if data.window is not None:
        found.append(Patch(color=GREY, alpha=0.2, label="the last half"))
    return found


def _losses(axes: Axes, data: FindingData) -> None:
    prepare(axes, "Step (updates of the parameters)", data.y_label)
    axes.set_title(
        text(data.title, 90), fontsize=SMALL, fontfamily=families(), loc="left", fontweight="bold"
    )
    if data.log:
        axes.set_yscale("log")
    low, high = data.limits
    axes.set_ylim(low, high)
    ticks(axes.yaxis, low, high, data.log)
    last = _last_step(data)
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if data.window is not None:
        axes.axvspan(*data.window, color=GREY, alpha=0.2, linewidth=0, zorder=0)
    dots = "." if len(data.batch_losses) <= 40 else ""
    floor = low if data.log else -np.inf  # 0 has no place on a logarithmic axis
    batches = np.maximum(data.batch_losses, floor)
    axes.plot(data.batch_steps, batches, color=SKY, linewidth=0.7, marker=dots)
    dots = "o" if len(data.steps) <= 30 else ""
    losses = np.maximum(data.losses, floor)
    axes.plot(data.steps, losses, color=BLUE, linewidth=1.5, marker=dots, markersize=3.5)
    if not len(data.losses) + len(data.batch_losses):
        axes.text(0.5, 0.5, "no finite loss was recorded", ha="center", fontsize=SMALL,
                  transform=axes.transAxes)  # fmt: skip
    for level, look in zip(data.levels, _LEVELS, strict=False):
        axes.plot([level.since, last], [level.loss, level.loss], **look)
    if data.peak is not None:
        axes.plot([data.peak[0]], [np.clip(data.peak[1], low, high)], **_PEAK)
    if data.bad_step is not None:
        axes.axvline(data.bad_step, **_BAD)
    below = axes.get_xaxis_transform()
    if data.measured:
        foot = np.zeros(len(data.measured))
        axes.plot(data.measured, foot, transform=below, clip_on=False, zorder=5, **_MEASURED)
    if data.wave is not None:
        axes.plot([last - data.wave, last], [0.94, 0.94], transform=below, **_WAVE)


def _ruler(axes: Axes, data: Ruler) -> None:
    """A row a rate, the lowest at the top and each label at the right of its mark: so no line
    crosses a label."""
    prepare(axes, "Learning rate", "")
    axes.set_xscale("log")
    low, high = _ends(data)
    axes.set_xlim(low, high)
    ticks(axes.xaxis, low, high, log=True)
    count = len(data.marks)
    axes.set_ylim(-0.7, count - 0.3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if data.stable is not None:
        axes.axvspan(low, data.stable, color=GREEN, alpha=0.15, linewidth=0, zorder=0)
        axes.set_title(f"Shaded: {data.stable_words}", fontsize=SMALL, loc="left")
    for place, mark in enumerate(data.marks):
        row = count - 1 - place
        colour, shape = _KINDS[mark.kind]
        axes.plot([mark.rate, mark.rate], [-0.7, row], color=colour, linewidth=0.9, alpha=0.7)
        axes.plot([mark.rate], [row], marker=shape, color=colour, markersize=6,
                  markeredgewidth=2 if shape == "|" else 1)  # fmt: skip
        axes.annotate(
            _label(mark), (mark.rate, row), (6, 0), textcoords="offset points", va="center",
            fontsize=SMALL, fontweight="bold" if mark.kind == "run" else "normal",
        )  # fmt: skip


def _label(mark: RateMark) -> str:
    return f"{mark.words} {mark.rate:.4g}"


def _ends(data: Ruler) -> tuple[float, float]:
    """The axis from a little below the lowest rate to where the last label ends."""
    rates = np.log10([mark.rate for mark in data.marks])
    room = np.array([(_LETTER * len(_label(mark)) + 0.12) / (WIDTH - 0.4) for mark in data.marks])
    low = float(rates[0] - max(0.12, 0.05 * (rates[-1] - rates[0])))
    high = max(float((low + (rates - low) / (1 - room)).max()), low + 0.8)
    return float(10**low), float(10**high)


def wrapped(words: str, cells: int) -> list[str]:
    """Lines of so many cells at most; a wide letter takes two, and no word is left out.

    >>> wrapped("one two three 梯度下降", 8)
    ['one two', 'three', '梯度下降']
    """
    lines: list[str] = []
    for word in words.split():
        for part in chop_cells(word, cells):
            if lines and cell_len(lines[-1]) + 1 + cell_len(part) <= cells:
                lines[-1] += f" {part}"
            else:
                lines.append(part)
    return lines or [""]
