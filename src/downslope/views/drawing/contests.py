"""Optimizers against each other: performance profiles, shares of wins."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from downslope.views.data.contests import Profiles, WinRow, Wins
from downslope.views.drawing.panels import marker, say_how_many
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    own_style,
    picture,
    prepare,
    strokes,
    text,
)


def draw_profiles(data: Profiles) -> Figure:
    """Stairs, one an optimizer, wide ones first, so that equal ones can both be seen."""
    with own_style():
        count = len(data.profiles)
        labels = [
            f"{text(one.optimizer, 30)} ({round(one.solved[-1] * data.problems)} of "
            f"{data.problems} solved)"
            for one in data.profiles
        ]
        figure = picture(WIDTH, 3.3 + legend_height([*labels, ""]))
        axes = figure.subplots()
        label = "Steps, as a multiple of the fastest optimizer's on each problem (τ)"
        prepare(axes, label, "Share of problems solved")
        axes.set_xscale("log")
        axes.set_xlim(1, data.right)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        few = data.right <= 30
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if data.right <= 10 else (1, 2, 5), numticks=12)
            if few
            else LogLocator(numticks=8)
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        handles: list[Artist] = []
        for place, (one, stroke) in enumerate(zip(data.profiles, strokes(count), strict=True)):
            look = {"color": stroke[0], "linestyle": stroke[1], "marker": marker(place)}
            width = 1.3 + 3.2 * (count - 1 - place) / max(count - 1, 1)
            axes.plot(
                [*one.tau, data.right], [*one.solved, one.solved[-1]], drawstyle="steps-post",
                linewidth=width, markersize=5, markevery=max(1, len(one.tau) // 8), clip_on=False,
                **look,
            )  # fmt: skip
            handles.append(
                Line2D([], [], linewidth=width, markersize=5, **look,
                       label=labels[place].replace(r"\$", "$"))
            )  # fmt: skip
        low, high = data.seeds
        seeds = f"n = {low}" if low == high else f"n = {low} to {high}"
        legend(
            figure, handles,
            f"Target: {data.share:.4g} of the baseline's way, by the median over {seeds} seeds",
        )  # fmt: skip
        return figure


def draw_wins(data: Wins) -> Figure:
    """A row a pair, and a problem below it: the share of wins and its bounds."""
    single = any(len(row.single) for row in data.rows)
    bounds = "95 % interval" if any(row.low == row.low for row in data.rows) else "no interval"
    handles: list[Artist] = [
        Line2D([], [], color=BLUE, marker="o", linewidth=1.4, markersize=5,
               label=f"on one problem, {bounds}")
    ]  # fmt: skip
    if data.problems > 1:
        overall = [row for row in data.rows if row.problem is None]
        sure = any(row.low == row.low for row in overall)
        told = "95 % interval" if sure else "no interval: fewer than 6"
        handles.append(
            Line2D([], [], color=BLACK, marker="s", linewidth=2.4, markersize=7,
                   label=f"over {data.problems} problems, {told}")
        )  # fmt: skip
    if single:
        handles[0] = Line2D([], [], linestyle="none", color=GREY, marker="o", markersize=5,
                            label="one problem")  # fmt: skip
    with own_style():
        count = len(data.rows)
        figure = picture(WIDTH, 1.15 + 0.26 * count)
        axes = figure.subplots()
        prepare(axes, "Share of seeds won (ties count half)", "")
        axes.grid(False, axis="y")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(count - 0.5, -0.6)
        axes.axvline(0.5, color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        axes.set_yticks(range(count), [_name(row, data) for row in data.rows],
                        fontsize=SMALL, fontfamily=families())  # fmt: skip
        for row, name in zip(data.rows, axes.get_yticklabels(), strict=True):
            name.set_fontweight("bold" if row.problem is None and data.problems > 1 else "normal")
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(count), [_counts(row) for row in data.rows], fontsize=SMALL - 1)
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        for place, row in enumerate(data.rows):
            _win(axes, row, place)
        say_how_many(figure, data.drawn_pairs, data.pairs, "pairs")
        legend(figure, handles, "At the right: wins, ties, losses of the optimizer named first")
        return figure


def _name(row: WinRow, data: Wins) -> str:
    if row.problem is not None and data.problems > 1:
        return text(row.problem, 26)
    if len(row.optimizer) + len(row.against) <= 28:
        return f"{text(row.optimizer)} against {text(row.against)}"
    return f"{text(row.optimizer, 24)}\nagainst {text(row.against, 20)}"


def _counts(row: WinRow) -> str:
    return f"{row.wins} / {row.ties} / {row.n - row.wins - row.ties}"


def _win(axes: Axes, row: WinRow, place: int) -> None:
    overall = row.problem is None
    colour, mark, size = (BLACK, "s", 7) if overall else (BLUE, "o", 5)
    if len(row.single):
        axes.plot(row.single, [place] * len(row.single), linestyle="none", marker="o",
                  markersize=5, color=GREY, alpha=0.7)  # fmt: skip
    if row.low == row.low:
        width = 2.4 if overall else 1.4
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=width)
    axes.plot([row.share], [place], marker=mark, markersize=size, color=colour, zorder=3)
