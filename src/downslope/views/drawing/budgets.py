"""Budgets: the best of fewer trials, and the time to targets further and further on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from downslope.views.data.budgets import BestOf, Times
from downslope.views.data.comparisons import Panels
from downslope.views.drawing.marks import cross
from downslope.views.drawing.panels import (
    finish,
    handles_of,
    heading,
    labelled,
    loss_axis,
    panels_for,
    say_how_many,
    style_of,
    ticks,
)
from downslope.views.drawing.style import (
    NORMAL,
    SMALL,
    WIDTH,
    legend_height,
    own_style,
    picture,
    prepare,
)

_ONE = "one a step"


def draw_expected_best(data: Panels[BestOf]) -> Figure:
    """The best loss against the number of trials: median and quartiles over all choices."""
    with own_style():
        figure, panels = panels_for(data, 1.75, data.optimizers)
        shades = style_of(data)
        for axes, panel in labelled(panels, data, "Trials", "Lowest loss found"):
            floor = loss_axis(axes, panel, vertical=True)
            roof = axes.get_ylim()[1]
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            for one in panel.lines:
                colour, mark = shades[one.optimizer]
                there = np.isfinite(one.middle)
                middle = np.clip(one.middle[there], floor, None)
                axes.plot(
                    one.trials[there], middle, color=colour, marker=mark, linewidth=1.5,
                    markersize=4, markevery=max(1, len(middle) // 8),
                )  # fmt: skip
                low, high = np.clip([one.low, one.high], floor, roof)
                axes.fill_between(
                    one.trials, low, high, where=np.isfinite(one.low), color=colour, alpha=0.15,
                    linewidth=0,
                )  # fmt: skip
        told = "On the tuning seeds; line: median over all choices of so many trials"
        return finish(figure, handles_of(data), f"{told}; band: quartiles")


def draw_times(data: Panels[Times]) -> Figure:
    """Steps, and gradient evaluations beside them, to targets further and further on the way."""
    with own_style():
        shades, handles = style_of(data), handles_of(data)
        lost = any(np.isnan(one.steps).any() for p in data.panels for one in p.lines)
        if lost:
            handles.append(cross("not reached by most seeds"))
        names = [str(handle.get_label()) for handle in handles]
        count = len(data.panels)
        figure = picture(WIDTH, 0.9 + 1.45 * count + legend_height([*names, ""]))
        if all(_instead(panel.lines) == _ONE for panel in data.panels):
            labels = ["Steps (each one\ngradient evaluation)"]
        else:
            labels = ["Steps", "Gradient\nevaluations"]
        grid = figure.subplots(count, len(labels), squeeze=False, sharex="col")
        for row, panel in enumerate(data.panels):
            low = "Share of the baseline's way" if row == count - 1 else ""
            for column, (axes, label) in enumerate(zip(grid[row], labels, strict=True)):
                prepare(axes, low, "")
                axes.set_ylabel(label, fontsize=NORMAL)
                axes.tick_params(labelbottom=bool(low))
                _times(axes, panel.lines, shades, in_steps=column == 0)
            n = max(one.n for one in panel.lines)
            heading(grid[row, 0], panel.problem, f" (n = {n})")
        say_how_many(figure, count, data.problems, "problems")
        return finish(figure, handles, "Median over the fresh seeds; a small number: how many of "
                      "the n reached it, if not all")  # fmt: skip


def _times(
    axes: Axes, lines: Sequence[Times], shades: dict[str, tuple[Any, str]], in_steps: bool
) -> None:
    shares = lines[0].shares
    every = [one.steps if in_steps else one.evaluations for one in lines]
    known = np.concatenate(every)
    known = known[np.isfinite(known)]
    said = "" if in_steps else _instead(lines)
    axes.set_xticks(range(len(shares)), [f"{share:.4g}" for share in shares], fontsize=SMALL)
    axes.set_xlim(-0.4, len(shares) - 0.6)
    if said:
        axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=SMALL,
                  transform=axes.transAxes)  # fmt: skip
        axes.set_yticks([])
        return
    lost = in_steps and any(np.isnan(one.steps).any() for one in lines)
    top = max(float(known.max(initial=1.0)), 10.0)
    room = 0.12 + 0.08 * len(lines) * lost
    if known.min(initial=np.inf) >= 1:
        low = float(known.min(initial=top)) / 1.6
        axes.set_yscale("log")
        axes.set_ylim(low, top * (top / low) ** room)
        ticks(axes.yaxis, *axes.get_ylim(), log=True)
    else:  # some started at the target
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.3)
        axes.set_ylim(-0.3, top * 10 ** (room * (0.5 + np.log10(top))))
        powers = 10.0 ** np.arange(0, np.floor(np.log10(top)) + 1)
        axes.set_yticks([0.0, *powers[:: -(-len(powers) // 4)]])
    axes.yaxis.set_minor_formatter(NullFormatter())
    for place, (one, values) in enumerate(zip(lines, every, strict=True)):
        colour, mark = shades[one.optimizer]
        x = np.arange(len(shares)) + 0.09 * (place - (len(lines) - 1) / 2)
        axes.plot(x, values, color=colour, marker=mark, markersize=4.5, linewidth=1.2)
        if not in_steps:
            continue
        never = np.isnan(values)
        axes.plot(
            x[never], np.full(int(never.sum()), 0.95 - 0.08 * place), linestyle="none", marker="x",
            markersize=5, color=colour, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        for at in np.flatnonzero((one.reached < one.n) & ~never):
            axes.annotate(
                f"{one.reached[at]}", (x[at], values[at]), (3, 3), textcoords="offset points",
                fontsize=SMALL - 2, color=colour,
            )  # fmt: skip


def _instead(lines: Sequence[Times]) -> str:
    """What stands in the place of gradient evaluations where they would show nothing more."""
    reached = [one for one in lines if np.isfinite(one.steps).any()]
    if reached and all(np.isnan(one.evaluations).all() for one in reached):
        return "not counted: the batches\nare a DataLoader's own"
    if all(np.array_equal(one.steps, one.evaluations, equal_nan=True) for one in lines):
        return _ONE
    return ""
