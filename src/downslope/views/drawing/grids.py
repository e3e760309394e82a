"""Maps: an outcome over two settings as colour."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from downslope.views.data.grids import OutcomeMap
from downslope.views.data.scales import FEW, Scale
from downslope.views.drawing.grid_words import (
    LONGEST,
    SYMBOLS,
    Side,
    some_diverged,
    write_numbers,
    write_verdicts,
)
from downslope.views.drawing.marks import plain_ticks
from downslope.views.drawing.style import (
    BLACK,
    NORMAL,
    SMALL,
    WIDTH,
    families,
    legend,
    legend_height,
    picture,
    prepare,
    text,
)

_LOST = "#D8D8D8"
_HATCH = "////"
_RASTER = 2_500
"""Cells from which on files with lines (SVG, PDF) hold them as a picture."""

_SHADES = 64
"""Colours of each side of a map of sums: each stands for as many cells."""

_HEADING = 66
"""Letters of a line above the legend."""


def draw_map(data: OutcomeMap) -> Figure:
    """The map as a picture: cells in colours, cells that diverged hatched, the best one ringed."""
    few = len(data.x) <= FEW and len(data.y) <= FEW
    handles, heading = _handles(data, few), _heading(data)
    names = [str(handle.get_label()) for handle in handles]
    height = float(np.clip(1.4 + 0.36 * len(data.y), 3.2, 4.4))
    figure = picture(WIDTH, height + legend_height(names) + 0.17 * len(heading))
    axes = figure.subplots()
    prepare(axes, data.x.label, data.y.label)
    axes.grid(False)
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, facecolor=_LOST, edgecolor="#FFFFFF",
                  hatch=_HATCH, linewidth=0, zorder=0)
    )  # fmt: skip
    _frame(axes, data)
    colours = [_falling(data)] if data.grown is None else _sides(data)
    for values, shades, norm, _ in colours:
        _cells(axes, data, values, shades, norm)
    _cells(axes, data, np.where(data.runs > 0, np.nan, 0.0), mpl.colormaps["gray_r"], None)
    _bars(figure, axes, data, colours)
    if few:
        write_numbers(axes, data, colours)
    elif data.verdicts is not None:
        write_verdicts(axes, data)
    if data.best is not None:
        _ring(axes, data, few)
    legend(figure, handles, "\n".join(heading))
    return figure


def _falling(data: OutcomeMap) -> Side:
    norm = LogNorm(*data.limits) if data.log else Normalize(*data.limits)
    values = np.maximum(data.values, data.limits[0]) if data.log else data.values
    return values, mpl.colormaps["viridis"], norm, data.label


def _sides(data: OutcomeMap) -> list[Side]:
    """Runs that went down in blue, those that blew up in orange, both darkest where sums are
    greatest: at the boundary between them."""
    assert data.grown is not None
    made: list[Side] = []
    for grown, shades, words in (
        (False, "Blues", "Went down: sum of losses / start"),
        (True, "Oranges", "Blew up: sum of start / losses"),
    ):
        values = np.where(data.grown == grown, data.values, np.nan)
        known = np.sort(values[np.isfinite(values)])
        if len(known):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _SHADES + 1)))
            if len(edges) < 2:
                edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
            norm = BoundaryNorm(edges, 256)
            ramp = ListedColormap(mpl.colormaps[shades](np.linspace(0.15, 1, 256)))
            made.append((values, ramp, norm, words))
    return made


def _frame(axes: Axes, data: OutcomeMap) -> None:
    for scale, axis, turned in ((data.x, axes.xaxis, True), (data.y, axes.yaxis, False)):
        if scale.kind == "log":
            (axes.set_xscale if turned else axes.set_yscale)("log")
        (axes.set_xlim if turned else axes.set_ylim)(scale.edges[0], scale.edges[-1])
        if len(scale) <= FEW or scale.kind == "categories":
            _words_at_cells(axis, scale, turned)
        elif scale.kind == "log":
            plain_ticks(axis, (scale.edges[0], scale.edges[-1]))
        else:
            axis.set_major_locator(MaxNLocator(6))


def _words_at_cells(axis: Any, scale: Scale, turned: bool) -> None:
    """Each cell's own words, or every so many of them where there are too many."""
    every = -(-len(scale) // (24 if turned else 16))
    words = [text(word, LONGEST) for word in scale.words[::every]]
    axis.set_major_locator(FixedLocator(scale.centres[::every].tolist()))
    axis.set_major_formatter(FixedFormatter(words))
    axis.set_minor_locator(NullLocator())
    crowded = turned and sum(len(word) + 1 for word in words) > 44
    for label in axis.get_ticklabels():
        label.set_fontfamily(families())
        if crowded:
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def _cells(
    axes: Axes, data: OutcomeMap, values: np.ndarray, shades: Colormap, norm: Normalize | None
) -> None:
    if np.isfinite(values).any():
        mesh = axes.pcolormesh(
            data.x.edges, data.y.edges, np.ma.masked_invalid(values), cmap=shades, norm=norm,
            zorder=1, linewidth=0, antialiased=False,
        )  # fmt: skip
        mesh.set_rasterized(values.size > _RASTER)


def _bars(figure: Figure, axes: Axes, data: OutcomeMap, colours: list[Side]) -> None:
    for _, shades, norm, words in colours:
        extend = ("min" if data.upward else "max") if data.capped else "neither"
        bar = figure.colorbar(
            ScalarMappable(norm, shades), ax=axes, extend=extend, pad=0.02, aspect=25,
            spacing="uniform",
        )  # fmt: skip
        lines = wrap(text(words, 80), 26 if len(data.y) < 5 else 40)
        bar.set_label("\n".join(lines), fontsize=SMALL, fontfamily=families())
        bar.ax.tick_params(labelsize=SMALL - 1)
        if isinstance(norm, BoundaryNorm):
            ticks = norm.boundaries[:: max(1, len(norm.boundaries) // 4)]
            told = {f"{value:.3g}": float(value) for value in ticks}  # each number once
            bar.set_ticks(list(told.values()), labels=list(told))
            bar.minorticks_off()
        elif data.log:
            plain_ticks(bar.ax.yaxis, data.limits)


def _handles(data: OutcomeMap, few: bool) -> list[Any]:
    handles: list[Any] = []
    if data.best is not None:
        handles.append(
            Line2D([], [], linestyle="none", marker="s" if few else "o", markersize=8,
                   markerfacecolor="none", markeredgecolor=BLACK, markeredgewidth=1.6,
                   label=data.best_label)
        )  # fmt: skip
    if data.lost.any():
        many = data.runs.max() > 1
        label = "diverged (half or more of a cell's runs)" if many else "diverged"
        handles.append(Patch(facecolor=_LOST, edgecolor="#FFFFFF", hatch=_HATCH, label=label))
    if (data.runs == 0).any():
        handles.append(Patch(facecolor="#FFFFFF", edgecolor="#B0B0B0", label="no run"))
    if few and some_diverged(data).any():
        label = "n×: so many of a cell's runs diverged"
        handles.append(Line2D([], [], linestyle="none", label=label))
    return handles


def _heading(data: OutcomeMap) -> list[str]:
    """What a cell stands for, and what the symbols mean, in lines."""
    lines = wrap(text(data.title[:1].upper() + data.title[1:], 160), _HEADING)
    if data.verdicts is not None:
        found = {verdict for row in data.verdicts for verdict in row}
        no_break = "\N{NO-BREAK SPACE}"  # textwrap leaves those together
        words = [f"{s} {v}".replace(" ", no_break) for v, s in SYMBOLS.items() if v in found]
        lines += wrap("   ".join(words), _HEADING, break_on_hyphens=False)
    return lines


def _ring(axes: Axes, data: OutcomeMap, few: bool) -> None:
    assert data.best is not None
    row, column = data.best
    (left, right), (low, high) = data.x.edges[column : column + 2], data.y.edges[row : row + 2]
    if few:
        for colour, width in (("#FFFFFF", 4.0), (BLACK, 2.0)):
            axes.add_patch(
                Rectangle((left, low), right - left, high - low, fill=False, edgecolor=colour,
                          linewidth=width, zorder=4, clip_on=False)
            )  # fmt: skip
        return
    for colour, width in (("#FFFFFF", 4.0), (BLACK, 1.8)):
        axes.plot(
            [data.x.centres[column]], [data.y.centres[row]], linestyle="none", marker="o",
            markersize=NORMAL, markerfacecolor="none", markeredgecolor=colour,
            markeredgewidth=width, zorder=4, clip_on=False,
        )  # fmt: skip
