"""Options that several commands share, and the table's problem made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from downslope.problem import Problem

Table = Annotated[str, typer.Argument(help="A CSV or Parquet file.")]
Target = Annotated[str, typer.Option(help="The column to predict.")]
Model = Annotated[
    str, typer.Option(help="linear, poly:3, mlp:32,32, mlp:32,32:tanh or file.py:ClassName.")
]
OwnClass = Annotated[
    str | None, typer.Option(help="file.py:ClassName, for a study of your own class.")
]
Order = Annotated[str, typer.Option(help="shuffle, cyclic or replacement.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training rows.")]
ClipNorm = Annotated[float | None, typer.Option(help="The longest gradient allowed, for each run.")]
Loss = Annotated[str | None, typer.Option(help="mse, l1, huber, smooth_l1, bce or cross_entropy.")]
Task = Annotated[str | None, typer.Option(help="regression or classification.")]
Missing = Annotated[str, typer.Option(help="Missing values: mean, drop or error.")]
SplitSeed = Annotated[int, typer.Option(help="Fixes which rows are kept apart.")]
Engine = Annotated[str, typer.Option(help="auto, fused, stacked or looped.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, nothing else.")]


def command_of(context: typer.Context) -> list[str]:
    """The words of the command that was given, options after arguments: what is at its default
    is left out."""
    arguments, given = [], []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in ("as_json", "live"):
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        elif isinstance(value, bool):
            given.append(parameter.opts[0])
        else:
            several = value if isinstance(value, list | tuple) else [value]
            for one in several:
                given += _option(parameter.opts[0], str(one))
    return ["downslope", context.info_name or "", *arguments, *given]


def _option(name: str, value: str) -> list[str]:
    """An option and its value; a value that looks like an option is tied to its name."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def table_problem(
    table: str,
    target: str,
    model: str,
    *,
    loss: str | None,
    task: str | None,
    missing: str,
    validation: float,
    test: float,
    split_seed: int,
) -> Problem:
    """The problem that a command's table and options make; wrong values name their option."""
    from downslope import cli_values
    from downslope.problem import Problem

    return Problem.from_table(
        table,
        target,
        model,
        loss=loss,
        task=cli_values.choice("task", task, ("regression", "classification")),
        missing=cli_values.choice("missing", missing, ("mean", "drop", "error")),
        validation=validation,
        test=test,
        split_seed=split_seed,
    )
