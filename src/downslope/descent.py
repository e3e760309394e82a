"""The one entry: check what was asked, plan it, carry it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import optim

from downslope.descent_checks import (
    check_memory,
    count_of,
    device_of,
    dtype_of,
    every_of,
    grids_of,
    kept_of,
    positive,
    schedule_of,
    starts_of,
)
from downslope.engines.layout import cells, try_schedule
from downslope.engines.work import Handwritten, Options, Work
from downslope.errors import InputError
from downslope.execution import carry_out
from downslope.grid import RUN_SETTINGS, settled
from downslope.grid_checks import check_settings
from downslope.groups import check_size, expand
from downslope.handwritten import check_gradient
from downslope.plan import TunedRate, make_plan
from downslope.problem import Problem
from downslope.problem_rows import checked, with_validation
from downslope.ranges import asks_auto
from downslope.runs import Runs
from downslope.schedules import Schedule
from downslope.study import Study

if TYPE_CHECKING:
    from downslope.views.live import Where


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
    live: bool | Literal["terminal", "notebook", "window"] | None = None,
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
        live: draw the losses while they are made: "terminal" (text that redraws itself on stderr),
            "notebook" (with the prediction beside them, where there is one feature and "parameters"
            are kept) or "window" (the same by matplotlib); True: a notebook or terminal if this is
            one. Up to six runs, evenly spread over all, have a line. All runs are carried out in
            this process then; their numbers are the same to the bit.
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
    where = where_of(live, keep)
    problem = checked(problem).to(dtype=dtype_of(dtype), device=device_of(device))
    if validation is not None:
        problem = with_validation(problem, validation)
    options = Options(
        updates=count_of("steps", steps, least=0),
        epochs=count_of("epochs", epochs, least=0),
        every=every_of(every),
        keep=kept_of(keep),
        schedule=schedule_of(schedule),
        tolerance=positive("tolerance", tolerance, zero=True),
        patience=count_of("patience", patience, least=1),
        divergence=positive("divergence", divergence),
        gradient=gradient,
        validation=float(validation) if isinstance(validation, float | int) else None,
    )
    if (options.updates is None) == (options.epochs is None):
        raise InputError("give epochs= or steps=, one of them: how long each run is")
    hyperparameters = settled(hyperparameters)
    own = [n for n in signature(descend).parameters if n != "hyperparameters"]
    grids = grids_of(optimizer, hyperparameters, own)
    shared = {
        **hyperparameters,
        "batch_size": problem.batch_size if batch_size is None else batch_size,
        "order": problem.order if order is None else order,
        "seed": seed,
        "clip_norm": clip_norm,
    }
    named = {n for g in grids for n in (*g.settings, *(g.rows[0] if g.rows else ()))}
    if problem.loader is not None and (
        batch_size is not None or order is not None or named & {"batch_size", "order"}
    ):
        raise InputError(
            "the DataLoader draws its batches in a way of its own: batch_size= and order= "
            "cannot change it"
        )
    shared = settled(shared)
    starts = starts_of(problem, start)
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
    check_memory(plan)
    view = None
    if where is not None:
        from downslope.views.live import LiveView, screen_for

        view = LiveView(screen_for(where))
    shown = progress and where != "terminal"  # two things that redraw themselves would collide
    if study is None:
        return carry_out(plan, None, shown, view)
    with Study.open(study, plan) as opened:
        return carry_out(plan, opened, shown, view)


def where_of(live: Any, keep: Sequence[str]) -> Where | None:
    """Where a live view is to be shown, if anywhere; what hinders it is said here."""
    if live is None or live is False:
        return None
    from downslope.views.live import where_to_show

    where = where_to_show(live)
    if where is not None and "loss" not in kept_of(keep):
        raise InputError("a live view shows the loss at the records: add 'loss' to keep=")
    return where
