"""What was asked, in words: the problem, the grids, the length, the engine and why."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from downslope.errors import listed
from downslope.plan import Plan
from downslope.problem import Problem
from downslope.run import watched
from downslope.runs import Runs
from downslope.tables.words import counted
from downslope.views.data.losses import loss_words
from downslope.views.data.settings import said
from downslope.views.reporting.asked import Asked, Value, asked_of
from downslope.views.reporting.words import file_name, plain_value, some_of

_MOST_VALUES = 8
_MOST_SHAPES = 8


def asked_rows(runs: Runs, study: str | None) -> list[tuple[str, str]]:
    """What was asked: names and what they are, in words."""
    plan = runs.plan
    rows = [] if plan is None else _problem_rows(plan.problem, runs)
    if watched(runs):
        row = runs.table.row(0, named=True)
        shown = {n: v for n, v in row.items() if v not in (None, False) and n not in _NOT_ASKED}
        rows += [(name.replace("_", " "), said(plain_value(v))) for name, v in shown.items()]
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
    rows.append(("parameters", f"{total:,}: {', '.join(some_of(shapes, _MOST_SHAPES))}"))
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
    names = {"batch_size": "batch size", "clip_norm": "clip norm"}
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
    return "none" if value is None else said(plain_value(value))


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
