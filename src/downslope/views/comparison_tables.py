"""A comparison on the terminal: right in 80 columns and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from math import isfinite
from textwrap import wrap

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from downslope.tables import shown
from downslope.views.comparison_curves import LEGEND, rate_curves

WIDTH = 80


def print_comparison(
    table: pl.DataFrame,
    sensitivity: pl.DataFrame,
    sentences: Sequence[str],
    notes: Sequence[str],
    conditions: Sequence[str],
    out: Console,
) -> None:
    """The table and the rate curves, then what may be said of them and under which terms.

    Args:
        table, sensitivity: as `Comparison` has them.
    """
    out.print(_columns(header=True))
    for part in table.partition_by("problem", maintain_order=True):
        printed = _columns(header=False)
        for row in part.sort("place", "median", maintain_order=True).to_dicts():
            printed.add_row(
                Text(f"{row['place'] or '–'} {shown(row['optimizer'])}"),
                "–" if row["lr"] is None else f"{row['lr']:.2g}",
                _loss(row["median"], 3),
                _range(row["low"], row["high"]),
                _range(row["lower_quartile"], row["upper_quartile"]),
                f"{row['diverged']}/{row['n']}",
                "never" if row["steps_to_target"] is None else f"{row['steps_to_target']}",
                _loss(row["default_median"]),
            )
        out.print(Text(shown(part["problem"][0]), style="bold"))
        out.print(printed)
    ns = sorted({*table["n"].to_list()})
    coverage = [c for c in table["coverage"].to_list() if c == c]
    sure = f"bounds of the median, {min(coverage):.1%} sure; " if coverage else ""
    _print_items(["in front: 1, and 1 for each optimizer that is surely lower there; "
                  f"median: final loss over n = {', '.join(map(str, ns))} fresh seeds; {sure}"
                  "quartiles: the spread of the runs; steps: median updates to the target; "
                  "∞: diverged"], out, "")  # fmt: skip
    _print_curves(sensitivity, out)
    for title, items in (("Summary", sentences), ("Notes", notes), ("Conditions", conditions)):
        if items:
            out.print(Text(f"\n{title}", style="bold"))
            _print_items(items, out, "- ")


def _print_curves(sensitivity: pl.DataFrame, out: Console) -> None:
    curves = rate_curves(sensitivity)
    if not curves:
        return
    out.print(Text("\nRate curves", style="bold"))
    for problem, lines in curves:
        out.print(Text(shown(problem), style="bold"))
        for optimizer, line in lines:
            out.print(Text(f"{shown(optimizer, 16):16} {line}"))
    _print_items([LEGEND], out, "")


def _columns(header: bool) -> Table:
    """An empty table whose columns are as wide in every problem's."""
    columns = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header, header_style="underline"
    )
    columns.add_column("optimizer", width=10, overflow="fold")
    for heading, width in (("lr", 7), ("median", 8), ("95 % of it", 15), ("quartiles", 15),
                           ("div.", 5), ("steps", 5), ("default", 7)):  # fmt: skip
        columns.add_column(heading, width=width, justify="right", overflow="fold")
    return columns


def _print_items(items: Sequence[str], out: Console, mark: str) -> None:
    """Each item broken into lines of the console's width, under its mark."""
    for item in items:
        lines = wrap(
            item,
            width=out.width,
            initial_indent=mark,
            subsequent_indent=" " * len(mark),
            break_on_hyphens=False,
        )
        out.print(Text("\n".join(lines)))


def as_text(
    table: pl.DataFrame,
    sensitivity: pl.DataFrame,
    sentences: Sequence[str],
    notes: Sequence[str],
    conditions: Sequence[str],
) -> str:
    """The same as plain text of 80 columns."""
    written = StringIO()
    out = Console(file=written, width=WIDTH, color_system=None, highlight=False)
    print_comparison(table, sensitivity, sentences, notes, conditions, out)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _loss(value: float | None, digits: int = 2) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.{digits}g}" if isfinite(value) else "∞"


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None or low != low:
        return "–"
    first, last = _loss(low), _loss(high)
    return first if first == last else f"{first}…{last}"
