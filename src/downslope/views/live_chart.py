"""Loss curves as text: lines of Braille dots, four to a row and two to a column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from downslope.views.cells import cut, fitted
from downslope.views.data.live import Live, LiveLine

LEAST_WIDTH, LEAST_HEIGHT = 24, 4
"""Cells below which there is no room for a chart."""

_LABEL = 8
_BRAILLE = 0x2800
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot in a Braille cell, (row, column)."""

Bits = NDArray[np.int64]


def loss_chart(data: Live, width: int, height: int) -> str:
    """Losses against steps, a letter where each line ends.

    Args:
        width, height: cells of the terminal that it may take; where they are too few, there is no
            chart, and the names alone are left.
    """
    letters = [chr(ord("a") + place) for place in range(len(data.lines))]
    names = [
        cut(f"{letter} {line.label}{_last(line)}", width)
        for letter, line in zip(letters, data.lines, strict=True)
    ]
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return "\n".join(names)
    columns = width - _LABEL - 2
    cells = np.zeros((height, columns), dtype=np.int64)
    ends = {}
    for letter, line in zip(letters, data.lines, strict=True):
        x, y = _dots(data, line, cells.shape)
        _draw(cells, x, y)
        if len(x):
            row, column = int(y[-1]) // 4, min(int(x[-1]) // 2 + 1, columns - 1)
            while (row, column) in ends and column:
                column -= 1  # beside the letter of a line that ends at the same place
            ends[(row, column)] = letter
    rows = []
    for row in range(height):
        drawn = [chr(_BRAILLE + bits) if bits else " " for bits in cells[row]]
        for (there, column), letter in ends.items():
            if there == row:
                drawn[column] = letter
        rows.append(f"{_tick(data, row, height):>{_LABEL}} │{''.join(drawn)}".rstrip())
    last = f"{data.until:,.0f} steps"
    axis = "0" + fitted("", columns - 1 - cell_len(last)) + last
    return "\n".join([*rows, f"{'':{_LABEL}} └{'─' * columns}", f"{'':{_LABEL}}  {axis}", *names])


def _last(line: LiveLine) -> str:
    if line.diverged:
        return ": diverged"
    return f": {line.losses[-1]:.4g}" if len(line.losses) else ": not begun"


def _tick(data: Live, row: int, height: int) -> str:
    """The loss at the middle of a row, for the first, the middle and the last."""
    if row not in (0, height // 2, height - 1):
        return ""
    low, high = np.log10(data.limits) if data.log else data.limits
    value = high - (high - low) * (row + 0.5) / height
    return f"{10**value if data.log else value:.2g}"


def _dots(data: Live, line: LiveLine, shape: tuple[int, ...]) -> tuple[Bits, Bits]:
    """Where a line's records are, in dots from the upper left."""
    height, width = 4 * shape[0], 2 * shape[1]
    losses = np.clip(line.losses, *data.limits)
    low, high = np.log10(data.limits) if data.log else data.limits
    heights = (high - (np.log10(losses) if data.log else losses)) / (high - low)
    x = np.round(line.steps / max(data.until, 1.0) * (width - 1)).astype(np.int64)
    y = np.round(heights * (height - 1)).astype(np.int64)
    return np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)


def _draw(cells: Bits, x: Bits, y: Bits) -> None:
    """Straight lines between neighbours, dot by dot."""
    parts: list[tuple[Sequence[int] | Bits, Sequence[int] | Bits]] = [(x, y)]
    for k in np.flatnonzero((np.abs(np.diff(x)) > 1) | (np.abs(np.diff(y)) > 1)):
        count = int(max(abs(x[k + 1] - x[k]), abs(y[k + 1] - y[k]))) + 1
        at = [np.round(np.linspace(v[k], v[k + 1], count)).astype(np.int64) for v in (x, y)]
        parts.append((at[0], at[1]))
    for across, down in parts:
        right, low = np.asarray(across), np.asarray(down)
        np.bitwise_or.at(cells, (low // 4, right // 2), _DOTS[low % 4, right % 2])
