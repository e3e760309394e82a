"""The live view of a terminal: the loss curves so far as a chart in text, and how far they are."""

from __future__ import annotations

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from downslope.views.cells import cut, shortened
from downslope.views.charts import MARKS, Axis, Floats, Line, chart, in_ascii, takes_ascii_alone
from downslope.views.data.live import Live, LiveLine

LEAST_WIDTH, LEAST_HEIGHT = 40, 4
"""Cells below which a moving chart cannot be read: the names are told alone."""

_TALLEST = 14
_AROUND = 3
"""Rows of a chart that are not its height: its title, its axis, and the numbers below it."""


def live_rows(data: Live, out: Console) -> list[Text]:
    """What a terminal shows of a moment, in its present size and letters.

    The words, the losses against the steps, and each line's name with its last loss; the words
    alone where no line has begun. Where the
    terminal is narrow or low, the words and the names; where it is lower still, the words.
    """
    width, tall = out.width - 1, out.height
    rows = [Text(line) for line in _folded(data.words, width)]
    names = [_name(line, width - 6) for line in data.lines]
    below = len(names) if len(names) > 1 else 0  # a single one stands in the title
    height = min(tall - 1 - len(rows) - _AROUND - below, _TALLEST)
    plain = takes_ascii_alone(out.encoding)
    if data.lines and width >= LEAST_WIDTH and height >= LEAST_HEIGHT:
        rows += _chart(data, names, width, height, plain)
    elif tall > len(rows) + len(names):
        marked = names if len(names) < 2 else [f"{MARKS[k]} {name}" for k, name in enumerate(names)]
        rows += [Text(cut(f"  {name}", max(width, 1))) for name in marked]
    else:
        rows = [Text(cut(data.words, max(width, 1)))]
    return [in_ascii(row) for row in rows] if plain else rows


def _chart(data: Live, names: list[str], width: int, height: int, plain: bool) -> list[Text]:
    lines = [
        Line(name, line.steps, line.losses, ends=_cross(line))
        for name, line in zip(names, data.lines, strict=True)
    ]
    x = Axis(0.0, max(data.until, 1.0), False, "step")
    said = f"Loss, {names[0]}" if len(names) == 1 else "Loss"
    y = Axis(*data.limits, data.log, said)
    return chart(lines, x, y, width=width, height=height, plain=plain)


def _cross(line: LiveLine) -> Floats:
    """Where it diverged, (1, 2) or none."""
    there = line.diverged and len(line.losses) > 0
    return np.column_stack([line.steps, line.losses])[-1:] if there else np.empty((0, 2))


def _name(line: LiveLine, width: int) -> str:
    """A line's name with its last loss, which stays however little room there is."""
    last = ": not begun"
    if line.diverged:
        last = ": diverged"
    elif len(line.losses):
        last = f": {line.losses[-1]:.4g}"
    return shortened(line.label, max(width - cell_len(last), 1)) + last


def _folded(words: str, width: int) -> list[str]:
    """Broken at commas where the terminal is narrow."""
    lines = [""]
    for part in words.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if cell_len(longer) < width or not lines[-1]:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(part)
    return [cut(line, max(width, 1)) for line in lines]
