"""Advice followed: the run once more, with the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from downslope.descent import carry_out
from downslope.engines.work import Work
from downslope.explain.findings import Advice, Trial
from downslope.explain.known import Known
from downslope.explain.rows import standardised, without
from downslope.explain.words import say
from downslope.objective import MODEL_PREFIX
from downslope.plan import FUSED, Plan, make_plan
from downslope.problem import Problem
from downslope.randomness import borrowed
from downslope.runs import Run

_OF_PROBLEM = ("standardise", "without_rows")
_OF_START = ("start_times", "start_push", "start_end", "start_fresh")

_TAIL = 8
"""The last 1 / _TAIL of the records are averaged where batches are noisy."""


def follow(run: Run, advice: Advice, known: Known) -> Trial:
    """Carry out `run` with the advised change, and see whether that did what it should."""
    plan = run._plan("a trial of its advice")
    chunk = next(c for c in plan.chunks if (plan.index(c) == run.number).any())
    group = plan.groups[chunk.group]
    place = int(np.flatnonzero(group.index == run.number)[0])
    part = group.part(slice(place, place + 1))
    settings = {n: v for n, v in advice.change.items() if n not in (*_OF_PROBLEM, *_OF_START)}
    updates = int(
        settings.pop("steps", Work(plan.problem, part, plan.options, plan.starts).updates)
    )
    clip = np.array([float(settings.pop("clip_norm", part.clip_norm[0]))])
    numbers = {**part.numbers, **{n: np.array([float(v)]) for n, v in settings.items()}}
    part = replace(part, numbers=numbers, clip_norm=clip, start=np.zeros(1, dtype=np.int64))
    problem = _changed(plan.problem, advice.change)
    starts = (_start(run, plan, advice.change, known),)
    options = replace(
        plan.options, updates=updates, epochs=None, every=max(1, updates // 200),
        keep=frozenset({"loss"}), tolerance=None, patience=None,
    )  # fmt: skip
    engine = "fused" if chunk.engine in FUSED else chunk.engine
    engine = "auto" if advice.change.keys() & set(_OF_PROBLEM) else engine
    made = carry_out(make_plan(problem, options, starts, [part], engine), None, False)
    return _judged(run, made, advice)


def _changed(problem: Problem, change: Mapping[str, Any]) -> Problem:
    if change.get("standardise"):
        problem = standardised(problem) or problem
    if "without_rows" in change:
        problem = without(problem, change["without_rows"])
    return problem


def _start(run: Run, plan: Plan, change: Mapping[str, Any], known: Known) -> Any:
    """Where the run starts, as the change has it; None for its own start."""
    begun = (
        int(run.runs.settings["start"][run.place]) if "start" in run.runs.settings.columns else 0
    )
    given = plan.starts[begun]
    if change.get("start_end"):
        given = run.state
    if not change.keys() & {"start_times", "start_push", "start_fresh"}:
        return given
    seed = int(run.runs.settings["seed"][run.place])
    if change.get("start_fresh"):
        return _fresh(plan.problem, seed)
    named = dict(plan.problem.fresh(seed).named_parameters())
    start = {n: named[MODEL_PREFIX + n].detach().clone() for n in plan.problem.names}
    start |= {n: t.clone() for n, t in (given or {}).items()}
    times, push = change.get("start_times", 1.0), change.get("start_push", 0.0)
    generator = torch.Generator().manual_seed(seed)

    def moved(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return times * value + push * noise

    return {n: moved(t) if n in plan.problem.names else t for n, t in start.items()}


def _fresh(problem: Problem, seed: int) -> Any:
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
    sign = float(made._sign[0])
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
