"""Advice followed: the run once more, with the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from downslope.engines.starts import stacked_starts
from downslope.engines.work import Start, Work
from downslope.execution import carry_out
from downslope.explain.again import asked_engine, at_length
from downslope.explain.findings import Advice, Trial
from downslope.explain.rows import standardised, without
from downslope.explain.words import say
from downslope.objective import MODEL_PREFIX
from downslope.plan import make_plan
from downslope.problem import Problem
from downslope.randomness import borrowed
from downslope.run import Run

_OF_PROBLEM = ("standardise", "without_rows")
_OF_START = ("start_times", "start_push", "start_end", "start_fresh")

_TAIL = 8
"""The last 1 / _TAIL of the records are averaged where batches are noisy."""


def follow(run: Run, advice: Advice) -> Trial:
    """Carry out `run` with the advised change, and see whether that did what it should."""
    plan = run._plan("a trial of its advice")
    chunk, place = plan.find(run.number)
    part = plan.groups[chunk.group].part(slice(place, place + 1))
    work = Work(plan.problem, part, plan.options, plan.starts)
    settings = {n: v for n, v in advice.change.items() if n not in (*_OF_PROBLEM, *_OF_START)}
    updates = int(settings.pop("steps", work.updates))
    clip = np.array([float(settings.pop("clip_norm", part.clip_norm[0]))])
    numbers = {**part.numbers, **{n: np.array([float(v)]) for n, v in settings.items()}}
    start = _start(run, work, advice.change)
    part = replace(part, numbers=numbers, clip_norm=clip, start=np.zeros(1, dtype=np.int64))
    problem = _changed(plan.problem, advice.change)
    options = at_length(plan, updates, max(1, updates // 200))
    engine = "auto" if advice.change.keys() & set(_OF_PROBLEM) else asked_engine(chunk)
    made = carry_out(make_plan(problem, options, (start,), [part], engine), None, False)
    return _judged(run, made, advice)


def _changed(problem: Problem, change: Mapping[str, Any]) -> Problem:
    if change.get("standardise"):
        problem = standardised(problem) or problem
    if "without_rows" in change:
        problem = without(problem, change["without_rows"])
    return problem


def _start(run: Run, work: Work, change: Mapping[str, Any]) -> Start | None:
    """Where the run starts, as the change has it; None for its own start."""
    if change.get("start_fresh"):
        return _fresh(work.problem, int(work.group.seed[0]))
    begun = run.state if change.get("start_end") else work.starts[int(work.group.start[0])]
    times, push = change.get("start_times", 1.0), change.get("start_push", 0.0)
    if times == 1.0 and not push:
        return begun
    if begun is None:
        begun = {n: t[0] for n, t in stacked_starts(work, work.problem.names).items()}
    generator = torch.Generator().manual_seed(int(work.group.seed[0]))
    moved = {
        n: times * t + push * torch.randn(t.shape, generator=generator, dtype=t.dtype)
        for n, t in begun.items()
        if n in work.problem.names
    }
    return {**begun, **moved}


def _fresh(problem: Problem, seed: int) -> Start:
    """Parameters as torch's layers draw them; those that no layer draws, small at random."""
    objective = problem.fresh(seed)
    with borrowed(torch.device("cpu"), seed + 1):
        drawn = set()
        for name, module in objective.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                drawn |= {f"{name}.{n}" for n, _ in module.named_parameters()}
        values = dict(objective.named_parameters())
        for name, value in values.items():
            if name not in drawn:
                value.data.normal_(0, 0.5)
    return {n: values[MODEL_PREFIX + n].detach().clone() for n in problem.names}


def _judged(run: Run, made: Any, advice: Advice) -> Trial:
    after_run = made[0]
    before, after = _last(run.runs.loss[run.place]), _last(after_run.loss)
    sign = float(made.signs[0])
    first = float(after_run.loss[0])
    step = int(made.first_bad_step[0])
    if step >= 0:
        return Trial(False, before, float("nan"), say("trial.diverged", step=step), made)
    if advice.should == "stable":
        held = bool(np.isfinite(after) and sign * after <= sign * first)
    elif advice.should == "reach" and advice.goal is not None:
        held = sign * after <= advice.goal + 1e-12 * abs(advice.goal)
    else:
        held = not np.isfinite(before) or sign * after < sign * before
    key = "trial.held" if held else "trial.failed"
    return Trial(held, before, after, say(key, before=before, after=after), made)


def _last(losses: Any) -> float:
    """The mean of the last records that are finite."""
    finite = losses[np.isfinite(losses)]
    return float(np.mean(finite[-max(1, len(finite) // _TAIL) :])) if len(finite) else float("nan")
