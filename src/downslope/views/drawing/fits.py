"""Fits to data: points and predictions, or counts of classes."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from downslope.views.data.fits import Fit
from downslope.views.drawing.style import (
    BLACK,
    BLUE,
    ORANGE,
    SMALL,
    families,
    legend,
    picture,
    prepare,
    text,
)


def draw_fit(data: Fit) -> Figure:
    """Points and prediction, predicted against true values, or counts of classes."""
    if data.kind == "classes":
        return _classes(data)
    figure = picture(5.6, 4.0)
    axes = figure.subplots()
    prepare(axes, *data.names)
    size = 16 if len(data.x) <= 500 else 4
    points = axes.scatter(data.x, data.y, s=size, color=BLUE, alpha=0.7, linewidths=0)
    points.set_label(data.label)
    handles: list[Artist] = [points]
    if data.kind == "curve":
        handles += axes.plot(
            data.made_x, data.made_y, color="#E00000", linewidth=2, label="prediction"
        )
    elif data.kind == "feature":
        made = axes.scatter(data.made_x, data.made_y, s=size, color=ORANGE, linewidths=0)
        made.set_label("prediction")
        handles.append(made)
    else:
        both = np.concatenate([data.x, data.y])
        ends = np.array([both.min(), both.max()])
        handles += axes.plot(ends, ends, color="#E00000", linewidth=1.2, label="predicted = true")
    legend(figure, handles)
    return figure


def _classes(data: Fit) -> Figure:
    """How many rows of each class were predicted to be of each."""
    count = len(data.classes)
    side = float(np.clip(2.2 + 0.45 * count, 4.0, 8.0))
    figure = picture(side + 0.6, side)
    axes = figure.subplots()
    prepare(axes, *data.names)
    axes.grid(False)
    axes.imshow(data.counts, cmap="Blues", vmin=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if count <= 20:
        names = [text(name, 16) for name in data.classes]
        turn = 45 if max(map(len, names)) > 6 else 0
        axes.set_xticks(
            range(count), names, fontsize=SMALL, fontfamily=families(), rotation=turn,
            ha="right" if turn else "center", rotation_mode="anchor",
        )  # fmt: skip
        axes.set_yticks(range(count), names, fontsize=SMALL, fontfamily=families())
        dark = data.counts.max() / 2
        for (row, column), number in np.ndenumerate(data.counts):
            colour = "white" if number > dark else BLACK
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour,
                      fontsize=SMALL)  # fmt: skip
    return figure
