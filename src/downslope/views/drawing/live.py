"""The live picture: loss curves, and beside them a prediction, drawn over and over."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from downslope.views.data.live import Live
from downslope.views.drawing.style import (
    BLUE,
    PALETTE,
    SMALL,
    WIDTH,
    families,
    own_style,
    picture,
    prepare,
    text,
)

THICK_RED = "#E00000"
_DOTS_PER_INCH = 100
_HEIGHT = 3.6
_FOOT, _LEFT = 0.62, 0.95
_ROW = 0.19


class LivePicture:
    """A figure whose lines follow what is seen. Its places are fixed once: finding a layout anew
    would take longer than drawing it.

    Args:
        figure: to draw into; by default one of its own.
    """

    def __init__(self, first: Live, figure: Figure | None = None) -> None:
        self.fits = first.ground is not None
        lines = first.of_lines if first.of_lines > 1 else 0  # a single one needs no name
        width, height = (2 * WIDTH if self.fits else WIDTH), _HEIGHT + _ROW * lines
        with own_style():
            self.figure = picture(width, height) if figure is None else figure
            self.figure.set_layout_engine("none")
            self.figure.set_dpi(_DOTS_PER_INCH)
            if figure is not None:
                figure.set_size_inches(width, height)
            bottom = (_FOOT + _ROW * lines) / height
            panels = [
                self.figure.add_axes(
                    (
                        (place * WIDTH + _LEFT) / width,
                        bottom,
                        (WIDTH - _LEFT - 0.2) / width,
                        1 - 0.5 / height - bottom,
                    )
                )
                for place in range(2 if self.fits else 1)
            ]
            self.axes: Any = panels[0]
            prepare(self.axes, "Step (updates of the parameters)", "Loss")
            self.axes.tick_params(which="both", labelsize=SMALL)
            self.axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            self.lines = [self.axes.plot([], [], color=c, linewidth=1.4)[0] for c in PALETTE[:6]]
            self.words = self.figure.text(
                0.15 / width, 1 - 0.12 / height, "", va="top", fontsize=SMALL, family=families()
            )
            self.legend: Any = None
            self.names: list[str] = []
            self.prediction: Any = None
            if self.fits:
                self._prepare_fit(panels[1], first)
        self.show(first)

    def _prepare_fit(self, axes: Any, first: Live) -> None:
        ground, made = first.ground, first.made
        assert ground is not None and made is not None
        prepare(axes, *ground.names)
        axes.scatter(ground.x, ground.y, s=12, color=BLUE, alpha=0.7, linewidths=0)
        height = float(np.ptp(ground.y)) or 1.0
        axes.set_ylim(ground.y.min() - 0.5 * height, ground.y.max() + 0.5 * height)
        (self.prediction,) = axes.plot(ground.at, made, color=THICK_RED, linewidth=3, zorder=4)
        self.fit_words = axes.set_title("", fontsize=SMALL, fontfamily=families(), loc="left")

    def show(self, data: Live) -> None:
        """Bring everything to where it is now."""
        with own_style():
            self.axes.set_visible(bool(data.lines))
            self.axes.set_yscale("log" if data.log else "linear")
            self.axes.set_ylim(data.limits)
            self.axes.set_xlim(-0.02 * data.until, 1.02 * data.until)
            for drawn, line in zip(self.lines, data.lines, strict=False):
                floor = data.limits[0] if data.log else -np.inf
                drawn.set_data(line.steps, np.maximum(line.losses, floor))
                drawn.set_linewidth(0.7 if line.thin else 1.5)
                drawn.set_alpha(0.5 if line.thin else 1.0)
                drawn.set_markevery([max(len(line.steps) - 1, 0)])  # one mark, at the end
                drawn.set_marker("x" if line.diverged else "o" if len(line.steps) == 1 else "")
            self.words.set_text(text(data.words, 110 if self.fits else 80))
            self._name(
                [line.label + (": diverged" if line.diverged else "") for line in data.lines]
            )
            if self.prediction is not None and data.made is not None:
                low, high = self.prediction.axes.get_ylim()
                far = 100 * (high - low)
                self.prediction.set_ydata(np.clip(data.made, low - far, high + far))
                first, *rest = data.of_fit.split("\n")
                said = first + "".join(f" ({text(label, 34)})" for label in rest)
                self.fit_words.set_text(said)

    def _name(self, names: list[str]) -> None:
        """A legend below, a line a row; made anew only where there is something new to say."""
        if names == self.names:
            return
        self.names = names
        if self.legend is not None:
            self.legend.remove()
            self.legend = None
        if len(names) < 2:
            return
        self.legend = self.figure.legend(
            self.lines[: len(names)], [f" {text(name, 60)}" for name in names],
            loc="lower left", frameon=False, prop={"size": SMALL, "family": families()},
            handlelength=1.6, labelspacing=0.3, borderaxespad=0.2,
        )  # fmt: skip

    def png(self) -> bytes:
        """As it stands, in half the time that ``savefig`` takes, which draws everything twice."""
        canvas = FigureCanvasAgg(self.figure)
        with own_style():
            canvas.draw()
        buffer = io.BytesIO()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        Image.fromarray(drawn).save(buffer, format="PNG", compress_level=4)
        return buffer.getvalue()
