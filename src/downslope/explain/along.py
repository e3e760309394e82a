"""Curvature along runs, as a table: at the start, between, and where each ended."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from downslope.errors import InputError
from downslope.explain.curvature import Curvature
from downslope.explain.facts import settings_of
from downslope.explain.places import few_threads, measure
from downslope.plan import Plan
from downslope.run import no_problem
from downslope.runs import Runs


def curvature_along(runs: Runs, places: int = 5) -> pl.DataFrame:
    """What `Runs.curvature` returns."""
    if runs.path is None:
        raise InputError(
            "curvature along the way needs the parameters along the way: "
            "give descend keep=('loss', 'parameters')"
        )
    if places < 2:
        raise InputError(f"places must be a whole number of at least 2, got {places!r}")
    if runs.plan is None:
        raise InputError(no_problem(runs, "curvature"))
    with few_threads(runs.plan.problem):
        return _measured(runs, runs.plan, places)


def _measured(runs: Runs, plan: Plan, places: int) -> pl.DataFrame:
    assert runs.path is not None
    curvature = Curvature(plan.problem)
    reached = np.maximum((runs.steps >= 0).sum(1) - 1, 0)
    columns = np.round(np.linspace(0, 1, places)[None, :-1] * reached[:, None]).astype(np.int64)
    rows = torch.from_numpy(np.arange(len(runs)))[:, None]
    along = {n: runs.path[n][rows, torch.from_numpy(columns)] for n in curvature.layout.shapes}
    flat = torch.cat(
        [
            curvature.flat({n: t.flatten(0, 1) for n, t in along.items()}).reshape(
                len(runs), places - 1, -1
            ),
            curvature.flat(runs.parameters)[:, None],
        ],
        dim=1,
    )
    steps = np.concatenate(
        [np.take_along_axis(runs.steps, columns, 1), runs.steps_done[:, None]], axis=1
    )
    parts = []
    for group in plan.groups:
        mine = np.flatnonzero(np.isin(runs.settings["run"].to_numpy(), group.index))
        if not len(mine):
            continue
        sign = -1.0 if group.switches.get("maximize") else 1.0
        row = {int(number): place for place, number in enumerate(group.index)}
        told = [settings_of(group, row[int(n)], True, False) for n in runs.settings["run"][mine]]
        decay = np.array([settings.weight_decay for settings in told])
        found = measure(curvature, flat[torch.from_numpy(mine)], sign, decay, falls=False)
        parts.append(
            pl.DataFrame(
                {
                    "run": np.repeat(runs.settings["run"].to_numpy()[mine], places),
                    "step": steps[mine].ravel(),
                    "loss": sign * found.loss.ravel(),
                    "gradient_norm": found.gradient.ravel(),
                    "least_curvature": found.least.ravel(),
                    "largest_curvature": found.largest.ravel(),
                }
            )
        )
    return pl.concat(parts).sort("run", maintain_order=True)
