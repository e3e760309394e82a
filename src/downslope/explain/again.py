"""Runs looked at again: carried out once more, with what their findings need recorded.

A run depends on its own settings alone, so that it is the same run again; what its first time
recorded is not changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from downslope.descent import carry_out
from downslope.engines.work import Options
from downslope.plan import FUSED, Plan, make_plan
from downslope.runs import Runs

RECORDS = 240
"""Records of the loss and parameters along a run, about."""

LONGEST = 60.0
"""Seconds, roughly guessed, above which runs are not carried out once more."""

_BYTES = 2**28
"""Bytes of records that are held at a time, about."""


def seconds(plan: Plan, numbers: NDArray[np.int64]) -> float:
    """A rough guess of how long these runs take once more."""
    total = 0.0
    for chunk in plan.chunks:
        share = np.isin(plan.index(chunk), numbers).sum()
        if share and chunk.engine not in FUSED:
            work = plan.work(chunk)
            total += work.updates * (3e-4 if chunk.engine == "stacked" else 2e-4 * int(share))
    return total


def blocks(plan: Plan, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Run numbers in blocks of one group each, as many as memory should hold at a time."""
    engines = {chunk.group: chunk for chunk in plan.chunks}
    size = sum(shape.numel() for shape in plan.problem.shapes.values())
    made = []
    for place, group in enumerate(plan.groups):
        mine = group.index[np.isin(group.index, numbers)]
        if not len(mine):
            continue
        each = 8 * (2 * plan.work(engines[place]).updates + 3 * RECORDS * (size + 2))
        step = max(1, _BYTES // each)
        made += [mine[a : a + step] for a in range(0, len(mine), step)]
    return made


def seen_again(plan: Plan, numbers: NDArray[np.int64]) -> Runs:
    """These runs of one group, with losses, gradient norms and parameters along the way.

    Records lie an odd number of updates apart: what turns round at every update does so from one
    record to the next, too. Tolerance and patience are left out, since they go by the records.
    """
    place = next(p for p, g in enumerate(plan.groups) if np.isin(numbers, g.index).any())
    chunk = next(c for c in plan.chunks if c.group == place)
    group = plan.groups[place]
    updates = plan.work(chunk).updates
    gap = -(-updates // RECORDS)
    options: Options = replace(
        plan.options,
        updates=updates,
        epochs=None,
        every=max(1, gap + (gap + 1) % 2),
        keep=frozenset({"loss", "batch_loss", "gradient_norm", "parameters"}),
        tolerance=None,
        patience=None,
    )
    engine = "fused" if chunk.engine in FUSED else chunk.engine
    part = group.part(np.flatnonzero(np.isin(group.index, numbers)))
    return carry_out(make_plan(plan.problem, options, plan.starts, [part], engine), None, False)
