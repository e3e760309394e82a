"""The command ``downslope report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from downslope import cli_options as options

if TYPE_CHECKING:
    from downslope.views.report import About


def report(
    study: Annotated[str, typer.Argument(help="A study's folder.")],
    out: Annotated[
        str | None, typer.Option(help="The HTML file to write. [STUDY/report.html]")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="The study's table, if it is no longer where it was.")
    ] = None,
    model: options.OwnClass = None,
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about a study: result, ranking, figures, findings, how to make it
    again."""
    from downslope.telling import load_with_table
    from downslope.views.report import checked_path, write_report

    path = out if out is not None else str(Path(study) / "report.html")
    runs, without = load_with_table(study, table, model)
    checked_path(path)  # before anything is computed for it
    about = _about(Path(study), study, table, without)
    written = write_report(runs, path, about)
    if as_json:
        said = {"report": str(path), "bytes": written.stat().st_size, "without_problem": without}
        print(json.dumps(said, indent=1))
    else:
        print(f"report on {len(runs):,} run{'' if len(runs) == 1 else 's'} written to {path}")


def _about(folder: Path, study: str, table: str | None, without: str | None) -> About:
    """What the study's folder holds beside its runs."""
    from downslope.study import read_description
    from downslope.views.report import About

    description = read_description(folder)
    written_with = {n: v for n, v in description["versions"].items() if n != "polars"}
    if "watched" in description:
        return _about_watched(folder, study, description)
    remarks = () if without is None else (f"The study's problem is not known: {without}.",)
    command = _command(folder)
    return About(
        command=None if command is None else tuple(command),
        study=study,
        source=table or _table_in(command),
        remarks=remarks,
        written_with=written_with,
    )


def _command(folder: Path) -> list[str] | None:
    """The words of the command that made the study, if ``downslope fit`` did."""
    try:
        described = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not made of a table
        return None
    command = described.get("command")
    return command if isinstance(command, list) and all(map(_is_text, command)) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _table_in(command: list[str] | None) -> str | None:
    """The table that ``downslope fit TABLE …`` names."""
    return command[2] if command is not None and len(command) > 2 else None


def _about_watched(folder: Path, study: str, description: dict[str, Any]) -> About:
    """A watched loop's findings and picture, as it saved them."""
    import polars as pl

    from downslope.errors import StudyError
    from downslope.explain.findings import Evidence, Finding
    from downslope.loops.watched import FINDINGS_FILE, STEPS_FILE
    from downslope.views.data.watched import watch_data
    from downslope.views.drawing.watched import watch_figure
    from downslope.views.report import About

    try:
        told = json.loads((folder / FINDINGS_FILE).read_text(encoding="utf-8"))
        steps = pl.read_parquet(folder / STEPS_FILE)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StudyError(f"study {study!r} is damaged: {error}") from error
    findings = [
        Finding(
            run=0,
            verdict=one["verdict"],
            cause=one["cause"],
            sentence=one["sentence"],
            evidence={name: Evidence(**e) for name, e in one["evidence"].items()},
            confidence=one["confidence"],
        )
        for one in told
    ]
    bad = findings[0].evidence.get("first bad step") if findings else None
    figure = watch_figure(watch_data(steps, None if bad is None else int(bad.value)))
    named = ["the loop", *["a fault of the loop"] * (len(findings) - 1)]
    caption = "Loss, norms and rates at every step, and what else was measured."
    return About(
        study=study,
        remarks=tuple(description["watched"]["notes"]),
        findings=[(what, None, one) for what, one in zip(named, findings, strict=True)],
        figures=(("The loop", caption, figure),),
        written_with=description["versions"],
    )
