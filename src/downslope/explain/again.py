"""Runs looked at again: carried out once more, with what their findings need recorded.

A run depends on its own settings alone, so that it is the same run again; what its first time
recorded is not changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from downslope.engines.work import Options
from downslope.execution import carry_out
from downslope.plan import FUSED, Chunk, Plan, make_plan
from downslope.run import Run
from downslope.runs import Runs

RECORDS = 240
"""Records of the loss and parameters along a run, about."""

LONGEST = 60.0
"""Seconds, roughly guessed, above which runs are not carried out once more."""

_BYTES = 2**28
"""Bytes of records that are held at a time, about."""


def seconds(plan: Plan, numbers: NDArray[np.int64]) -> float:
    """A rough guess of how long these runs take once more; compiled ones take next to nothing."""
    total = 0.0
    for chunk in plan.chunks:
        index = plan.index(chunk)
        share = np.isin(index, numbers).sum() / len(index)
        if share and chunk.engine not in FUSED:
            total += plan.seconds(chunk) * (1.0 if chunk.engine == "stacked" else share)
    return total


def blocks(plan: Plan, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Run numbers in blocks of one group each, as many as memory should hold at a time."""
    size = sum(shape.numel() for shape in plan.problem.shapes.values())
    made = []
    for group in plan.groups:
        mine = group.index[np.isin(group.index, numbers)]
        if not len(mine):
            continue
        updates = plan.work(plan.find(int(mine[0]))[0]).updates
        step = max(1, _BYTES // (8 * (2 * updates + 3 * RECORDS * (size + 2))))
        made += [mine[a : a + step] for a in range(0, len(mine), step)]
    return made


def seen_again(plan: Plan, numbers: NDArray[np.int64]) -> Runs:
    """These runs of one group, with losses, gradient norms and parameters along the way.

    Records lie an odd number of updates apart: what turns round at every update does so from one
    record to the next, too.
    """
    chunk, _ = plan.find(int(numbers[0]))
    group, updates = plan.groups[chunk.group], plan.work(chunk).updates
    gap = -(-updates // RECORDS)
    options = at_length(
        plan, updates, max(1, gap + (gap + 1) % 2), "batch_loss", "gradient_norm", "parameters"
    )
    part = group.part(np.flatnonzero(np.isin(group.index, numbers)))
    made = make_plan(plan.problem, options, plan.starts, [part], asked_engine(chunk))
    return carry_out(made, None, False)


def at_length(plan: Plan, updates: int, every: int, *keep: str) -> Options:
    """The options of a plan for runs of so many updates, recorded as often as `every` says and not
    ended before by tolerance or patience, which go by the records."""
    return replace(
        plan.options,
        updates=updates,
        epochs=None,
        every=every,
        keep=frozenset({"loss", *keep}),
        tolerance=None,
        patience=None,
    )


def asked_engine(chunk: Chunk) -> str:
    """The engine of a chunk as a caller names it."""
    return "fused" if chunk.engine in FUSED else chunk.engine


def closer(run: Run) -> Run:
    """The same run with its loss at some `RECORDS` places and every batch's, for its picture.

    It is carried out once more; where its problem is not known, or that would take longer than
    `LONGEST`, it is given back as it was recorded.
    """
    plan, numbers = run.runs.plan, np.array([run.number])
    if plan is None or plan.unknown or seconds(plan, numbers) > LONGEST:
        return run
    own = run.runs[[run.place]]
    seen = seen_again(plan, numbers)
    done, bad = int(own.steps_done[0]), int(own.first_bad_step[0])
    assert seen.batch_loss is not None
    beyond = (seen.steps < 0) | (seen.steps > done)
    updates = np.arange(seen.batch_loss.shape[1]) >= (done if bad < 0 else bad)
    return replace(
        own,
        steps=np.where(beyond, -1, seen.steps),
        loss=np.where(beyond, np.nan, seen.loss),
        batch_loss=np.where(updates, np.nan, seen.batch_loss),
        validation_loss=None,
        gradient_norm=None,
        path=None,
    )[0]
