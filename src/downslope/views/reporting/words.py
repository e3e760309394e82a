"""What a report says in words: its title, the result, and what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np
import polars as pl

from downslope.errors import listed
from downslope.problem import Problem
from downslope.ranking import Ranked, divergence, setting_columns
from downslope.run import Run, watched
from downslope.runs import Runs
from downslope.scoring import compared, on_test_rows, score_words
from downslope.tables.words import counted
from downslope.views.data.settings import said
from downslope.views.reporting.asked import Value
from downslope.views.reporting.ranked import measure_of, sign_of
from downslope.views.terminal import diverged_lines, number

NO_PROBLEM = (
    "These runs are reported without their problem, so that its data, model and loss are not told "
    "here, and neither are curvature and predictions. To have them, load the study with "
    "ds.load(folder, problem=...), or name its table with downslope report STUDY --table."
)


def title_of(runs: Runs) -> str:
    """What the report is about, in a line."""
    if watched(runs):
        return "A watched training loop"
    plan = runs.plan
    if plan is None:
        return counted(len(runs), "run")
    problem = plan.problem
    if problem.table is not None:
        source = file_name(problem)
        target = problem.table.schema.target.name
        return f"{target}, predicted from {source or 'a table'}"
    if problem.train is None:
        return f"A function of {listed(some_of(problem.names, 4))}"
    model = "A function" if problem.kind == "function" else type(problem.template.model).__name__
    return f"{model} on {counted(len(problem.train), 'row')} of data"


def file_name(problem: Problem) -> str | None:
    """The name of the table's file, without the folders above it."""
    source = None if problem.table is None else problem.table.asked.get("source")
    return None if source is None else str(source).replace("\\", "/").rpartition("/")[2]


def result_of(runs: Runs, ranked: Sequence[Ranked]) -> list[str]:
    """The result, in sentences."""
    settings = "" if len(ranked) == len(runs) else f" of {counted(len(ranked), 'setting')}"
    told = [f"{counted(len(runs), 'run')}{settings}."]
    if watched(runs):
        told = [f"{counted(int(runs.steps_done[0]), 'update')} of a loop were seen."]
    if runs.interrupted:
        told.append(
            f"It was interrupted: {counted(runs.interrupted, 'run')} "
            f"{'is' if runs.interrupted == 1 else 'are'} missing here."
        )
    told += _best(runs, ranked)
    if watched(runs):
        told += [f"It diverged at step {run}." for run in runs.first_bad_step if run >= 0]
    elif runs.diverged.any():
        told += [f"{line}." for line in diverged_lines(divergence(runs))]
    else:
        told.append("No run diverged.")
    tuned = () if runs.plan is None else runs.plan.tuned
    told += [_sentence(line) for rate in tuned[:6] for line in rate.lines]
    return told


def _best(runs: Runs, ranked: Sequence[Ranked]) -> list[str]:
    if not np.isfinite(runs.score).any():
        if watched(runs):
            return ["No final loss is known: none was given, or the last was not finite."]
        return [
            "No run has a finite loss at its end, so that there is no best one: try lower rates."
        ]
    plan = runs.plan
    measure, shown = measure_of(runs)
    best = runs.best
    row = best.row
    judged = "final_loss" if runs.validation_loss is None else "final_validation_loss"
    loss = float(row[judged])
    first = f"from {number(row['initial_loss'])} at the start" if measure == "training loss" else ""
    told = [
        f"The best is run {best.number} ({run_words(best)}): its final {measure} is "
        f"{number(shown(loss))}" + (f", {first}." if first else ".")
    ]
    top = ranked[0]
    if top.seeds > 1 and isfinite(top.loss):
        told.append(
            f"By the median over its seeds the best setting is {setting_words(top)}: "
            f"{number(shown(sign_of(runs) * top.loss))}."
        )
    if plan is not None and plan.problem.table is not None and plan.problem.test is not None:
        chosen, plain = on_test_rows(plan.problem, best)
        words = [f"{score_words(chosen)[name]} {number(v)}" for name, v in chosen.items()]
        target = plan.problem.table.schema.target
        units = f", in units of {target.name}" if target.task == "regression" else ""
        count = counted(len(plan.problem.test), "test row")
        told.append(f"On the {count}{units}: {listed(words)}.")
        told.append(_sentence(f"{compared(chosen, plain)} (on this one split of the rows)"))
    return told


def run_words(run: Run) -> str:
    """A run's optimizer, what sets it apart from others of the same optimizer, and its seed."""
    row = run.row
    told = {name: row.get(name) for name in (*setting_columns(run.runs), "seed")}
    return ", ".join(_named(told))


def setting_words(one: Ranked) -> str:
    """What sets a setting apart, in words."""
    return ", ".join(_named(one.settings))


def _named(settings: Mapping[str, Any]) -> list[str]:
    """The optimizer, then each setting's name and value."""
    return [str(settings["optimizer"])] + [
        f"{name.replace('_', ' ')} {'none' if value == inf else said(plain_value(value))}"
        for name, value in settings.items()
        if name != "optimizer" and value is not None
    ]


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}" + ("" if line.endswith((".", "!", "?")) else ".")


def some_of(names: Sequence[str], most: int) -> list[str]:
    """The first names, and how many more there are."""
    return list(names) if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def plain_value(value: Value) -> Value:
    """A setting's value, in which many numbers are a tuple."""
    return tuple(value) if isinstance(value, list | pl.Series) else value
