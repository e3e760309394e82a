"""The command ``downslope explain``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from downslope import cli_options as options
from downslope.errors import InputError

MOST = 50
"""Runs that are explained at once where none is named."""


def explain(
    study: Annotated[str, typer.Argument(help="A study's folder.")],
    run: Annotated[
        list[int] | None, typer.Option(help="Which run; may be repeated. [best and a failure]")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs, 50 at most.")] = False,
    table: Annotated[
        str | None, typer.Option(help="The study's table, if it is no longer where it was.")
    ] = None,
    model: options.OwnClass = None,
    try_it: Annotated[
        bool, typer.Option("--try", help="Follow each advice, and say whether it held.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what runs of a study did and why, with evidence and advice."""
    from downslope.explain.explaining import explain_runs
    from downslope.fit_report import plain, print_findings
    from downslope.telling import as_plain, findings_of, load_with_table
    from downslope.views import terminal

    runs, without = load_with_table(study, table, model)
    if run:
        numbers = runs.settings["run"].to_list()
        for number in run:
            if number not in numbers:
                raise InputError(
                    f"--run: the study has runs {min(numbers)} to {max(numbers)}, got {number}"
                )
        some = runs[[numbers.index(number) for number in run]]
    elif every:
        if len(runs) > MOST:
            raise InputError(f"--all explains {MOST} runs at most, the study has {len(runs)}: "
                             "name some with --run")  # fmt: skip
        some = runs
    else:
        some = None
    if some is None:
        findings = findings_of(runs)
    else:
        findings = [("as asked", r, f) for r, f in zip(some, explain_runs(some), strict=True)]
    trials = [f.try_it() if try_it and f.tried is not None else None for _, _, f in findings]
    if as_json:
        made = [
            {"of": what, **as_plain(f), "trial": None if t is None else
             {"held": t.held, "before": t.before, "after": t.after}}
            for (what, _, f), t in zip(findings, trials, strict=True)
        ]  # fmt: skip
        print(json.dumps(plain({"without_problem": without, "findings": made}), indent=1))
        return
    out = terminal.console()
    if without is not None:
        print(f"note: judged by the recorded losses alone: {without}", file=sys.stderr)
    for one, trial in zip(findings, trials, strict=True):
        print_findings([one], out)
        if trial is not None:
            terminal.print_lines([trial.sentence], out)
