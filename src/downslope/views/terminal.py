"""Reports for the command line: plain data in, text out, right in 80 columns and in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from downslope.ranking import Diverged, Ranked
from downslope.tables import shown
from downslope.views.cells import print_item

Units = Callable[[float], float]


def console() -> Console:
    """Where reports go: colours on a terminal alone, 80 columns in a pipe."""
    return Console(highlight=False, soft_wrap=False)


def number(value: float) -> str:
    """Four digits, in the shortest form that people read at once."""
    return f"{value:.4g}"


def print_lines(lines: Sequence[str], out: Console, indent: str = "  ") -> None:
    """Lines as they are: nothing in them is taken as markup."""
    for line in lines:
        out.print(Text(indent + line), overflow="fold")


def print_table(table: Table, out: Console) -> None:
    """A table, its headings broken into lines if it is too wide; where that does not suffice, each
    row as a paragraph: nothing is left out."""
    heads = [str(column.header) for column in table.columns]
    if _width(table, out) > out.width:
        for column, head in zip(table.columns, heads, strict=True):
            least = max(map(cell_len, [*map(str, column.cells), *head.split(), " "]))
            column.header = "\n".join(wrap(head, least, break_long_words=False))
    if _width(table, out) <= out.width:
        out.print(table)
        return
    for row in zip(*(column.cells for column in table.columns), strict=True):
        named = zip(heads, map(str, row), strict=True)
        said = [f"{head} {cell}".strip() for head, cell in named if cell]
        print_item(", ".join(said), out, mark="- ")


def _width(table: Table, out: Console) -> int:
    """The cells that a table takes where no line of it is broken."""
    return Measurement.get(out, out.options.update(width=10_000), table).maximum


def print_ranking(
    ranked: Sequence[Ranked], out: Console, *, title: str, measure: str, units: Units
) -> None:
    """A table of settings: median, smallest and largest over seeds, and how many diverged."""
    out.print(Text(title, style="bold"))
    names = [n for n in dict.fromkeys(k for r in ranked for k in r.settings)]
    table = Table(box=None, pad_edge=False, header_style="underline")
    for name in names:
        table.add_column(Text(name), justify="left" if name == "optimizer" else "right")
    table.add_column(f"median {measure}", justify="right")
    table.add_column("over seeds", justify="right")
    table.add_column("diverged", justify="right")
    table.add_column("best run", justify="right")
    for one in ranked:
        cells = [_setting(one.settings.get(name)) for name in names]
        low, high = number(units(one.low)), number(units(one.high))
        spread = f"{low} – {high}" if one.seeds > 1 else "one seed"
        every = one.diverged == one.seeds
        table.add_row(
            *map(Text, cells),
            "–" if every else number(units(one.loss)),
            "–" if every else spread,
            f"{one.diverged} of {one.seeds}" if one.diverged else "none",
            f"{one.best_run}",
        )
    print_table(table, out)


def _setting(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "none" if value == inf else number(value)  # a clip norm that cuts nothing
    if isinstance(value, list):
        return f"({', '.join(map(_setting, value))})"
    return shown(str(value))


def diverged_lines(diverged: Sequence[Diverged]) -> list[str]:
    """A sentence an optimizer: how many runs diverged, and at which rates."""
    lines = []
    for one in diverged:
        if not one.runs:
            lines.append(f"{one.optimizer}: none of {one.of} runs diverged")
            continue
        line = f"{one.optimizer}: {one.runs} of {one.of} runs diverged"
        if one.lowest_lr is not None and one.highest_lr is not None:
            low, high = number(one.lowest_lr), number(one.highest_lr)
            several = one.highest_lr > one.lowest_lr
            line += f", at rates {low} to {high}" if several else f", at rate {low}"
            line += (
                f" (none up to {number(one.stable_lr)})"
                if one.stable_lr is not None and one.stable_lr < one.lowest_lr
                else ""
            )
        lines.append(line)
    return lines


def print_scores(
    columns: dict[str, dict[str, float]], out: Console, *, title: str, words: dict[str, str]
) -> None:
    """Scores side by side, a row a score."""
    out.print(Text(title, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="underline")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for key, word in words.items():
        table.add_row(Text(word), *(number(scores[key]) for scores in columns.values()))
    print_table(table, out)


def print_finding(title: str, sentence: str, confidence: str, out: Console) -> None:
    """A finding: of which run, how sure it is, and its sentences, wrapped to the width."""
    out.print(Text(f"{title} ({confidence})", style="bold"))
    lines = Text(sentence).wrap(out, max(out.width - 2, 20))
    print_lines([line.plain.rstrip() for line in lines], out)


def print_files(files: Sequence[Path], out: Console) -> None:
    """What was written."""
    out.print(Text("Written", style="bold"))
    print_lines([str(file) for file in files], out)
