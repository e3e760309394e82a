"""The one entry: check what was asked, plan it, carry it out chunk by chunk, keep what is done."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, optim

from downslope.engines.layout import cells, try_schedule
from downslope.engines.processes import shared_out
from downslope.engines.work import Handwritten, Options, Outcome, Start, Tick, Work
from downslope.errors import InputError, OptimizerError, listed, nearest
from downslope.grid import RUN_SETTINGS, Grid, settled
from downslope.grid_checks import check_settings
from downslope.groups import check_size, expand
from downslope.handwritten import check_gradient
from downslope.optimizers import check_complete, check_names, check_optimizer
from downslope.plan import Chunk, Plan, TunedRate, make_plan
from downslope.problem import Problem
from downslope.problem_rows import checked, with_validation
from downslope.progress import Progress
from downslope.ranges import asks_auto
from downslope.records import settings_table
from downslope.runs import Run, Runs, assemble
from downslope.schedules import Schedule
from downslope.study import Study

KEPT = ("loss", "batch_loss", "gradient_norm", "parameters")
WORTH_PROCESSES = 0.5
"""Seconds of work above which it is shared out over processes."""

LARGEST_RECORDS = 4 * 2**30
"""Bytes of records above which a request is refused before it starts."""


class InterruptedWarning(UserWarning):
    """A descent was interrupted; the runs that were finished are returned."""


def descend(
    problem: Problem,
    optimizer: Any = optim.SGD,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: Any = None,
    order: Any = None,
    seed: Any = 0,
    start: Any = None,
    every: str | int = "epoch",
    keep: Sequence[str] = ("loss",),
    schedule: Schedule | None = None,
    validation: Any = None,
    tolerance: float | None = None,
    patience: int | None = None,
    divergence: float | None = 1e8,
    clip_norm: Any = None,
    gradient: Handwritten | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    engine: str = "auto",
    study: str | Path | None = None,
    progress: bool = True,
    **hyperparameters: Any,
) -> Runs:
    """Carry out a family of descents.

    Lists, ranges and arrays of hyperparameters, ``batch_size``, ``order``, ``clip_norm``,
    ``start`` and ``seed`` are grids: their product is carried out. A tuple is one value; a dict
    gives values by parameter-name pattern. ``lr="auto"`` is tuned (see `tune`) for each combination
    of an optimizer's other settings, batch size, order and clipping by itself; ``runs.plan.tuned``
    holds what was found, and what must be known of it.

    Args:
        problem: what to minimise.
        optimizer: a class of `torch.optim` or the user's own subclass, its name, a `Grid`, or a
            list of Grids.
        epochs, steps: the length: passes over the data, or updates. Give one.
        batch_size: "full", 1, or between; by default the problem's own, else "full".
        order: "shuffle", "cyclic" or "replacement".
        seed: fixes a run's start, where it is drawn, and its order of samples.
        start: where to start instead: a Run, a dict of numbers, or a list of them. The
            optimizer's own state starts anew.
        every: when to record: "epoch", "step" or a number of updates.
        keep: of "loss" (at every record), "batch_loss" and "gradient_norm" (at every update),
            "parameters" (at every record).
        schedule: a `Schedule` that all runs follow.
        validation: a share of the training rows to keep apart, or a pair of tensors.
        tolerance: a run has converged when its recorded training loss changes by less than this
            share from one record to the next.
        patience: a run is stopped after this many records without a better validation loss, or
            training loss if there is no validation.
        divergence: a run has diverged when a loss exceeds this times max(1, |initial loss|);
            None: only when something is not finite.
        clip_norm: the longest gradient allowed, for each run by itself.
        gradient: by hand: called with the function's arguments (and x and y of the batch) by
            name, returns a dict of gradients; checked against autograd first.
        dtype, device: where to compute; by default where the problem's parameters are.
        engine: "looped" (torch.optim itself), "stacked" (runs side by side in torch), "fused"
            (compiled), or "auto", which takes what serves and is fastest. Many rows of a
            full-batch least-squares fit (a loss that is a sum of squares of numbers linear in the
            parameters) are replaced by the few of a factor there; ``runs.plan.reasons`` says so.
        study: a folder to write to as it goes; if it is there already, it is resumed.
        progress: show progress, where the output is a terminal.
        **hyperparameters: of the optimizers, by torch's names.

    Returns:
        The runs, one for each combination, in the order in which values were given, the seed
        varying fastest. A run that diverges is among them, its status says so. After Ctrl-C,
        those that were finished (with an `InterruptedWarning`).

    Raises:
        InputError: one sentence on what is wrong; nothing has been computed or written then.

    >>> problem = Problem.from_function(lambda x: x**2 - 4 * x + 5, start=7.0)
    >>> runs = descend(problem, optim.SGD, lr=[0.1, 0.3, 1.0], steps=20)
    >>> [round(loss, 3) for loss in runs.table["final_loss"]]
    [1.003, 1.0, 26.0]
    """
    problem = checked(problem).to(dtype=_dtype(dtype), device=_device(device))
    if validation is not None:
        problem = with_validation(problem, validation)
    options = Options(
        updates=_count("steps", steps, least=0),
        epochs=_count("epochs", epochs, least=0),
        every=_every(every),
        keep=_keep(keep),
        schedule=_schedule(schedule),
        tolerance=_positive("tolerance", tolerance, zero=True),
        patience=_count("patience", patience, least=1),
        divergence=_positive("divergence", divergence),
        gradient=gradient,
        validation=float(validation) if isinstance(validation, float | int) else None,
    )
    if (options.updates is None) == (options.epochs is None):
        raise InputError("give epochs= or steps=, one of them: how long each run is")
    hyperparameters = settled(hyperparameters)
    grids = _grids(optimizer, hyperparameters)
    shared = {
        **hyperparameters,
        "batch_size": problem.batch_size if batch_size is None else batch_size,
        "order": problem.order if order is None else order,
        "seed": seed,
        "clip_norm": clip_norm,
    }
    own = {n for g in grids for n in (*g.settings, *(g.rows[0] if g.rows else ()))}
    if problem.loader is not None and (
        batch_size is not None or order is not None or own & {"batch_size", "order"}
    ):
        raise InputError(
            "the DataLoader draws its batches in a way of its own: batch_size= and order= "
            "cannot change it"
        )
    shared = settled(shared)
    starts = _starts(problem, start)
    rates: tuple[TunedRate, ...] = ()
    if any(asks_auto(s.get("lr")) for g in grids for s in (shared, g.settings, *(g.rows or ()))):
        from downslope.searching.auto import tuned

        grids, shared, rates = tuned(problem, grids, shared, options, starts, engine, progress)
    check_size(grids, shared, len(starts))
    parameters = list(problem.template.model.parameters())
    check_settings(grids, {n: v for n, v in shared.items() if n not in RUN_SETTINGS}, parameters)
    groups = expand(grids, shared, len(starts))
    for group in groups:
        cells(group, problem.names)
    if gradient is not None:
        check_gradient(problem, gradient)
    if options.schedule is not None:
        for group in {(g.optimizer, g.batch_size): g for g in groups}.values():
            try_schedule(Work(problem, group, options, tuple(starts)))
    plan = replace(make_plan(problem, options, starts, groups, engine), tuned=rates)
    _check_memory(plan)
    if study is None:
        return carry_out(plan, None, progress)
    with Study.open(study, plan) as opened:
        return carry_out(plan, opened, progress)


def carry_out(plan: Plan, study: Study | None, progress: bool) -> Runs:
    """All chunks that are not done yet; what is finished is kept whatever happens."""
    done = {} if study is None else study.finished()
    outcomes, written = dict(done), set(done)
    places = [place for place in range(len(plan.chunks)) if place not in done]
    chunks = [plan.chunks[place] for place in places]
    together = [place for place in places if plan.alone(plan.chunks[place])]
    one_by_one = [place for place in places if place not in set(together)]
    seconds = sum(plan.seconds(plan.chunks[place]) for place in together)
    worthwhile = seconds > WORTH_PROCESSES
    interrupted = False

    def one(place: int, tick: Tick) -> Outcome:
        return plan.carry_out(plan.chunks[place], tick)

    def keep(place: int, outcome: Outcome) -> None:
        outcomes[place] = outcome
        write(place)
        shown.finished(_updates(plan, plan.chunks[place]), outcome)

    def write(place: int) -> None:
        if study is not None:
            study.write(place, plan.chunks[place], outcomes[place])
        written.add(place)

    def let_go() -> None:  # a worker must not hold the lock of a process that was killed
        if study is not None:
            study.lock.release()

    total = sum(_updates(plan, chunk) for chunk in chunks)
    runs_left = sum(len(plan.index(chunk)) for chunk in chunks)
    epochs = None if plan.options.epochs is None else plan.options.epochs * runs_left
    with Progress(total, plan.runs, shown=progress, epochs=epochs) as shown:
        for outcome in done.values():
            shown.found(outcome)
        try:
            shared_out(one, one_by_one, shown.tick, keep, worthwhile=False)
            shared_out(one, together, shown.tick, keep, worthwhile=worthwhile, let_go=let_go)
        except KeyboardInterrupt:
            for place in outcomes.keys() - written:  # it came while these were being written
                write(place)
            if not outcomes:
                raise
            interrupted = True
    parts = [(plan.index(plan.chunks[place]), outcome) for place, outcome in outcomes.items()]
    missing = plan.runs - sum(len(index) for index, _ in parts)
    runs = replace(assemble(settings_table(plan), parts, plan), interrupted=missing)
    if interrupted:
        warnings.warn(
            f"interrupted: {len(runs)} of {plan.runs} runs were finished"
            + ("" if study is None else f", and are kept in {study.folder}"),
            InterruptedWarning,
            stacklevel=3,
        )
    if study is not None:
        study.finish(runs)
    return runs


def _updates(plan: Plan, chunk: Chunk) -> int:
    work = plan.work(chunk)
    return work.updates * len(work)


def _grids(optimizer: Any, hyperparameters: Mapping[str, Any]) -> list[Grid]:
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
            allowed = _descend_names()
            unknown = [n for n in hyperparameters if nearest(n, allowed)]
            named = [n for n in unknown if repr(n) in str(error)]
            hint = nearest(named[0], allowed) if named and "did you mean" not in str(error) else ""
            raise OptimizerError(f"{error}{hint}") from error
    return grids


def _descend_names() -> list[str]:
    import inspect

    return [n for n in inspect.signature(descend).parameters if n != "hyperparameters"]


def _count(name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def _positive(name: str, value: Any, zero: bool = False) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (value > 0 or (zero and value == 0)):
        raise InputError(f"{name} must be a number above 0, or None, got {value!r}")
    return float(value)


def _dtype(dtype: Any) -> torch.dtype | None:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype must be a torch.dtype, such as torch.float64, got {dtype!r}")
    return dtype


def _device(device: Any) -> torch.device | None:
    if device is None:
        return None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no CUDA device on this machine")
    return found


def _every(every: Any) -> str | int:
    if every in ("epoch", "step"):
        return str(every)
    if isinstance(every, str):
        raise InputError(f"every must be 'epoch', 'step' or a number of steps, got {every!r}")
    return _count("every", every, least=1) or 1


def _keep(keep: Any) -> frozenset[str]:
    names = [keep] if isinstance(keep, str) else list(keep)
    for name in names:
        if name not in KEPT:
            raise InputError(
                f"keep cannot hold {name!r}{nearest(str(name), KEPT)}; it may hold {listed(KEPT)}"
            )
    return frozenset(names)


def _schedule(schedule: Any) -> Schedule | None:
    if schedule is None or isinstance(schedule, Schedule):
        return schedule
    raise InputError(
        "schedule must be a downslope.Schedule, for example "
        f"Schedule(optim.lr_scheduler.StepLR, step_size=10), got {schedule!r}"
    )


def _starts(problem: Problem, start: Any) -> list[Start | None]:
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


def _check_memory(plan: Plan) -> None:
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
