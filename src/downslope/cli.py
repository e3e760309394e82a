"""The command line: parse, call, print. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from downslope.errors import DownslopeError, InputError, StudyError, nearest

if TYPE_CHECKING:
    from downslope.grid import Grid
    from downslope.problem import Problem
    from downslope.runs import Runs
    from downslope.tablefit import Fit

app = typer.Typer(
    name="downslope",
    help="The workbench for gradient descent.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

FAILED, WRONG_USE = 1, 2


def main() -> None:
    """Run the command line; a wrong use ends with one sentence and exit status 2."""
    try:
        app()
    except (InputError, StudyError) as error:
        _say(error)
        sys.exit(WRONG_USE)
    except DownslopeError as error:
        _say(error)
        sys.exit(FAILED)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(FAILED)


def _say(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, nothing else.")]


@app.command(
    epilog="Example: downslope fit houses.csv --target price --model mlp:32 --lr 1e-4:1:25"
)
def fit(
    table: Annotated[str, typer.Argument(help="A CSV or Parquet file.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    model: Annotated[
        str, typer.Option(help="linear, poly:3, mlp:32,32, mlp:32,32:tanh or file.py:ClassName.")
    ] = "linear",
    optimizer: Annotated[
        list[str] | None, typer.Option(help="A class of torch.optim; may be repeated. [SGD, Adam]")
    ] = None,
    lr: Annotated[
        str, typer.Option(help="Learning rates: LOW:HIGH:COUNT, or values with commas.")
    ] = "1e-4:1:13",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Other hyperparameters: momentum=0,0.9 or SGD.momentum=0.9; repeatable."
        ),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="full, a number, or several with commas.")] = "32",
    order: Annotated[str, typer.Option(help="shuffle, cyclic or replacement.")] = "shuffle",
    seeds: Annotated[int, typer.Option(help="How many seeds: 0 to this less one.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 100,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many epochs without a better validation.")
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="The longest gradient allowed, for each run.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="mse, l1, huber, smooth_l1, bce or cross_entropy.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="regression or classification.")] = None,
    missing: Annotated[str, typer.Option(help="Missing values: mean, drop or error.")] = "mean",
    split_seed: Annotated[int, typer.Option(help="Fixes which rows are kept apart.")] = 0,
    validation: Annotated[float, typer.Option(help="Share of rows that chooses the run.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of rows touched once, at the end.")] = 0.2,
    engine: Annotated[str, typer.Option(help="auto, looped or stacked.")] = "auto",
    out: Annotated[
        str | None, typer.Option(help="Folder for study, model and figure. [TABLE-study]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Descend a whole family of runs on a table, rank them, and keep the best model."""
    from downslope.problem import Problem
    from downslope.tablefit import fit_table

    names = [n for given in (optimizer or ["SGD,Adam"]) for n in given.split(",")]
    grids = _grids(names, lr, set_ or [])
    problem = Problem.from_table(
        table,
        target,
        model,
        loss=loss,
        task=_choice("task", task, ("regression", "classification")),
        missing=_choice("missing", missing, ("mean", "drop", "error")),
        validation=validation,
        test=test,
        split_seed=split_seed,
    )
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")
    folder = out or f"{Path(table).stem}-study"
    found = fit_table(
        problem,
        grids,
        folder,
        batch_size=[_batch_size(part) for part in batch_size.split(",")],
        order=order,
        seed=range(seeds),
        epochs=epochs,
        patience=patience,
        clip_norm=clip_norm,
        engine=engine,
        progress=not as_json,
    )
    if as_json:
        print(json.dumps(_fit_as_json(found, folder), indent=1))
    else:
        _print_fit(found, table)
    if found.runs.interrupted or not _any_finite(found.runs):
        sys.exit(FAILED)


@app.command(epilog="Example: downslope predict houses-study new.csv --out predictions.csv")
def predict(
    study: Annotated[str, typer.Argument(help="A study written by downslope fit.")],
    table: Annotated[str, typer.Argument(help="New rows: a CSV or Parquet file.")],
    out: Annotated[
        str | None, typer.Option(help="A CSV or Parquet file to write. [standard output]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="file.py:ClassName, for a study of your own class.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict new rows with a study's best model, in the target's own units."""
    from downslope.tablefit import predict_table

    predictions = predict_table(study, table, model)
    name = f"predicted_{predictions.name}"
    frame = predictions.alias(name).to_frame()
    if out is not None:
        _write_table(frame, Path(out))
    if as_json:
        print(json.dumps({name: predictions.to_list()}))
    elif out is None:
        sys.stdout.write(frame.write_csv())
    else:
        print(f"{frame.height} predictions written to {out}")


@app.command(epilog="Example: downslope show houses-study --top 20")
def show(
    study: Annotated[str, typer.Argument(help="A study's folder.")],
    top: Annotated[int, typer.Option(help="How many settings to show.")] = 10,
    as_json: Json = False,
) -> None:
    """Show the ranked runs of a study."""
    from downslope import ranking
    from downslope.study import load
    from downslope.views import terminal

    runs = load(study)
    if as_json:
        print(json.dumps({"runs": _plain(runs.table.to_dicts())}, indent=1))
        return
    out = terminal.console()
    measure = "loss" if runs.validation_loss is None else "validation loss"
    ranked = ranking.rank(runs)
    out.print(f"{runs!r}")
    terminal.print_ranking(
        ranked[:top],
        out,
        title=f"The {min(top, len(ranked))} best of {len(ranked)} settings",
        measure=measure,
        units=lambda value: value,
    )
    terminal.print_lines(terminal.diverged_lines(ranking.divergence(runs)), out, indent="")


@app.command(epilog="Example: downslope gallery line --out pictures")
def gallery(
    name: Annotated[str | None, typer.Argument(help="Which example to run.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for its pictures. [NAME]")] = None,
    as_json: Json = False,
) -> None:
    """List the tutorials, or run one of them."""
    from downslope.gallery import EXAMPLES, run_example

    if name is not None:
        run_example(name, Path(out or name))
    elif as_json:
        print(json.dumps({short: about for short, (_, about) in EXAMPLES.items()}, indent=1))
    else:
        for short, (_, about) in EXAMPLES.items():
            print(f"{short:12}{about}")


def _grids(names: list[str], lr: str, settings: list[str]) -> list[Grid]:
    from downslope.grid import Grid
    from downslope.optimizers import optimizer_by_name

    classes = [optimizer_by_name(name.strip()) for name in names]
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {cls.__name__: {} for cls in classes}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not text:
            raise InputError(f"--set takes NAME=VALUE, got {setting!r}")
        owner, dot, hyperparameter = key.rpartition(".")
        if not dot:
            shared[key] = [_value(part) for part in text.split(",")]
            continue
        by_lower = {known.lower(): known for known in own}
        if owner.lower() not in by_lower:
            raise InputError(
                f"--set {setting}: {owner!r} is not among the optimizers "
                f"{', '.join(own)}{nearest(owner, own)}"
            )
        own[by_lower[owner.lower()]][hyperparameter] = [_value(p) for p in text.split(",")]
    rates = _rates(lr)
    return [Grid(cls, **{"lr": rates, **shared, **own[cls.__name__]}) for cls in classes]


def _rates(text: str) -> list[float]:
    from downslope.grid import log_range

    try:
        if ":" not in text:
            return [float(part) for part in text.split(",") if part.strip()]
        low, high, count = text.split(":")
        return log_range(float(low), float(high), int(count))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--lr takes LOW:HIGH:COUNT (as 1e-4:1:25) or numbers with commas, got {text!r}"
        ) from error


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    if "/" in text:  # a pair, as betas=0.9/0.99
        return tuple(_value(part) for part in text.split("/"))
    try:
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return text.strip()


def _batch_size(text: str) -> Any:
    text = text.strip()
    return text if text == "full" else _value(text)


def _choice(name: str, given: str | None, allowed: tuple[str, ...]) -> Any:
    if given is not None and given not in allowed:
        hint = nearest(given, allowed)
        raise InputError(f"--{name} must be one of {', '.join(allowed)}, got {given!r}{hint}")
    return given


def _write_table(frame: Any, path: Path) -> None:
    from downslope.folder import write_whole

    if path.suffix.lower() in (".parquet", ".pq"):
        write_whole(path, frame.write_parquet)
    else:
        write_whole(path, frame.write_csv)


def _any_finite(runs: Runs) -> bool:
    return any(map(math.isfinite, runs.score.tolist()))


def _units(problem: Problem) -> tuple[str, Any]:
    """What the validation loss is called, and how it is shown in the target's own units."""
    from torch import nn

    assert problem.table is not None
    scale = problem.table.schema.target.scale
    loss = problem.template.loss
    where = "loss" if problem.validation is None else "validation"
    if isinstance(loss, nn.MSELoss):
        return f"{where} RMSE", lambda value: math.sqrt(value) * scale
    if isinstance(loss, nn.L1Loss):
        return f"{where} MAE", lambda value: value * scale
    return f"{where} loss" if where != "loss" else where, lambda value: value


def _print_fit(found: Fit, source: str) -> None:
    from downslope import ranking
    from downslope.tables import shown
    from downslope.views import terminal

    out, problem, runs = terminal.console(), found.problem, found.runs
    assert problem.table is not None and problem.train is not None
    counts = [0 if r is None else len(r) for r in (problem.validation, problem.test)]
    terminal.print_lines(
        [
            shown(Path(source).name, 60),
            f"  {len(problem.train)} rows to train, {counts[0]} to choose the run, "
            f"{counts[1]} to test it",
        ],
        out,
        indent="",
    )
    terminal.print_lines(problem.table.schema.describe(), out)
    terminal.print_lines([f"note: {note}" for note in problem.notes], out, indent="")
    measure, units = _units(problem)
    ranked = ranking.rank(runs)
    engines = ", ".join(runs.settings["engine"].unique(maintain_order=True))
    out.print(f"\n{len(runs)} runs ({engines})")
    terminal.print_ranking(
        ranking.best_per_optimizer(ranked),
        out,
        title="Best setting of each optimizer",
        measure=measure,
        units=units,
    )
    terminal.print_lines(terminal.diverged_lines(ranking.divergence(runs)), out, indent="")
    if runs.interrupted:
        out.print(f"interrupted: {runs.interrupted} runs were not carried out; "
                  "the same command goes on with them")  # fmt: skip
    if not _any_finite(runs):
        out.print("no run has a finite loss at its end: there is no model; try lower rates")
    else:
        best = runs.best
        lr = best.row.get("lr")
        rate = "" if lr is None else f", lr {terminal.number(lr)}"
        out.print(f"\nchosen by validation: run {best.number} "
                  f"({best.row['optimizer']}{rate}, seed {best.row['seed']})")  # fmt: skip
        _print_scores(found, out)
    terminal.print_files(found.files, out)


def _print_scores(found: Fit, out: Any) -> None:
    from downslope.tables import shown
    from downslope.views import terminal

    table, test = found.problem.table, found.problem.test
    if table is None or test is None or not found.chosen:
        return
    target = shown(table.schema.target.name)
    regression = "rmse" in found.chosen
    words = (
        {"rmse": "root mean squared error", "mae": "mean absolute error", "r2": "R²"}
        if regression
        else {"accuracy": "accuracy", "cross_entropy": "cross-entropy (nats)"}
    )
    units = f", in units of {target}" if regression else ""
    plain = "plain least squares" if regression else "plain logistic regression"
    terminal.print_scores(
        {"chosen run": found.chosen, plain: found.plain},
        out,
        title=f"On the {len(test)} test rows{units}",
        words=words,
    )
    key = "rmse" if regression else "cross_entropy"
    ratio = found.chosen[key] / found.plain[key] - 1
    better = "worse" if ratio > 0 else "better"
    out.print(f"the chosen run's {words[key]} is {abs(ratio):.1%} {better} than the plain fit's "
              "(one split; another split_seed may say otherwise)")  # fmt: skip


def _fit_as_json(found: Fit, folder: str) -> dict[str, Any]:
    from dataclasses import asdict

    from downslope import ranking

    runs, finite = found.runs, _any_finite(found.runs)
    return _plain(
        {
            "study": folder,
            "runs": len(runs),
            "interrupted": runs.interrupted,
            "best": runs.best.row if finite else None,
            "best_per_optimizer": [
                asdict(r) for r in ranking.best_per_optimizer(ranking.rank(runs))
            ],
            "diverged": [asdict(d) for d in ranking.divergence(runs)],
            "test": {"chosen": found.chosen, "plain": found.plain},
            "notes": list(found.problem.notes),
            "files": [str(file) for file in found.files],
        }
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    main()
