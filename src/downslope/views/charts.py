"""Small charts in text: right in any width, in a pipe, without colour, and in plain ASCII.

One line is drawn in braille dots, eight to a cell; several lines have a mark each, so that they
are told apart without colour. Colours come on a terminal alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from downslope.views.cells import cut, fitted

Floats = NDArray[np.float64]

MOST_LINES = 6
MARKS = "o+*#@%"
"""A mark a line: ASCII, and one cell wide in every font."""

_COLOURS = ("blue", "yellow", "green", "red", "cyan", "magenta")
_GUTTER = 8
_NARROWEST = 24
_EMPTY = np.empty(0)
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille letter, (4 rows, 2 columns)."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    Attributes:
        x, y: (points,), x rising; NaN in y makes a gap.
        lost: x of what diverged and has no y: crosses in a row of their own, at the top.
        ends: (n, 2), x and y of crosses on the line.
    """

    name: str
    x: Floats
    y: Floats
    lost: Floats = field(default_factory=lambda: _EMPTY)
    ends: Floats = field(default_factory=lambda: np.empty((0, 2)))


@dataclass(frozen=True)
class Axis:
    """Where an axis begins and ends, and what stands beside it."""

    low: float
    high: float
    log: bool
    label: str

    def shares(self, values: Floats) -> Floats:
        """How far along the axis values lie: 0 at its low end, 1 at its high end."""
        ends = np.array([self.low, self.high], dtype=np.float64)
        values = np.asarray(values, dtype=np.float64)
        if self.log:
            ends = np.log10(ends)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(np.isnan(values), np.nan, np.log10(np.maximum(values, 0.0)))
        made: Floats = (values - ends[0]) / (ends[1] - ends[0])
        return np.clip(made, -1e6, 1e6)

    def at(self, share: float) -> float:
        """The value so far along the axis."""
        if self.log:
            return float(self.low ** (1 - share) * self.high**share)
        return float(self.low + share * (self.high - self.low))


def chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    width: int = 80,
    height: int = 9,
    plain: bool = False,
    pointer: float | None = None,
) -> list[Text]:
    r"""A chart as lines of text, each at most `width` cells wide.

    Args:
        lines: `MOST_LINES` at most are drawn, the first ones.
        height: rows between the axes.
        plain: ASCII alone.
        pointer: an x that is marked with ``^`` on the axis.

    >>> line = Line("loss", np.arange(5.0), np.array([16.0, 8.0, 4.0, 2.0, 1.0]))
    >>> drawn = chart([line], Axis(0, 4, False, "step"), Axis(1, 16, True, "Loss"),
    ...               width=30, height=3, plain=True)
    >>> print("\n".join(row.plain for row in drawn))
    Loss
          16 |o o o
           4 |      o o o o o
           1 |                o oo
             +--------------------
              0       step       4
    """
    shown = lines[:MOST_LINES]
    columns = width - _GUTTER - 2
    bar, corner, dash, cross = ("|", "+", "-", "x") if plain else ("│", "└", "─", "×")
    rows = [Text(cut(y.label, width), style="bold")]
    for place, line in enumerate(shown):
        if len(line.lost):
            name = "diverged" if len(shown) == 1 else f"{MARKS[place]} div."
            row = _blank(name, bar, columns)
            for column in set(_columns(x, line.lost, columns).tolist()):
                _put(row, column, cross, place)
            rows.append(row)
    if len(shown) == 1 and not plain:
        grid = _braille(shown[0], x, y, columns, height)
    else:
        grid = [[(" ", 0)] * columns for _ in range(height)]
        for place, line in reversed([*enumerate(shown)]):  # the first line lies on top
            turn = (place, max(len(shown), 2))
            for column, row_of in _cells(line, x, y, columns, height, turn):
                grid[row_of][column] = (MARKS[place], place)
    for place, line in enumerate(shown):
        for (column,), (row_of,) in zip(
            _columns(x, line.ends[:, :1], columns), _rows(y, line.ends[:, 1:], height), strict=True
        ):
            grid[row_of][column] = (cross, place)
    labels = {0: y.at(1.0), height // 2: y.at(1 - (height // 2) / (height - 1)), height - 1: y.low}
    for number, cells in enumerate(grid):
        row = _blank(_number(labels[number]) if number in labels else "", bar, columns)
        for column, (letter, place) in enumerate(cells):
            if letter != " ":
                _put(row, column, letter, place)
        rows.append(row)
    foot = Text(" " * (_GUTTER + 1) + corner + dash * columns)
    if pointer is not None:
        column = int(_columns(x, np.array([pointer]), columns)[0])
        foot = Text(foot.plain[: _GUTTER + 2 + column] + "^" + foot.plain[_GUTTER + 3 + column :])
    rows += [foot, Text(" " * (_GUTTER + 2) + _ends(x, columns))]
    if len(shown) > 1:
        rows += [_named(place, line, width) for place, line in enumerate(shown)]
    for row in rows:
        row.rstrip()
    return rows


def print_chart(
    out: Console, lines: Sequence[Line], x: Axis, y: Axis, height: int = 9, **more: float | None
) -> None:
    """Print a chart as wide as the console, 80 cells at most; plain where its encoding is."""
    width = min(out.width, 80)
    if width < _NARROWEST or not lines:
        return
    plain = takes_ascii_alone(out.encoding)
    for row in chart(lines, x, y, width=width, height=height, plain=plain, **more):
        out.print(in_ascii(row) if plain else row, no_wrap=True, crop=False, overflow="ignore")


def takes_ascii_alone(encoding: str) -> bool:
    """Whether a console of this encoding lacks the letters that charts are drawn in."""
    try:
        "⣿×│└─…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def in_ascii(row: Text) -> Text:
    """The row with a question mark for each letter that is not ASCII."""
    row.plain = row.plain.replace("…", "~").encode("ascii", "replace").decode("ascii")
    return row


def _columns(x: Axis, values: Floats, columns: int) -> NDArray[np.int64]:
    made = np.round(x.shares(values) * (columns - 1)).astype(np.int64)
    return np.clip(made, 0, columns - 1)


def _rows(y: Axis, values: Floats, height: int) -> NDArray[np.int64]:
    made = np.round((1 - y.shares(values)) * (height - 1)).astype(np.int64)
    return np.clip(made, 0, height - 1)


def _heights(line: Line, x: Axis, y: Axis, columns: int) -> Floats:
    """How high the line is in each column, as a share; NaN where it is not."""
    there = np.isfinite(line.y)
    at, up = x.shares(line.x) * (columns - 1), y.shares(line.y)
    made = np.full(columns, np.nan)
    for stretch in np.split(np.arange(len(at)), np.flatnonzero(~there)):
        own = stretch[there[stretch]]
        if not len(own):
            continue
        first, last = np.round(at[own[[0, -1]]]).astype(int)
        inside = np.arange(max(first, 0), min(last, columns - 1) + 1)
        made[inside] = np.interp(inside, at[own], up[own])
    below = (made < -0.001) & (not y.log)  # 0 stands at the foot of a logarithmic axis
    return np.where((made > 1.001) | below, np.nan, made)  # outside the picture


def _cells(
    line: Line, x: Axis, y: Axis, columns: int, height: int, turn: tuple[int, int]
) -> list[tuple[int, int]]:
    """Columns and rows of a line's marks: each line has its own columns (the first of `turn`
    modulo the second), so that lines on top of each other can both be seen."""
    up = _heights(line, x, y, columns)
    there = np.flatnonzero(np.isfinite(up))
    mine = there[(there % turn[1] == turn[0]) | np.isin(there, there[[0, -1]] if len(there) else 0)]
    rows = np.clip(np.round((1 - up[mine]) * (height - 1)), 0, height - 1).astype(int)
    return list(zip(mine.tolist(), rows.tolist(), strict=True))


def _braille(
    line: Line, x: Axis, y: Axis, columns: int, height: int
) -> list[list[tuple[str, int]]]:
    up = _heights(line, x, y, 2 * columns)
    bits = np.zeros((height, columns), dtype=np.int64)
    rows = np.clip(np.round((1 - up) * (4 * height - 1)), 0, 4 * height - 1)
    before = np.nan
    for column, row in enumerate(rows):
        if row == row:
            start = row if before != before else before + np.sign(row - before) * (row != before)
            for dot in range(int(min(start, row)), int(max(start, row)) + 1):
                bits[dot // 4, column // 2] |= _DOTS[dot % 4, column % 2]
        before = row
    return [[(chr(0x2800 + b) if b else " ", 0) for b in row.tolist()] for row in bits]


def _blank(label: str, bar: str, columns: int) -> Text:
    return Text(f"{label:>{_GUTTER}} {bar}" + " " * columns)


def _put(row: Text, column: int, letter: str, place: int) -> None:
    at = _GUTTER + 2 + column
    row.plain = row.plain[:at] + letter + row.plain[at + 1 :]
    row.stylize(_COLOURS[place], at, at + 1)


def _number(value: float) -> str:
    if abs(value) < 1e6 and value == round(value):
        return f"{value + 0:,.0f}"
    return f"{value:.3g}" if len(f"{value:.3g}") <= _GUTTER else f"{value:.0e}"


def _ends(x: Axis, columns: int) -> str:
    low, high = _number(x.low), _number(x.high)
    room = columns - len(low) - len(high) - 2
    label = cut(x.label, room) if room > 3 else ""
    left = (columns - cell_len(label)) // 2 - len(low)
    left = min(max(left, 1), columns - len(low) - len(high) - cell_len(label) - 1)
    rest = columns - len(low) - left - cell_len(label) - len(high)
    return low + " " * left + label + " " * max(rest, 1) + high


def _named(place: int, line: Line, width: int) -> Text:
    """A line's mark and name."""
    made = Text(f"  {MARKS[place]} {fitted(line.name, width - 4).rstrip()}")
    made.stylize(_COLOURS[place], 2, 3)
    return made
