"""What `downslope fit` says of a fit, for people and for programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from downslope import ranking
from downslope.explain.findings import Finding
from downslope.run import Run
from downslope.runs import Runs
from downslope.scoring import compared, in_own_units, plain_words, score_words
from downslope.tablefit import Fit
from downslope.tables import shown
from downslope.telling import as_plain
from downslope.views import terminal


def any_finite(runs: Runs) -> bool:
    """Whether there is a run to choose."""
    return any(map(math.isfinite, runs.score.tolist()))


def print_fit(found: Fit, source: str) -> None:
    """The report for people: data, ranking, what diverged, scores, files."""
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
    measure, units = in_own_units(problem)
    tuned = [] if runs.plan is None else runs.plan.tuned
    terminal.print_lines([line for rate in tuned for line in rate.lines], out)
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
    if not any_finite(runs):
        out.print("no run has a finite loss at its end: there is no model; try lower rates")
    else:
        best = runs.best
        lr = best.row.get("lr")
        rate = "" if lr is None else f", lr {terminal.number(lr)}"
        out.print(f"\nchosen by {measure.partition(' ')[0]} loss: run {best.number} "
                  f"({best.row['optimizer']}{rate}, seed {best.row['seed']})")  # fmt: skip
        _print_scores(found, out)
    print_findings(found.findings, out)
    terminal.print_files(found.files, out)


def print_findings(findings: list[tuple[str, Run, Finding]], out: Console) -> None:
    """Findings, each under what it is and its run's settings."""
    for what, run, finding in findings:
        row = run.row
        lr = f", lr {terminal.number(row['lr'])}" if row.get("lr") is not None else ""
        title = f"Run {run.number}, {what} ({row['optimizer']}{lr}, seed {row['seed']})"
        terminal.print_finding(f"\n{title}", finding.sentence, finding.confidence, out)


def _print_scores(found: Fit, out: Console) -> None:
    table, test = found.problem.table, found.problem.test
    if table is None or test is None or not found.chosen:
        return
    target = shown(table.schema.target.name)
    units = f", in units of {target}" if table.schema.target.task == "regression" else ""
    terminal.print_scores(
        {"chosen run": found.chosen, plain_words(found.chosen): found.plain},
        out,
        title=f"On the {len(test)} test rows{units}",
        words=score_words(found.chosen),
    )
    out.print(f"{compared(found.chosen, found.plain)} "
              "\n(one split of the rows: another --split-seed may say otherwise)")  # fmt: skip


def fit_as_json(found: Fit, folder: str) -> dict[str, Any]:
    """The report for programs."""
    runs, finite = found.runs, any_finite(found.runs)
    return plain(
        {
            "study": folder,
            "runs": len(runs),
            "interrupted": runs.interrupted,
            "best": runs.best.row if finite else None,
            "best_per_optimizer": [
                asdict(r) for r in ranking.best_per_optimizer(ranking.rank(runs))
            ],
            "diverged": [asdict(d) for d in ranking.divergence(runs)],
            "findings": [{"of": what, **as_plain(finding)} for what, _, finding in found.findings],
            "tuned": [] if runs.plan is None else [asdict(rate) for rate in runs.plan.tuned],
            "test": {"chosen": found.chosen, "plain": found.plain},
            "notes": list(found.problem.notes),
            "files": [str(file) for file in found.files],
        }
    )


def plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
