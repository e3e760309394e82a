"""The lines of a program that make a problem; what is the user's own is left open, and said."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from downslope.problem import Problem
from downslope.runs import Runs

_LONGEST = 88
_MOST_LINES = 12
"""Lines of a module's own description that are told."""


def problem_lines(runs: Runs, source: str | None) -> list[str]:
    """The lines that make the problem."""
    plan = runs.plan
    if plan is None:
        return ["# These runs were loaded without their problem: make it here.", "problem = ..."]
    problem = plan.problem
    if problem.table is None:
        return [*_own_problem(problem), "problem = ..."]
    asked = problem.table.asked
    name = source or asked.get("source")
    lines: list[str] = []
    if name is None:
        lines.append("# The table was a dataframe.")
    elif source is None:
        name = str(name).replace("\\", "/").rpartition("/")[2]
    arguments = ["..." if name is None else repr(name), f"target={asked['target']!r}"]
    model = problem.table.model
    if "\n" in model or "<" in model or "(" in model:
        lines.append("# The model is a module or function of your own.")
        arguments.append("model=...")
    else:
        arguments.append(f"model={model!r}")
    defaults = inspect.signature(Problem.from_table).parameters
    for option in ("task", "missing", "validation", "test", "split_seed"):
        if asked.get(option) != defaults[option].default:
            arguments.append(f"{option}={asked[option]!r}")
    arguments += _loss_of_table(problem, asked.get("loss"), lines)
    return [*lines, call("problem = ds.Problem.from_table", arguments)]


def _loss_of_table(problem: Problem, name: Any, lines: list[str]) -> list[str]:
    if name is not None:
        return [f"loss={name!r}"]
    assert problem.table is not None
    loss = problem.template.loss
    regression = problem.table.schema.target.task == "regression"
    if type(loss) is (nn.MSELoss if regression else nn.CrossEntropyLoss):
        return []
    lines.append(f"# The loss: {_one_line(loss)}.")
    return [f"loss=nn.{type(loss).__name__}()" if _of_torch(loss) else "loss=..."]


def _of_torch(thing: Any) -> bool:
    return type(thing).__module__.startswith("torch.nn")


def _own_problem(problem: Problem) -> list[str]:
    """What is known of a problem whose code and data are the user's own, as comments."""
    words = "A function" if problem.kind == "function" else "A model"
    rows = "" if problem.train is None else f" on {len(problem.train):,} rows of data"
    names = ", ".join(problem.names[:6]) + (", …" if len(problem.names) > 6 else "")
    lines = [f"# {words} of your own{rows}, with the parameters {names}: make it here."]
    model = problem.template.model
    if problem.kind == "model":
        shown = str(model).splitlines()
        lines += [f"#   {line}" for line in shown[:_MOST_LINES]]
        lines += ["#   …"] if len(shown) > _MOST_LINES else []
    if problem.template.loss is not None:
        lines.append(f"#   loss: {_one_line(problem.template.loss)}")
    return lines


def _one_line(thing: Any) -> str:
    if isinstance(thing, nn.Module):
        return " ".join(str(thing).split())
    return getattr(thing, "__name__", type(thing).__name__)


def call(name: str, arguments: Sequence[str]) -> str:
    """A call on one line, or an argument a line."""
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= _LONGEST and "\n" not in line:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), ")"])
