"""A comparison on the terminal: right in 80 columns and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from math import isfinite
from typing import Any

import polars as pl
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from downslope.tables import shown
from downslope.views.cells import cut, fitted, print_item
from downslope.views.comparison_curves import LEGEND, WIDEST, rate_curves

WIDTH = 80


NARROWEST = 78
"""Where there is less room, a row of the table becomes lines of its own."""


def print_comparison(
    table: pl.DataFrame,
    sensitivity: pl.DataFrame,
    expected_best: pl.DataFrame,
    sentences: Sequence[str],
    notes: Sequence[str],
    conditions: Sequence[str],
    out: Console,
) -> None:
    """The table and the rate curves, then what may be said of them and under which terms.

    Args:
        table, sensitivity, expected_best: as `Comparison` has them.
    """
    wide = out.width >= NARROWEST
    if wide:
        out.print(_columns(header=True))
    for part in table.partition_by("problem", maintain_order=True):
        out.print(Text(cut(part["problem"][0], out.width), style="bold"))
        rows = part.sort("place", "median", maintain_order=True).to_dicts()
        digits = _digits([row["median"] for row in rows])
        printed = _columns(header=False)
        for row in rows:
            cells = _cells(row, digits)
            if wide:
                width = HEADINGS[0][1]
                if max(map(cell_len, cells[0].split())) > width - 2:
                    # the place stays beside a word that is folded
                    cells[0] = "\n".join(chop_cells(cells[0], width))
                printed.add_row(*(Text(cell) for cell in cells))
                continue
            print_item(cells[0], out)
            pairs = zip(HEADINGS[1:], cells[1:], strict=True)
            print_item("; ".join(f"{what} {cell}" for (what, _), cell in pairs), out, "    ")
        if wide:
            out.print(printed)
        for row in rows:
            if row["chosen"] is not None:
                print_item(f"chosen for {shown(row['optimizer'])}: {row['chosen']}", out, "  ")
    ns = sorted({*table["n"].to_list()})
    coverage = [c for c in table["coverage"].to_list() if c == c]
    sure = f"bounds of the median, {min(coverage):.1%} sure; " if coverage else ""
    print_item("in front: 1, and 1 for each optimizer that is surely lower there; "
               f"median: final loss over n = {', '.join(map(str, ns))} fresh seeds; {sure}"
               "quartiles: the spread of the runs; steps: median updates to the target; "
               "∞: diverged", out)  # fmt: skip
    _print_curves(sensitivity, out)
    _print_budgets(expected_best, out)
    for title, items in (("Summary", sentences), ("Notes", notes), ("Conditions", conditions)):
        if items:
            out.print(Text(f"\n{title}", style="bold"))
            for item in items:
                print_item(item, out, "- ")


HEADINGS = (("optimizer", 10), ("lr", 7), ("median", 8), ("95 % of it", 15), ("quartiles", 15),
            ("div.", 5), ("steps", 5), ("default", 7))  # fmt: skip


def _cells(row: dict[str, Any], digits: int) -> list[str]:
    return [
        f"{row['place'] or '–'} {shown(row['optimizer'])}",
        "–" if row["lr"] is None else f"{row['lr']:.2g}",
        _loss(row["median"], digits),
        _range(row["low"], row["high"]),
        _range(row["lower_quartile"], row["upper_quartile"]),
        f"{row['diverged']}/{row['n']}",
        "never" if row["steps_to_target"] is None else f"{row['steps_to_target']}",
        _loss(row["default_median"]),
    ]


def _digits(medians: Sequence[float]) -> int:
    """How many digits tell medians apart that are not the same: 3, or more if there is room."""
    for digits in (3, 4, 5):
        said = [_loss(one, digits) for one in medians]
        if digits > 3 and max(map(len, said)) > dict(HEADINGS)["median"]:
            return digits - 1
        if len({*said}) == len({*medians}):
            return digits
    return 5


def _print_curves(sensitivity: pl.DataFrame, out: Console) -> None:
    label = 16 if out.width >= NARROWEST else 10
    curves = rate_curves(sensitivity, min(WIDEST, out.width - label - 16))
    if not curves:
        return
    out.print(Text("\nRate curves", style="bold"))
    for problem, lines in curves:
        out.print(Text(cut(problem, out.width), style="bold"))
        for optimizer, low, line, high in lines:
            name = fitted(optimizer, label)
            out.print(Text(f"{name} {low:6.1g} {line} {high:.1g}"))
    print_item(LEGEND, out)


def _print_budgets(expected_best: pl.DataFrame, out: Console) -> None:
    """The best of fewer trials: a line a problem and optimizer, a column a number of trials."""
    most = expected_best["trials"].max()
    assert isinstance(most, int)
    label, width = (16, 9) if out.width >= NARROWEST else (10, 8)
    counts = [2**k for k in range(most.bit_length()) if 2**k < most] + [most]
    counts = counts[-((out.width - label) // width) :]
    out.print(Text("\nExpected best against budget", style="bold"))
    out.print(Text(f"{'trials':{label}}" + "".join(f"{k:>{width}}" for k in counts)))
    for part in expected_best.partition_by("problem", maintain_order=True):
        out.print(Text(cut(part["problem"][0], out.width), style="bold"))
        for mine in part.partition_by("optimizer", maintain_order=True):
            found = dict(mine.select("trials", "median").iter_rows())
            line = "".join(f"{_loss(found[k]):>{width}}" for k in counts)
            out.print(Text(fitted(mine["optimizer"][0], label) + line))
    print_item("the median, over all choices of so many of the trials, of the lowest loss on the "
               "tuning seeds: what that budget would have found; ∞: diverged", out)  # fmt: skip


def _columns(header: bool) -> Table:
    """An empty table whose columns are as wide in every problem's."""
    columns = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header, header_style="underline"
    )
    (first, width), *others = HEADINGS
    columns.add_column(first, width=width, overflow="fold")
    for heading, width in others:
        columns.add_column(heading, width=width, justify="right", overflow="fold")
    return columns


def as_text(
    table: pl.DataFrame,
    sensitivity: pl.DataFrame,
    expected_best: pl.DataFrame,
    sentences: Sequence[str],
    notes: Sequence[str],
    conditions: Sequence[str],
) -> str:
    """The same as plain text of 80 columns."""
    written = StringIO()
    out = Console(file=written, width=WIDTH, color_system=None, highlight=False)
    print_comparison(table, sensitivity, expected_best, sentences, notes, conditions, out)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _loss(value: float | None, digits: int = 2) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.{digits}g}" if isfinite(value) else "∞"


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None or low != low:
        return "–"
    for digits in (2, 3, 4, 5):
        first, last = _loss(low, digits), _loss(high, digits)
        if first != last and len(first) + len(last) < 15:
            return f"{first}…{last}"
    return _loss(low, 4)
