"""``downslope compare``: parse, call, print. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from downslope import cli_options as options
from downslope.errors import InputError

FAILED = 1

EPILOG = "Example: downslope compare --optimizer sgd,adam --problem rosenbrock --problem wine"
"""To be given to the app along with the command."""

FRAMES = ("table", "results", "targets", "profiles", "wins", "expected_best", "sensitivity",
          "failures")  # fmt: skip


def compare(
    problem: Annotated[
        list[str] | None,
        typer.Option(help="A problem of the collection; repeatable. [10 fast ones]"),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="A CSV or Parquet file, in place of or beside problems.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The table's column to predict.")] = None,
    model: Annotated[
        str, typer.Option(help="For the table: linear, poly:3, mlp:32,32 or mlp:32,32:tanh.")
    ] = "mlp:16",
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            help="Classes of torch.optim, momentum or nesterov, with commas; repeatable. "
            "[sgd,momentum,adam,rmsprop]"
        ),
    ] = None,
    lr: Annotated[
        str | None, typer.Option(help="Rates to search, LOW:HIGH. [each optimizer's own range]")
    ] = None,
    budget: Annotated[int, typer.Option(help="Trials for each optimizer and problem.")] = 32,
    seeds: Annotated[int, typer.Option(help="Fresh seeds to report, at least 10.")] = 10,
    tuning_seeds: Annotated[int, typer.Option(help="Seeds to choose the setting on.")] = 3,
    search_seed: Annotated[int, typer.Option(help="Fixes the draws of the search.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Updates of every run. [each problem's own; tables: epochs]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the rows, in place of steps. [tables: 100]")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="full, or a number. [each problem's own; tables: 32]")
    ] = None,
    clip_norm: options.ClipNorm = None,
    baseline: Annotated[
        str | None, typer.Option(help="The optimizer that fixes the targets. [the first]")
    ] = None,
    engine: options.Engine = "auto",
    list_: Annotated[
        bool, typer.Option("--list", help="List the problems of the collection, and stop.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare optimizers: equal budgets, fresh seeds, failures counted."""
    if list_:
        _list(as_json)
        return
    from downslope.comparison import compare as carry_out
    from downslope.search_spaces import space_of
    from downslope.views import comparison_tables, terminal

    if (table is None) != (target is None):
        raise InputError("--table and --target go together: a file, and its column to predict")
    names = [n for given in (optimizer or ["sgd,momentum,adam,rmsprop"]) for n in given.split(",")]
    rates = {} if lr is None else {"lr": _rates(lr)}
    spaces = [space_of(name, **rates) for name in names if name.strip()]
    only_table = table is not None and not problem
    if table is not None and problem and steps is None and epochs is None:
        raise InputError("give --steps or --epochs: a table has no length of its own")
    found = carry_out(
        _problems(problem, table, target, model),
        spaces,
        steps=steps,
        epochs=100 if only_table and steps is None and epochs is None else epochs,
        budget=budget,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        search_seed=search_seed,
        baseline=baseline,
        batch_size=_batch_size(batch_size, only_table),
        clip_norm=clip_norm,
        engine=engine,
        progress=not as_json,
    )
    if as_json:
        from downslope.fit_report import plain

        frames = {name: getattr(found, name).to_dicts() for name in FRAMES}
        said = {name: list(getattr(found, name)) for name in ("sentences", "notes", "conditions")}
        print(json.dumps(plain({**said, **frames}), indent=1))
    else:
        comparison_tables.print_comparison(
            found.table,
            found.sensitivity,
            found.expected_best,
            found.sentences,
            found.notes,
            found.conditions,
            terminal.console(),
        )
    if found.results["final_loss"].null_count() == found.results.height:
        sys.exit(FAILED)


def _list(as_json: bool) -> None:
    from downslope.problems import DEFAULT, ENTRIES

    if as_json:
        about = {
            name: {
                "about": entry.about,
                "source": entry.source,
                "optimum": entry.optimum,
                "steps": entry.steps,
                "batch_size": entry.batch_size,
                "default": name in DEFAULT,
            }
            for name, entry in ENTRIES.items()
        }
        print(json.dumps(about, indent=1))
        return
    for name, entry in ENTRIES.items():
        line = f"{'*' if name in DEFAULT else ' '} {name:22}{entry.about}"
        print(fill(line, 80, subsequent_indent=" " * 24, break_on_hyphens=False))
    print("* is compared where no --problem is given")


def _problems(names: list[str] | None, table: str | None, target: str | None, model: str) -> Any:
    """Names, and the table's problem beside or in place of them."""
    from downslope.problem import Problem
    from downslope.problems import DEFAULT

    chosen = names or ([] if table is not None else DEFAULT)
    given: dict[str, Any] = {}
    for name in chosen:
        if name in given:
            raise InputError(f"--problem {name} is given twice")
        given[name] = name
    if table is not None:
        assert target is not None
        given[Path(table).name] = Problem.from_table(table, target, model)
    return given


def _rates(text: str) -> Any:
    from downslope.ranges import Range

    low, _, high = text.partition(":")
    try:
        return Range(float(low), float(high))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--lr takes LOW:HIGH, as 1e-4:1, got {text!r}") from error


def _batch_size(text: str | None, only_table: bool) -> Any:
    if text is None:
        return 32 if only_table else None
    from downslope import cli_values

    return cli_values.batch_size(text)
