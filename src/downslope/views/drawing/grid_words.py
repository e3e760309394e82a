"""What is written into the cells of a map: numbers, verdicts, and how many runs diverged."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patheffects import withStroke

from downslope.views.data.grids import OutcomeMap
from downslope.views.drawing.style import BLACK, SMALL, WIDTH

SYMBOLS = {
    "converged": "✓",
    "converging": "↓",
    "creeping": "›",
    "ringing": "~",
    "cycling": "○",
    "noise-floor": "≈",
    "edge-of-stability": "∧",
    "catapult": "↷",
    "plateau": "–",
    "stuck": "■",
    "diverged": "×",
    "unknown": "?",
}
"""What stands for a verdict in a cell."""

LONGEST = 18
"""Letters of a word at a cell."""

_LOW = 8
"""Rows of cells beyond which three lines do not fit into one."""

_LETTER = 0.6
"""Width of a letter as a share of its height."""

Side = tuple[np.ndarray, Colormap, Normalize, str]
"""Values (NaN elsewhere), their colours, and what they are."""


def some_diverged(data: OutcomeMap) -> np.ndarray:
    """Cells of which some runs diverged, but so few that the median did not."""
    return np.asarray((data.diverged > 0) & np.isfinite(data.values) & (data.runs > 1))


def write_numbers(axes: Axes, data: OutcomeMap, colours: list[Side]) -> None:
    """The number in each cell, how many of its runs diverged, and its verdict."""
    longest = min(LONGEST, max(map(len, data.y.words)))
    beside = 1.7 + 0.07 * longest  # inches that words and colours take, about
    width = (WIDTH - beside) / len(data.x)
    size = SMALL - 1 if width > 0.45 else SMALL - 2
    letters = max(3, int(72 * width / (_LETTER * size)) - 1)  # one for room between neighbours
    for (row, column), value in np.ndenumerate(data.values):
        lines = [_short(float(value), letters)] if np.isfinite(value) else []
        if some_diverged(data)[row, column]:
            lines.append(f"{data.diverged[row, column]}×")
        if data.verdicts is not None and data.runs[row, column]:
            symbol = SYMBOLS[data.verdicts[row][column]]
            if len(lines) == 2 and len(data.y) > _LOW:
                lines[1] += f" {symbol}"
            else:
                lines.append(symbol)
        dark = np.isfinite(value) and _is_dark(row, column, colours)
        axes.text(
            float(data.x.centres[column]), float(data.y.centres[row]), "\n".join(lines),
            ha="center", va="center", fontsize=size, color="#FFFFFF" if dark else BLACK, zorder=3,
        )  # fmt: skip


def write_verdicts(axes: Axes, data: OutcomeMap) -> None:
    """A symbol in each cell of a map whose cells are too small for numbers."""
    assert data.verdicts is not None
    size = SMALL if len(data.x) <= 24 else SMALL - 2
    for row, words in enumerate(data.verdicts):
        for column, verdict in enumerate(words):
            if verdict:
                axes.text(
                    float(data.x.centres[column]), float(data.y.centres[row]), SYMBOLS[verdict],
                    ha="center", va="center", fontsize=size, color=BLACK, zorder=3,
                    path_effects=[withStroke(linewidth=1.5, foreground="#FFFFFF")],
                )  # fmt: skip


def _is_dark(row: int, column: int, colours: list[Side]) -> bool:
    for values, shades, norm, _ in colours:
        if np.isfinite(values[row, column]):
            red, green, blue, _ = shades(norm(values[row, column]))
            return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)
    return False


def _short(value: float, letters: int) -> str:
    """A number in so many letters at most, if that can be.

    >>> _short(0.012345, 6), _short(1.6e-7, 4), _short(0.00012, 5)
    ('0.0123', '2e-7', '1e-4')
    """
    made = [_plain(f"{value:{form}}") for form in (".3g", ".2g", ".1g", ".0e")]
    fitting = [one for one in made if len(one) <= letters]
    return fitting[0] if fitting else min(made, key=len)


def _plain(number: str) -> str:
    return number.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
