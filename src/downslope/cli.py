"""The command line: parse, call, print. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from downslope import cli_compare, cli_tune
from downslope import cli_options as options
from downslope.cli_explain import explain
from downslope.cli_report import report
from downslope.errors import DownslopeError, InputError, StudyError

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


@app.command(
    epilog="Example: downslope fit houses.csv --target price --model mlp:32 --lr 1e-4:1:25"
)
def fit(
    context: typer.Context,
    table: options.Table,
    target: options.Target,
    model: options.Model = "linear",
    optimizer: Annotated[
        list[str] | None, typer.Option(help="A class of torch.optim; may be repeated. [SGD, Adam]")
    ] = None,
    lr: Annotated[
        str, typer.Option(help="Learning rates: LOW:HIGH:COUNT, values with commas, or auto.")
    ] = "1e-4:1:13",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Other hyperparameters: momentum=0,0.9 or SGD.momentum=0.9; repeatable."
        ),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="full, a number, or several with commas.")] = "32",
    order: options.Order = "shuffle",
    seeds: Annotated[int, typer.Option(help="How many seeds: 0 to this less one.")] = 3,
    epochs: options.Epochs = 100,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many epochs without a better validation.")
    ] = None,
    clip_norm: options.ClipNorm = None,
    loss: options.Loss = None,
    task: options.Task = None,
    missing: options.Missing = "mean",
    split_seed: options.SplitSeed = 0,
    validation: Annotated[float, typer.Option(help="Share of rows that chooses the run.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of rows touched once, at the end.")] = 0.2,
    engine: options.Engine = "auto",
    out: Annotated[
        str | None, typer.Option(help="Folder for study, model and report. [TABLE-study]")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="On a terminal, draw the losses while they are made.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Descend a whole family of runs on a table, rank them, and keep the best model."""
    from downslope import cli_values
    from downslope.fit_report import any_finite, fit_as_json, print_fit
    from downslope.tablefit import fit_table

    names = [n for given in (optimizer or ["SGD,Adam"]) for n in given.split(",")]
    asked = cli_values.grids(names, lr, set_ or [])
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
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")
    folder = out or f"{Path(table).stem}-study"
    found = fit_table(
        problem,
        asked,
        folder,
        command=options.command_of(context),
        batch_size=[cli_values.batch_size(part) for part in batch_size.split(",")],
        order=order,
        seed=range(seeds),
        epochs=epochs,
        patience=patience,
        clip_norm=clip_norm,
        engine=engine,
        progress=not as_json,
        live=live and not as_json,
    )
    if as_json:
        print(json.dumps(fit_as_json(found, folder), indent=1))
    else:
        print_fit(found, table)
    if found.runs.interrupted or not any_finite(found.runs):
        sys.exit(FAILED)


@app.command(epilog="Example: downslope predict houses-study new.csv --out predictions.csv")
def predict(
    study: Annotated[str, typer.Argument(help="A study written by downslope fit.")],
    table: Annotated[str, typer.Argument(help="New rows: a CSV or Parquet file.")],
    out: Annotated[
        str | None, typer.Option(help="A CSV or Parquet file to write. [standard output]")
    ] = None,
    model: options.OwnClass = None,
    as_json: options.Json = False,
) -> None:
    """Predict new rows with a study's best model, in the target's own units."""
    from downslope.tablefit import predict_table

    if out is not None and Path(out).suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise InputError(f"--out must end in .csv or .parquet, got {out!r}")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise InputError(f"--out: there is no folder {str(Path(out).parent)!r}")
    predictions, notes = predict_table(study, table, model)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
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
    top: Annotated[int, typer.Option(min=1, help="How many settings to show.")] = 10,
    chart: Annotated[bool, typer.Option(help="Draw losses and rate curves in text.")] = True,
    as_json: options.Json = False,
) -> None:
    """Show the ranked runs of a study."""
    from downslope import ranking
    from downslope.fit_report import plain
    from downslope.study import load, read_description
    from downslope.views import run_charts, terminal

    runs = load(study)
    if as_json:
        print(json.dumps({"runs": plain(runs.table.to_dicts())}, indent=1))
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
    if chart:
        out.print()
        every = read_description(Path(study)).get("options", {}).get("every")
        run_charts.print_losses(runs, out, every)
        out.print()
        run_charts.print_rates(runs, out)


@app.command(epilog="Example: downslope gallery line --out pictures")
def gallery(
    name: Annotated[str | None, typer.Argument(help="Which example to run.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for its pictures. [NAME]")] = None,
    as_json: options.Json = False,
) -> None:
    """List the tutorials, or run one of them."""
    from downslope.gallery import EXAMPLES, run_example

    if name is not None:
        run_example(name, Path(out or name))
    elif as_json:
        print(json.dumps({short: about for short, (_, about) in EXAMPLES.items()}, indent=1))
    else:
        width = max(map(len, EXAMPLES)) + 2
        for short, (_, about) in EXAMPLES.items():
            print(f"{short:{width}}{about}")


@app.command(epilog="Example: downslope cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all compiled programs.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show where compiled programs are kept and how large they are, or remove them."""
    from downslope.engines.fused import cache as programs

    removed = programs.clear() if clear else None
    now = programs.describe()
    if as_json:
        found: dict[str, Any] = {
            "folder": None if now.folder is None else str(now.folder),
            "programs": now.programs,
            "bytes": now.size,
            "limit_bytes": now.limit,
            "refused": now.refused,
        }
        if removed is not None:
            found["removed"] = {"files": removed[0], "bytes": removed[1]}
        print(json.dumps(found, indent=1))
        return
    if removed is not None:
        print(f"{removed[0]} files removed, {removed[1] / 2**20:.1f} MiB")
    if now.folder is None:
        print("compiled programs are not kept: DOWNSLOPE_CACHE is off, or no home is known")
    elif now.refused is not None:
        print(now.refused)
    else:
        print(f"{'folder':10}{now.folder}")
        print(f"{'programs':10}{now.programs}")
        print(f"{'size':10}{now.size / 2**20:.1f} of {now.limit / 2**20:.0f} MiB")


app.command(epilog=cli_tune.EPILOG)(cli_tune.tune)
app.command(epilog=cli_compare.EPILOG)(cli_compare.compare)
app.command(epilog="Example: downslope explain houses-study --run 12 --try")(explain)
app.command(epilog="Example: downslope report houses-study --out report.html")(report)


def _write_table(frame: Any, path: Path) -> None:
    from downslope.folder import write_whole

    suffix = path.suffix.lower()
    write_whole(path, frame.write_csv if suffix == ".csv" else frame.write_parquet)


if __name__ == "__main__":
    main()
