"""The Python that makes some runs again, as text; what cannot be written is left open, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from downslope.engines.work import Options
from downslope.fingerprint import of_options
from downslope.grid import RUN_SETTINGS, log_range
from downslope.problem import Problem
from downslope.run import watched
from downslope.runs import Runs
from downslope.views.reporting.asked import Asked, Value, asked_of
from downslope.views.reporting.code_problem import call, problem_lines

MOST_ROWS = 24
"""Settings that are no product of lists and are written out row by row."""

MOST_VALUES = 100
"""Values of one setting that are written out, if there is no shorter way."""

MOST_NUMBERS = 12
"""Numbers of a start that are written out."""


def python_of(runs: Runs, source: str | None = None, study: str | None = None) -> str:
    """A program that carries these runs out again; it parses, whatever was left open in it.

    Args:
        source: the path of the problem's table, as the user writes it; by default the file's name.
        study: the folder of the runs' study, as the user writes it.
    """
    if watched(runs):
        return (
            "# These steps were seen in a training loop that is not Downslope's own: run that\n"
            "# loop again, inside `with ds.watch(model, optimizer) as watch:`."
        )
    asked = asked_of(runs)
    notes = [
        f"... stands for {len(values):,} values of {name}; the study's table holds them."
        for one in asked
        for name, values in one.values.items()
        if written(values) == "..."
    ]
    arguments = ["problem", *_optimizers(asked, notes)]
    shared = _not_default(_shared(asked), None if runs.plan is None else runs.plan.problem)
    options = _options(runs, notes)
    arguments += [f"{name}={written(values)}" for name, values in shared.items() if name != "start"]
    arguments += [*_starts(runs, notes), *options]
    if study is not None:
        arguments.append(f"study={study!r}")
    lines = [
        "import torch",
        "from torch import nn, optim",
        "",
        "import downslope as ds",
        "",
        *problem_lines(runs, source),
        *(f"# {note}" for note in dict.fromkeys(notes)),
        call("runs = ds.descend", arguments),
    ]
    used = "\n".join(lines[5:])
    if "torch." not in used.replace("torch.optim", ""):
        lines.remove("import torch")
    if "nn." not in used:
        lines[lines.index("from torch import nn, optim")] = "from torch import optim"
    return "\n".join(lines)


def written(values: Sequence[Value]) -> str:
    """Values as an argument: one as it is, several as a list, or shorter where there is a way.

    >>> written((0.1,)), written((0, 1, 2)), written((0.001, 0.01, 0.1, 1.0))
    ('0.1', 'range(3)', 'ds.log_range(0.001, 1.0, 4)')
    """
    if len(values) == 1:
        return repr(values[0])
    first, last, count = values[0], values[-1], len(values)
    if all(type(value) is int for value in values) and [*values] == [*range(first, first + count)]:
        return f"range({count})" if first == 0 else f"range({first}, {last + 1})"
    positive = all(isinstance(value, float) and value > 0 for value in values)
    if positive and count > 3 and [*values] == log_range(first, last, count):
        return f"ds.log_range({first!r}, {last!r}, {count})"
    return repr([*values]) if count <= MOST_VALUES else "..."


def _optimizers(asked: Sequence[Asked], notes: list[str]) -> list[str]:
    """The optimizers and their hyperparameters, as arguments."""
    for one in asked:
        if not one.of_torch:
            notes.append(f"{one.optimizer} is a class of your own: import it first.")
    if len(asked) == 1 and asked[0].rows is None:
        return [_class(asked[0]), *_keywords(asked[0].hyperparameters)]
    shared = _shared(asked)
    grids = [_grid(one, shared, notes) for one in asked]
    if len(grids) == 1:
        return grids
    lines = "".join(f"        {grid},\n" for grid in grids)
    return [f"[\n{lines}    ]"]


def _grid(one: Asked, shared: Mapping[str, Any], notes: list[str]) -> str:
    if one.rows is None:
        own = {n: v for n, v in one.values.items() if n not in shared and n != "start"}
        return f"ds.Grid({', '.join([_class(one), *_keywords(own)])})"
    rows = [{n: v for n, v in row.items() if n not in shared and n != "start"} for row in one.rows]
    patterned = any("[" in name for row in rows for name in row)
    if len(rows) > MOST_ROWS or patterned:
        notes.append(
            f"{one.optimizer}: {len(rows)} settings that are no product of lists; the study's "
            "table holds them, a row a run."
        )
        return f"ds.Grid.of({_class(one)}, ...)"
    notes.append(f"{one.optimizer}: settings that are no product of lists, row by row.")
    if len(rows) * len(one.values.get("seed", (0,))) != one.runs or "seed" not in shared:
        notes.append(f"Not every setting of {one.optimizer} was carried out with these seeds.")
    lines = "".join(f"            {row!r},\n" for row in rows)
    return f"ds.Grid.of(\n        {_class(one)},\n        [\n{lines}        ],\n    )"


def _class(one: Asked) -> str:
    return f"optim.{one.optimizer}" if one.of_torch else one.optimizer


def _keywords(values: Mapping[str, Sequence[Value]]) -> list[str]:
    """Keyword arguments; ``lr[0.*]`` and its like are joined to a dict by pattern."""
    plain: dict[str, str] = {}
    patterned: dict[str, dict[str, str]] = {}
    for name, several in values.items():
        base, bracket, pattern = name.partition("[")
        if bracket:
            patterned.setdefault(base, {})[pattern[:-1]] = written(several)
        else:
            plain[name] = written(several)
    for base, by_pattern in patterned.items():
        plain[base] = "{" + ", ".join(f"{p!r}: {v}" for p, v in by_pattern.items()) + "}"
    return [f"{name}={value}" for name, value in plain.items()]


def _shared(asked: Sequence[Asked]) -> dict[str, tuple[Value, ...]]:
    """The settings of runs that all optimizers have alike."""
    first = asked[0].values
    return {
        name: first[name]
        for name in RUN_SETTINGS
        if name in first and all(one.values.get(name) == first[name] for one in asked)
        if name in ("seed", "start")
        or len(first[name]) == 1
        or all(one.rows is None for one in asked)
    }


def _not_default(
    shared: dict[str, tuple[Value, ...]], problem: Problem | None
) -> dict[str, tuple[Value, ...]]:
    """Without what `descend` takes by itself, where the problem is known."""
    default: dict[str, tuple[Value, ...]] = {"seed": (0,), "clip_norm": (None,)}
    if problem is not None:
        size = "full" if problem.batch_size is None else problem.batch_size
        default |= {"batch_size": (size,), "order": (problem.order,)}
    loaded = problem is not None and problem.loader is not None
    return {
        name: values
        for name, values in shared.items()
        if values != default.get(name)
        if not (loaded and name in ("batch_size", "order"))
    }


def _options(runs: Runs, notes: list[str]) -> list[str]:
    plan = runs.plan
    if plan is None:
        notes.append("How long the runs were is read off their records; other options of descend")
        notes.append("(schedule, tolerance, patience, what was kept) are not known here.")
        return [f"steps={int(runs.steps.max())}"]
    options = plan.options
    given = [f"epochs={options.epochs}" if options.updates is None else f"steps={options.updates}"]
    if options.every != "epoch":
        given.append(f"every={options.every!r}")
    if options.keep != {"loss"}:
        given.append(f"keep={tuple(sorted(options.keep))!r}")
    if options.schedule is not None:
        given.append(_schedule(options, notes))
    if options.validation is not None:
        given.append(f"validation={options.validation!r}")
    elif plan.problem.validation is not None and plan.problem.table is None:
        notes.append("validation= was a pair of tensors.")
        given.append("validation=...")
    for name in ("tolerance", "patience"):
        if getattr(options, name) is not None:
            given.append(f"{name}={getattr(options, name)!r}")
    if options.divergence != 1e8:
        given.append(f"divergence={options.divergence!r}")
    if options.gradient is not None:
        notes.append("gradient= was a function of your own.")
        given.append("gradient=...")
    if plan.problem.dtype != torch.float32:
        given.append(f"dtype={plan.problem.dtype}")
    if plan.problem.device.type != "cpu":
        given.append(f"device={str(plan.problem.device)!r}")
    if plan.reasons and all(reason.startswith("asked for") for reason in plan.reasons):
        given.append(f"engine={plan.chunks[0].engine.partition('-')[0]!r}")
    if plan.tuned:
        notes.append("lr was 'auto'; these are the rates that were found.")
    return given


def _schedule(options: Options, notes: list[str]) -> str:
    known = of_options(options)["schedule"]
    if "class" not in known:
        notes.append("schedule= was made of functions or other schedules.")
        return "schedule=..."
    words = [f"optim.lr_scheduler.{known['class']}", f"per={known['per']!r}"]
    words += [f"{name}={value!r}" for name, value in known["arguments"].items()]
    return f"schedule=ds.Schedule({', '.join(words)})"


def _starts(runs: Runs, notes: list[str]) -> list[str]:
    starts = () if runs.plan is None else runs.plan.starts
    if not starts or starts == (None,):
        return []
    numbers = sum(t.numel() for start in starts for t in (start or {}).values())
    if numbers > MOST_NUMBERS or not all(starts):
        notes.append("start= was one or several states, of too many numbers to write out.")
        return ["start=..."]
    said = [{name: _numbers(t) for name, t in (start or {}).items()} for start in starts]
    return [f"start={said[0] if len(said) == 1 else said!r}"]


def _numbers(tensor: Tensor) -> Any:
    return tensor.detach().cpu().tolist()
