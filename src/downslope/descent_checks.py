"""What `descend` is asked for, checked one by one: one sentence on what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from downslope.engines.work import Start, Work
from downslope.errors import InputError, OptimizerError, listed, nearest
from downslope.grid import Grid
from downslope.optimizers import check_complete, check_names, check_optimizer
from downslope.plan import Plan
from downslope.problem import Problem
from downslope.run import Run
from downslope.runs import Runs
from downslope.schedules import Schedule

KEPT = ("loss", "batch_loss", "gradient_norm", "parameters")
LARGEST_RECORDS = 4 * 2**30
"""Bytes of records above which a request is refused before it starts."""


def grids_of(optimizer: Any, hyperparameters: Mapping[str, Any], own: Sequence[str]) -> list[Grid]:
    """The grids that optimizers and shared hyperparameters stand for.

    Args:
        own: the other arguments of the call, to name the nearest of a misspelt one.
    """
    given = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    if not given:
        raise InputError("optimizer is an empty list; give at least one")
    grids = [g if isinstance(g, Grid) else Grid(check_optimizer(g)) for g in given]
    for grid in grids:
        names = {*hyperparameters, *grid.settings, *(grid.rows[0] if grid.rows else ())}
        try:
            check_names(grid.optimizer, list(hyperparameters))
            check_complete(grid.optimizer, names)
        except OptimizerError as error:
            unknown = [n for n in hyperparameters if nearest(n, own)]
            named = [n for n in unknown if repr(n) in str(error)]
            hint = nearest(named[0], own) if named and "did you mean" not in str(error) else ""
            raise OptimizerError(f"{error}{hint}") from error
    return grids


def count_of(name: str, value: Any, least: int) -> int | None:
    """A whole number of at least `least`, or None."""
    if value is None:
        return None
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def positive(name: str, value: Any, zero: bool = False) -> float | None:
    """A number above 0 (with `zero`, or 0), or None."""
    if value is None:
        return None
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (value > 0 or (zero and value == 0)):
        raise InputError(f"{name} must be a number above 0, or None, got {value!r}")
    return float(value)


def dtype_of(dtype: Any) -> torch.dtype | None:
    """A torch dtype, or None."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype must be a torch.dtype, such as torch.float64, got {dtype!r}")
    return dtype


def device_of(device: Any) -> torch.device | None:
    """A device that is there, or None."""
    if device is None:
        return None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no CUDA device on this machine")
    return found


def every_of(every: Any) -> str | int:
    """When to record."""
    if every in ("epoch", "step"):
        return str(every)
    if isinstance(every, str):
        raise InputError(f"every must be 'epoch', 'step' or a number of steps, got {every!r}")
    return count_of("every", every, least=1) or 1


def kept_of(keep: Any) -> frozenset[str]:
    """What to keep."""
    names = [keep] if isinstance(keep, str) else list(keep)
    for name in names:
        if name not in KEPT:
            raise InputError(
                f"keep cannot hold {name!r}{nearest(str(name), KEPT)}; it may hold {listed(KEPT)}"
            )
    return frozenset(names)


def schedule_of(schedule: Any) -> Schedule | None:
    """A schedule, or None."""
    if schedule is None or isinstance(schedule, Schedule):
        return schedule
    raise InputError(
        "schedule must be a downslope.Schedule, for example "
        f"Schedule(optim.lr_scheduler.StepLR, step_size=10), got {schedule!r}"
    )


def starts_of(problem: Problem, start: Any) -> list[Start | None]:
    """Where runs start: None stands for the problem's own start."""
    if start is None:
        return [None]
    given = list(start) if isinstance(start, list | tuple | Runs) else [start]
    if not given:
        raise InputError("start is an empty list; give at least one")
    return [_start(problem, one) for one in given]


def _start(problem: Problem, start: Any) -> Start:
    if isinstance(start, Run):
        start = start.state
    if not isinstance(start, Mapping):
        raise InputError(
            "start must be a Run, a dict of starting values by parameter name, or a list of "
            f"them, got {type(start).__name__}"
        )
    others = problem.others
    values: dict[str, Tensor] = {}
    dtype = problem.dtype
    for name, value in start.items():
        if name not in problem.names and name not in others:
            raise InputError(
                f"start has {name!r}{nearest(name, problem.names)}, but the problem's "
                f"parameters are {listed(problem.names)}"
            )
        try:
            tensor = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"start {name!r} must be numbers, got {value!r}") from error
        wanted = problem.shapes.get(name)
        if wanted is not None and tensor.shape != wanted:
            raise InputError(
                f"start {name!r} has shape {tuple(tensor.shape)}, the parameter {tuple(wanted)}"
            )
        values[name] = tensor.detach().clone()
    if not problem.draws_start:
        return values
    missing = [name for name in problem.names if name not in values]
    if missing:
        raise InputError(f"start gives no value for {listed(missing)}")
    return values


def check_memory(plan: Plan) -> None:
    """Refuse records that cannot fit, saying how large they are and what to reduce."""
    total = 0
    for group in plan.groups:
        work = Work(plan.problem, group, plan.options, plan.starts)
        keep, size = plan.options.keep, plan.problem.dtype.itemsize
        parameters = sum(shape.numel() for shape in plan.problem.shapes.values())
        records = len(work.record_at)
        each = records * (8 + 2 * size) + parameters * size
        each += work.updates * size * len(keep & {"batch_loss", "gradient_norm"})
        each += records * parameters * size * ("parameters" in keep)
        total += each * len(group)
    if total > LARGEST_RECORDS:
        raise InputError(
            f"the records of {plan.runs:,} runs would take {total / 2**30:.1f} GiB, more than "
            f"{LARGEST_RECORDS / 2**30:.0f} GiB: record less often (every=), keep less, or ask for "
            "fewer runs at a time"
        )
