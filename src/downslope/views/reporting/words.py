"""What a report says in words: its title, the result, and what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import numpy as np
import polars as pl

from downslope.errors import listed
from downslope.plan import Plan
from downslope.problem import Problem
from downslope.ranking import Ranked, divergence
from downslope.runs import Runs
from downslope.scoring import compared, on_test_rows, score_words
from downslope.tables.words import counted
from downslope.views.data.losses import loss_words
from downslope.views.data.settings import said
from downslope.views.reporting.asked import Asked, Value, asked_of
from downslope.views.reporting.ranked import measure_of, sign_of, watched
from downslope.views.terminal import diverged_lines, number

_MOST_VALUES = 8
_MOST_SHAPES = 8

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
        return f"A function of {listed(_some(problem.names, 4))}"
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
        f"The best is run {best.number} ({short(row)}): its final {measure} is "
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


def short(row: dict[str, Any]) -> str:
    """A run's optimizer, rate and seed."""
    words = [str(row["optimizer"])]
    words += [f"{name} {said(row[name])}" for name in ("lr", "seed") if row.get(name) is not None]
    return ", ".join(words)


def setting_words(one: Ranked) -> str:
    """What sets a setting apart, in words."""
    named = [
        f"{name.replace('_', ' ')} {said(_value(v))}"
        for name, v in one.settings.items()
        if name != "optimizer" and v is not None
    ]
    return ", ".join([str(one.settings["optimizer"]), *named])


def asked_rows(runs: Runs, study: str | None) -> list[tuple[str, str]]:
    """What was asked: names and what they are, in words."""
    plan = runs.plan
    rows = [] if plan is None else _problem_rows(plan.problem, runs)
    if watched(runs):
        row = runs.table.row(0, named=True)
        shown = {n: v for n, v in row.items() if v not in (None, False) and n not in _NOT_ASKED}
        rows += [(name.replace("_", " "), said(_value(v))) for name, v in shown.items()]
        rows.append(("engine", "none: a loop of the user's own"))
    else:
        for one in asked_of(runs):
            rows.append((one.optimizer, _grid_words(one, plan)))
        rows += _length_rows(runs, plan)
    if study is not None:
        rows.append(("study", study))
    return rows


_NOT_ASKED = ("run", "status", "first_bad_step", "steps", "initial_loss", "final_loss",
              "best_loss", "engine")  # fmt: skip


def _problem_rows(problem: Problem, runs: Runs) -> list[tuple[str, str]]:
    rows = []
    if problem.table is not None:
        rows.append(("table", file_name(problem) or "a dataframe"))
        target = problem.table.schema.target
        what = f"{len(target.classes)} classes" if target.classes else "a number"
        rows.append(("target", f"{target.name} ({what})"))
        features = problem.table.schema.feature_names
        rows.append(("features", f"{counted(len(features), 'number')} a row"))
        rows.append(("model", problem.table.model))
    elif problem.kind == "model":
        rows.append(("model", " ".join(str(problem.template.model).split())[:400]))
    else:
        rows.append(("problem", "a function" + ("" if problem.train is None else " with data")))
    if problem.train is not None:
        parts = [f"{len(problem.train):,} to train"]
        for rest, use in ((problem.validation, "choose the run"), (problem.test, "test it")):
            parts += [] if rest is None else [f"{len(rest):,} to {use}"]
        rows.append(("rows", ", ".join(parts)))
    shapes = [
        f"{name} ({' × '.join(map(str, shape))})" if shape else name
        for name, shape in problem.shapes.items()
    ]
    total = sum(prod(shape) for shape in problem.shapes.values())
    rows.append(("parameters", f"{total:,}: {', '.join(_some(shapes, _MOST_SHAPES))}"))
    rows.append(("loss", loss_words(runs)))
    start = "drawn from each seed" if problem.draws_start else "the same for every run"
    if runs.plan is not None and runs.plan.starts != (None,):
        start = f"{counted(len(runs.plan.starts), 'state')} given to descend"
    rows.append(("start", start))
    dtype = str(problem.dtype).removeprefix("torch.")
    rows.append(("computed in", f"{dtype}, on {problem.device}"))
    return rows


def column_rows(runs: Runs) -> list[tuple[str, str]]:
    """For a table's problem, each column and what was done with it; the target comes last."""
    if runs.plan is None or runs.plan.problem.table is None:
        return []
    schema = runs.plan.problem.table.schema
    rows = [(column.name, column.describe(schema.missing)) for column in schema.columns]
    rows.append((schema.target.name, schema.target.describe()))
    # These words were made for the terminal, where a bracket could open markup.
    return [(name, words.replace("\\[", "[")) for name, words in rows]


def _grid_words(one: Asked, plan: Plan | None) -> str:
    without_data = plan is not None and plan.problem.train is None
    names = {"batch_size": "batch size", "clip_norm": "longest gradient"}
    words = [
        f"{names.get(name, name)} {values_words(values)}"
        for name, values in one.values.items()
        if values != (None,) or name != "clip_norm"
        if not (without_data and name in ("batch_size", "order"))
    ]
    kind = "" if one.rows is None else f"; {len(one.rows):,} combinations of these, not all"
    return f"{counted(one.runs, 'run')}: {'; '.join(words)}{kind}"


def values_words(values: Sequence[Value]) -> str:
    """Values in few words.

    >>> values_words((0.1, 0.2)), values_words(tuple(range(20)))
    ('0.1 and 0.2', '0 to 19 (20 values)')
    """
    if len(values) <= _MOST_VALUES:
        return listed(map(_said, values))
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return f"{said(min(numbers))} to {said(max(numbers))} ({len(values):,} values)"
    return f"{listed(map(_said, values[: _MOST_VALUES - 1]))} and so on ({len(values):,} values)"


def _said(value: Value) -> str:
    return "none" if value is None else said(_value(value))


def _value(value: Value) -> Value:
    return tuple(value) if isinstance(value, list | pl.Series) else value


def _length_rows(runs: Runs, plan: Plan | None) -> list[tuple[str, str]]:
    rows = []
    if plan is None:
        rows.append(("length", f"{counted(int(runs.steps.max()), 'update')} at most"))
        engines = listed(runs.settings["engine"].unique(maintain_order=True).to_list())
        return [*rows, ("engine", engines)]
    options = plan.options
    length = (
        f"{options.epochs:,} epochs" if options.updates is None else f"{options.updates:,} steps"
    )
    each = {"epoch": "every epoch", "step": "every step"}
    rows.append(("length", length))
    kept = listed(sorted(name.replace("_", " ") for name in options.keep))
    how_often = each.get(str(options.every), f"every {options.every} updates")
    rows.append(("recorded", f"{kept}, {how_often}"))
    if options.schedule is not None:
        rows.append(("schedule", repr(options.schedule)))
    if options.tolerance is not None:
        rows.append(
            ("converged", f"when the loss changes by less than {options.tolerance:g} of it")
        )
    if options.patience is not None:
        rows.append(
            ("stopped", f"after {counted(options.patience, 'record')} without a better loss")
        )
    limit = f", or the loss exceeds {options.divergence or 0:g} times the larger of 1 and its start"
    beyond = "" if options.divergence is None else limit
    rows.append(("diverged", f"when something is not finite{beyond}"))
    if options.gradient is not None:
        rows.append(("gradient", "by hand, checked against autograd first"))
    rows.append(("engine", _engines(plan, runs)))
    return rows


def _engines(plan: Plan, runs: Runs) -> str:
    """Which engines ran, and why."""
    of_group = {chunk.group: chunk.engine for chunk in plan.chunks}
    if not plan.reasons:
        return listed(runs.settings["engine"].unique(maintain_order=True).to_list())
    said_of = dict.fromkeys(
        f"{of_group[group]} ({reason})"
        for group, reason in enumerate(plan.reasons)
        if group in of_group
    )
    return "; ".join(said_of)


def _some(names: Sequence[str], most: int) -> list[str]:
    return list(names) if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}" + ("" if line.endswith((".", "!", "?")) else ".")
