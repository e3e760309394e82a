"""A comparison problem by problem: results on the fresh seeds, and the curves over rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from downslope.views.data.comparisons import Panels, Rates, Results
from downslope.views.drawing.marks import cross
from downslope.views.drawing.panels import (
    finish,
    handles_of,
    heading,
    labelled,
    loss_axis,
    panels_for,
    style_of,
)
from downslope.views.drawing.style import (
    BLACK,
    GREY,
    SMALL,
    families,
    own_style,
    text,
)

_NAME = 22
"""Letters of an optimizer's name beside its row."""


def draw_results(data: Panels[Results]) -> Figure:
    """A row an optimizer: a dot a run, the quartiles as a band, the median with its bounds."""
    sure = [one.coverage for p in data.panels for one in p.lines if one.coverage == one.coverage]
    bounds = f"{100 * min(sure):.1f} % interval" if sure else "no interval"
    handles: list[Artist] = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=GREY, label="a run"),
        Patch(color=GREY, alpha=0.35, label="quartiles of the runs"),
        Line2D([], [], color=BLACK, linewidth=3, marker="|", markersize=11, markeredgewidth=2,
               label=f"median, {bounds}"),
        Line2D([], [], linestyle="none", marker="d", markersize=6, color=BLACK,
               markerfacecolor="none", label="default setting's median"),
    ]  # fmt: skip
    if any(one.diverged or one.default_diverged for p in data.panels for one in p.lines):
        handles.append(cross("diverged: how many"))
    with own_style():
        rows = max(len(panel.lines) for panel in data.panels)
        names = [str(handle.get_label()) for handle in handles]
        figure, panels = panels_for(data, 0.5 + 0.34 * rows, names)
        shades = style_of(data)
        for place, (axes, panel) in enumerate(labelled(panels, data, "Final loss", "")):
            floor = loss_axis(axes, panel, vertical=False, room=0.16)
            heading(axes, panel.problem, f" ({_n_of(panel.lines)})")
            first = len(panels) < 3 or place % 2 == 0
            axes.set_yticks(
                range(len(panel.lines)),
                [text(one.optimizer, _NAME) for one in panel.lines] if first else [],
                fontsize=SMALL, fontfamily=families(),
            )  # fmt: skip
            axes.set_ylim(len(panel.lines) - 0.5, -0.5)
            axes.grid(False, axis="y")
            for row, one in enumerate(panel.lines):
                _result(axes, one, row, shades[one.optimizer][0], floor)
        return finish(figure, handles, "")


def _n_of(lines: Sequence[Results]) -> str:
    least, most = min(one.n for one in lines), max(one.n for one in lines)
    return f"n = {least}" if least == most else f"n = {least} to {most}"


def _result(axes: Axes, one: Results, row: int, colour: Any, floor: float) -> None:
    left, right = axes.get_xlim()
    spread = np.linspace(-0.26, 0.26, len(one.losses)) if len(one.losses) > 1 else np.zeros(1)
    low, high = np.clip([one.lower_quartile, one.upper_quartile], left, right)
    axes.fill_betweenx([row - 0.32, row + 0.32], low, high, color=colour, alpha=0.22, linewidth=0)
    dots = np.clip(np.maximum(one.losses, floor), left, right)
    axes.plot(
        dots, row + spread[: len(dots)], linestyle="none", marker="o", markersize=3.2,
        color=colour, alpha=0.8, markeredgewidth=0,
    )  # fmt: skip
    if one.low == one.low:
        axes.plot(
            np.clip([one.low, one.high], left, right), [row, row], color=BLACK, linewidth=2.6,
            solid_capstyle="butt", zorder=4,
        )  # fmt: skip
    if np.isfinite(one.median):
        axes.plot(
            [np.clip(one.median, left, right)], [row], color=BLACK, marker="|", markersize=14,
            markeredgewidth=2, zorder=5,
        )  # fmt: skip
    if np.isfinite(one.default) and one.default <= right:
        axes.plot(
            [max(one.default, left)], [row], linestyle="none", marker="d", markersize=6,
            color=BLACK, markerfacecolor="white", zorder=6,
        )  # fmt: skip
    elif np.isfinite(one.default):
        _at_the_edge(axes, f"◇ {one.default:.0e}", row + 0.3)
    if one.default_diverged:
        _at_the_edge(axes, f"◇ × {one.default_diverged}", row + 0.3)
    if one.diverged:
        _at_the_edge(axes, f"× {one.diverged}", row)


def _at_the_edge(axes: Axes, words: str, row: float) -> None:
    axes.annotate(
        words, (1, row), (-2, 0), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha="right", va="center", fontsize=SMALL, zorder=7,
    )  # fmt: skip


def draw_rates(data: Panels[Rates]) -> Figure:
    """A mark a trial; crosses at the top where it diverged; the chosen trial ringed."""
    with own_style():
        height = 2.5 if len(data.panels) == 1 else 1.75
        figure, panels = panels_for(data, height, [*data.optimizers, "", ""])
        shades, drawn = style_of(data), list(labelled(panels, data, "Learning rate",
                                                      "Median final loss"))  # fmt: skip
        wild = [[one for one in p.lines if (one.diverged > 0).any()] for _, p in drawn]
        for (axes, panel), lost in zip(drawn, wild, strict=True):
            axes.set_xscale("log")
            row = min(0.08, 0.4 / max(len(lost), 1))  # of crosses, as a share of the height
            floor = loss_axis(axes, panel, vertical=True, room=1.3 * row * len(lost))
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.xaxis.set_minor_formatter(NullFormatter())
            for one in panel.lines:
                place = lost.index(one) if one in lost else 0
                _rate_curve(axes, one, shades[one.optimizer], floor, 1 - row * (place + 0.6))
        handles = handles_of(data)
        handles.append(
            Line2D([], [], linestyle="none", marker="o", markersize=10, markerfacecolor="none",
                   color=BLACK, label="chosen")
        )  # fmt: skip
        if any(wild):
            handles.append(cross("diverged (faint: some)"))
        seeds = sorted({int(n) for _, panel in drawn for one in panel.lines for n in one.n})
        told = f"n = {' or '.join(map(str, seeds))} tuning seeds"
        return finish(figure, handles, f"Mark: median, line: range ({told})")


def _rate_curve(axes: Axes, one: Rates, look: tuple[Any, str], floor: float, height: float) -> None:
    """One optimizer's trials; crosses at a share `height` of the axes where runs diverged."""
    colour, mark = look
    roof = axes.get_ylim()[1]
    fine = np.where(one.diverged == 0, np.clip(one.median, floor, roof), np.nan)
    axes.plot(
        one.rates, fine, color=colour, marker=mark, markersize=4,
        linestyle="-" if one.joined else "none", linewidth=1.1,
    )  # fmt: skip
    calm = one.diverged == 0
    axes.vlines(
        one.rates[calm], np.clip(one.lowest[calm], floor, roof),
        np.clip(one.highest[calm], floor, roof), color=colour, linewidth=0.9, alpha=0.7,
    )  # fmt: skip
    for which, alpha in ((one.diverged == one.n, 1.0), (one.diverged < one.n, 0.35)):
        bad = one.rates[which & (one.diverged > 0)]
        axes.plot(
            bad, np.full(len(bad), height), linestyle="none", marker="x", markersize=4.5,
            color=colour, alpha=alpha, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    at = one.chosen
    if calm[at]:
        where, up = axes.transData, float(np.clip(one.median[at], floor, roof))
    else:
        where, up = axes.get_xaxis_transform(), height
    axes.plot(
        [one.rates[at]], [up], linestyle="none", marker="o", markersize=9, markeredgewidth=1.4,
        markerfacecolor="none", color=BLACK, zorder=6, transform=where, clip_on=False,
    )  # fmt: skip
