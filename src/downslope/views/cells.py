"""Text measured in the terminal's cells, of which a wide character takes two."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from downslope.tables import shown


def fitted(name: str, width: int) -> str:
    """A name made safe to print, in exactly `width` cells: cut with ``…``, or filled with blanks.

    It is for `Text`, in which brackets are no markup, and backslashes are as they are.

    >>> fitted("梯度下降", 5)
    '梯度…'
    """
    safe = shown(name, 4 * max(width, 10)).replace("\\[", "[").replace("\\\\", "\\")
    return set_cell_size(shortened(safe, width), width)


def shortened(text: str, width: int) -> str:
    """Text as it is, cut with ``…`` where it takes more than `width` cells, of 1 at least."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def cut(name: str, width: int) -> str:
    """`fitted` without blanks at the end."""
    return fitted(name, width).rstrip()


def print_item(item: str, out: Console, mark: str = "") -> None:
    """Broken into lines of the console's width, the first under a mark, the others beside it."""
    lines = Text(item).wrap(out, max(out.width - cell_len(mark), 8))
    for place, line in enumerate(lines):
        out.print(Text((" " * cell_len(mark) if place else mark) + line.plain.rstrip()))
