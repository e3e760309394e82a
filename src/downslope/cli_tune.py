"""`downslope tune`: the rate finder on a table. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from downslope import cli_options as options
from downslope.errors import InputError

if TYPE_CHECKING:
    from downslope.tuning import Tuning

NO_RATE = 1
"""The exit status where no stable rate was found."""

ROWS = 16
"""Rows of the curve that are printed."""

EPILOG = "Example: downslope tune houses.csv --target price --model mlp:32 --optimizer Adam"


def tune(
    table: options.Table,
    target: options.Target,
    model: options.Model = "linear",
    optimizer: Annotated[str, typer.Option(help="A class of torch.optim.")] = "Adam",
    lr: Annotated[
        str, typer.Option(help="auto, a range LOW:HIGH, or values with commas.")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Other hyperparameters: a value, several with commas (all tried), or a range "
            "LOW:HIGH (searched; in steps of a factor if LOW is above 0); repeatable.",
        ),
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="full, a number, or several with commas (all tried).")
    ] = "32",
    order: options.Order = "shuffle",
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds. [as many as the engine affords]")
    ] = None,
    epochs: options.Epochs = 100,
    clip_norm: options.ClipNorm = None,
    loss: options.Loss = None,
    task: options.Task = None,
    missing: options.Missing = "mean",
    split_seed: options.SplitSeed = 0,
    validation: Annotated[float, typer.Option(help="Share of rows that judges the rates.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of rows that is not touched.")] = 0.2,
    engine: options.Engine = "auto",
    as_json: options.Json = False,
) -> None:
    """Find the learning rate for a table: by whole trainings, with several seeds."""
    from downslope import cli_values
    from downslope.tuning import tune as find

    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")
    sizes = [cli_values.batch_size(part) for part in batch_size.split(",")]
    searched = cli_values.searched(set_ or [])
    if clip_norm is not None:
        searched["clip_norm"] = clip_norm
    rates = cli_values.rates(lr)
    problem = options.table_problem(
        table,
        target,
        model,
        loss=loss,
        task=task,
        missing=missing,
        validation=validation,
        test=test,
        split_seed=split_seed,
    )
    found = find(
        problem,
        optimizer.strip(),
        lr=rates,
        seed=None if seeds is None else range(seeds),
        engine=engine,
        progress=not as_json,
        epochs=epochs,
        batch_size=sizes if len(sizes) > 1 else sizes[0],
        order=order,
        **searched,
    )
    if as_json:
        print(json.dumps(as_plain(found), indent=1))
    else:
        for note in problem.notes:
            print(f"note: {note}")
        print_tuning(found)
    if found.score is None:
        sys.exit(NO_RATE)


def as_plain(found: Tuning) -> dict[str, Any]:
    """The result for programs."""
    from downslope.fit_report import plain

    made: dict[str, Any] = plain(
        {
            "optimizer": found.optimizer.__name__,
            "lr": found.lr,
            "settings": dict(found.settings),
            "score": found.score,
            "stable": found.stable and list(found.stable),
            "first_unstable": found.first_unstable,
            "flatness": found.flatness and list(found.flatness),
            "flatness_factor": found.flatness_factor,
            "runs": len(found.runs),
            "seeds": found.seeds,
            "notes": list(found.notes),
            "curve": found.curve.to_dicts(),
        }
    )
    return made


def print_tuning(found: Tuning) -> None:
    """The result for people: what to take, the curve, and what must be known."""
    from rich.table import Table
    from rich.text import Text

    from downslope.views import run_charts, terminal

    out = terminal.console()
    lines = found.summary.splitlines()
    results = len(lines) - len(found.notes)
    terminal.print_lines(lines[:results], out, indent="")
    if "lr" in found.searched:
        measure = "loss" if found.runs.validation_loss is None else "validation loss"
        rows = Table(box=None, pad_edge=False, header_style="underline")
        for name in ("lr", f"median {measure}", "over seeds", "diverged"):
            rows.add_column(name, justify="right")
        rows.add_column("")
        for row in thinned(found):
            every = row["diverged"] == row["seeds"]
            spread = f"{terminal.number(row['low'])} – {terminal.number(row['high'])}"
            rows.add_row(
                terminal.number(row["lr"]),
                "–" if every else terminal.number(row["median"]),
                "–" if every else spread,
                f"{row['diverged']} of {row['seeds']}" if row["diverged"] else "none",
                "← take this" if row["lr"] == found.lr else "",
            )
        out.print()
        out.print(Text("Rates and where runs ended (a selection)", style="bold"))
        terminal.print_table(rows, out)
        out.print()
        run_charts.print_curve(found.curve, found.runs, found.lr, out)
    for note in found.notes:
        out.print(Text(f"note: {note}"))


def thinned(found: Tuning) -> list[dict[str, Any]]:
    """Some rows of the curve: evenly over its logarithm, the chosen rate and its edges among them.

    Returns:
        At most `ROWS` and the few that matter most, ascending.
    """
    import numpy as np

    rows = found.curve.to_dicts()
    rates = np.array([row["lr"] for row in rows])
    even = np.geomspace(rates[0], rates[-1], ROWS)
    wanted = [float(rates[np.abs(np.log(rates / rate)).argmin()]) for rate in even]
    ends = [*(found.stable or ()), *(found.flatness or ()), found.first_unstable, found.lr]
    kept = {*wanted, *(end for end in ends if end is not None)}
    return [row for row in rows if row["lr"] in kept]
