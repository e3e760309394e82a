"""Pictures of runs, made by matplotlib without pyplot's global state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from downslope.runs import Runs
from downslope.views.figure_data import Axis, Curve, LossCurves, Which, loss_curves
from downslope.views.figure_draw import draw_fit, draw_paths
from downslope.views.figure_fits import fit
from downslope.views.figure_paths import paths
from downslope.views.figure_rates import RateLine, Sensitivity, sensitivity
from downslope.views.figure_style import (
    BLACK,
    GREY,
    SMALL,
    WIDTH,
    colours,
    legend,
    legend_height,
    picture,
    prepare,
)

_DRAWN_RECORDS = 500
"""Points of a thin grey line: more could not be seen."""


@dataclass(frozen=True, eq=False)
class Plots:
    """Pictures of some runs, reached as ``runs.plot``.

    Each is a `matplotlib.figure.Figure`: a notebook shows it, ``.savefig("loss.png")`` keeps it.
    """

    runs: Runs

    def losses(self, axis: Axis = "epoch", log: bool = True, which: Which = "loss") -> Figure:
        """Loss curves: a line a setting, the range over its seeds as a band.

        Args:
            axis: "epoch", or "step" for the number of updates.
            log: a logarithmic loss axis, where no loss is below 0.
            which: "loss" over all training rows at the records, with the validation loss
                dashed; or "batch_loss", the batch's before each update.

        Raises:
            InputError: for another axis, or a loss that was not kept.
        """
        data = loss_curves(self.runs, axis, log, which)
        names = [curve.setting.counted_label for curve in data.curves]
        figure = picture(WIDTH, 3.6 + legend_height([*names, "", ""]))
        _draw_losses(figure, data)
        return figure

    def sensitivity(self) -> Figure:
        """The final loss (of the validation rows, if there are any) against the learning rate.

        Rates at which runs diverged are marked at the top and never stretch the loss axis.

        Raises:
            InputError: if no run has a learning rate.
        """
        data = sensitivity(self.runs)
        names = [line.counted_label for line in data.lines]
        figure = picture(WIDTH, 3.6 + legend_height([*names, "", ""]))
        _draw_sensitivity(figure, data)
        return figure

    def path(self) -> Figure:
        """The way of up to six runs over the loss of one number, or of two (as contours).

        Raises:
            InputError: if the paths were not kept (``keep=("loss", "parameters")``), or the
                parameters are more than two numbers.
        """
        return draw_paths(paths(self.runs))

    def fit(self, feature: str | int | None = None) -> Figure:
        """The best run's predictions of the training rows.

        Args:
            feature: of several, draw the target against this one (a name, or a number from 0);
                without it predicted against true values.

        Raises:
            InputError: for a problem without data, an unknown feature, or more than one output.
        """
        return draw_fit(fit(self.runs, feature))


def fit_figure(runs: Runs) -> Figure:
    """Loss curves and sensitivity to the learning rate side by side."""
    left_data, right_data = loss_curves(runs), sensitivity(runs)
    most = max(
        legend_height([*(c.setting.counted_label for c in left_data.curves), "", ""]),
        legend_height([*(line.counted_label for line in right_data.lines), "", ""]),
    )
    figure = picture(12.0, 4.3 + most)
    grid = figure.add_gridspec(1, 2, wspace=0.04)
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_losses(left, left_data)
    _draw_sensitivity(right, right_data)
    return figure


def _draw_losses(figure: Figure | SubFigure, data: LossCurves) -> None:
    axes = figure.subplots()
    prepare(axes, data.x_label, data.y_label)
    if data.log:
        axes.set_yscale("log")
    axes.set_ylim(data.limits)
    curves = [*data.curves, *data.others]
    last = max((float(c.x[-1]) for c in curves if len(c.x)), default=1.0) or 1.0
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    handles: list[Line2D | Patch] = []
    floor = data.limits[0] if data.log else -np.inf  # 0 has no place on a logarithmic axis
    _draw_others(axes, [_thin(curve, floor) for curve in data.others])
    for curve, colour in zip(data.curves, colours(len(data.curves)), strict=True):
        width = 1.6 if len(curve.x) <= _DRAWN_RECORDS else 0.8
        label = curve.setting.counted_label
        middle, low, high = np.maximum([curve.middle, curve.low, curve.high], floor)
        handles += axes.plot(curve.x, middle, color=colour, linewidth=width, label=label)
        if len(curve.setting.rows) > 1:
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.18, linewidth=0)
        if curve.validation is not None:
            checked = np.maximum(curve.validation, floor)
            axes.plot(curve.x, checked, color=colour, linewidth=width, linestyle="--")
        _mark_ends(axes, curve.ends, colour, data.limits, 7.0)
    for curve in data.others:
        _mark_ends(axes, curve.ends, GREY, data.limits, 4.0)
    if data.others:
        settings = f"{len(data.others):,} other settings"
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=settings))
    if any(curve.validation is not None for curve in data.curves):
        handles.append(Line2D([], [], color=BLACK, linestyle="--", label="validation rows"))
    diverged = sum(curve.setting.diverged for curve in curves)
    if diverged:
        label = f"diverged ({diverged:,} {'run' if diverged == 1 else 'runs'})"
        handles.append(_cross(label))
    several = any(len(curve.setting.rows) > 1 for curve in data.curves)
    legend(figure, handles, "Line: median of the seeds; band: their range" if several else "")


def _draw_sensitivity(figure: Figure | SubFigure, data: Sensitivity) -> None:
    axes = figure.subplots()
    prepare(axes, data.x_label, data.y_label)
    if data.log_x:
        axes.set_xscale("log")
    if data.log_y:
        axes.set_yscale("log")
    axes.set_xlim(data.x_limits)
    wild = [line for line in data.lines if line.diverged.any()]
    row = min(0.05, 0.3 / max(len(wild), 1))  # of crosses, as a share of the height
    axes.set_ylim(_with_room(data.y_limits, data.log_y, 1.3 * row * len(wild)))
    handles: list[Line2D | Patch] = []
    floor = data.y_limits[0] if data.log_y else -np.inf
    others = [(line.rates, np.maximum(line.middle, floor)) for line in data.others]
    _draw_others(axes, [np.column_stack(line) for line in others])
    for low, high in data.hopeless:
        ends = np.clip([low, high], *data.x_limits)
        axes.axvspan(ends[0], ends[1], color=BLACK, alpha=0.07, linewidth=0, zorder=0)
    for line, colour in zip(data.lines, colours(len(data.lines)), strict=True):
        label = line.counted_label
        middle, low, high = np.maximum([line.middle, line.low, line.high], floor)
        handles += axes.plot(
            line.rates, middle, color=colour, linewidth=1.6, marker="o",
            markersize=4.0 if len(line.rates) <= 30 else 2.5, label=label,
        )  # fmt: skip
        if line.runs.max() > 1:
            axes.fill_between(line.rates, low, high, color=colour, alpha=0.18, linewidth=0)
        if line.diverged.any():
            _mark_diverged(axes, line, colour, 1 - row * (wild.index(line) + 0.5))
    if data.best is not None:
        rate, loss, label = data.best
        handles += axes.plot(
            [rate], np.clip([loss], *axes.get_ylim()), linestyle="none", marker="o",
            markersize=11, markeredgewidth=1.6,
            markerfacecolor="none", markeredgecolor=BLACK, label=label, zorder=6, clip_on=False,
        )  # fmt: skip
    if data.others:
        label = f"{len(data.others):,} other settings"
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, label=label))
    if wild:
        handles.append(_cross("diverged (faint: some)"))
    if len(data.hopeless):
        handles.append(Patch(color=BLACK, alpha=0.07, label="rates where every run diverged"))
    several = any(line.runs.max() > 1 for line in data.lines)
    legend(figure, handles, "Line: median of the seeds; band: their range" if several else "")


def _mark_diverged(axes: Axes, line: RateLine, colour: object, height: float) -> None:
    """A cross near the top for each rate with diverged runs, faint where some did not diverge."""
    for which, alpha in ((line.diverged == line.runs, 1.0), (line.diverged < line.runs, 0.4)):
        rates = line.rates[which & (line.diverged > 0)]
        axes.plot(
            rates, np.full(len(rates), height), linestyle="none", marker="x", markersize=5,
            color=colour, alpha=alpha, transform=axes.get_xaxis_transform(), zorder=5,
        )  # fmt: skip


def _mark_ends(
    axes: Axes, ends: np.ndarray, colour: object, limits: tuple[float, float], size: float
) -> None:
    """A cross where each diverged run ended, at the edge if that lies outside."""
    if len(ends):
        axes.plot(
            ends[:, 0], np.clip(ends[:, 1], *limits), linestyle="none", marker="x", color=colour,
            markersize=size, markeredgewidth=size / 4, clip_on=False, zorder=5,
        )  # fmt: skip


def _draw_others(axes: Axes, lines: list[np.ndarray]) -> None:
    if lines:
        axes.add_collection(
            LineCollection(lines, colors=GREY, linewidths=0.6, alpha=0.6), autolim=False
        )


def _thin(curve: Curve, floor: float) -> np.ndarray:
    step = -(-len(curve.x) // _DRAWN_RECORDS)
    return np.column_stack([curve.x[::step], np.maximum(curve.middle[::step], floor)])


def _cross(label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker="x", color=BLACK, markersize=SMALL - 3, label=label
    )


def _with_room(limits: tuple[float, float], log: bool, share: float) -> tuple[float, float]:
    """Limits with a share more room at the top."""
    low, high = limits
    if log:
        return low, float(min(high * (high / low) ** share, 1e307))
    return low, high + share * (high - low)
