"""Facts about runs: carried out again, and measured at places along their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.layout import needs_loss, read_sequences
from downslope.engines.starts import stacked_starts
from downslope.engines.work import Status, Work
from downslope.explain.again import LONGEST, blocks, seconds, seen_again
from downslope.explain.curvature import Curvature
from downslope.explain.facts import (
    PLACES,
    Facts,
    Place,
    Settings,
    moves,
    place_of,
    settings_of,
    where_at,
)
from downslope.explain.places import Places, measure
from downslope.plan import Plan
from downslope.runs import Runs


def facts_of(runs: Runs, plan: Plan, curvature: Curvature) -> Iterator[Facts]:
    """The facts of each run, in the order of the runs.

    Runs that would take longer than `again.LONGEST` once more are known by their records, their
    start and their end alone.
    """
    numbers = runs.settings["run"].to_numpy()
    found: dict[int, Facts] = {}
    for some in blocks(plan, numbers):
        mine = runs[np.isin(numbers, some)]
        seen = seen_again(plan, some) if seconds(plan, some) <= LONGEST else mine
        found |= {facts.number: facts for facts in _facts(mine, seen, plan, curvature)}
    return (found[int(number)] for number in numbers)


def _facts(runs: Runs, seen: Runs, plan: Plan, curvature: Curvature) -> Iterator[Facts]:
    """Facts of runs of one group.

    Args:
        runs: as they were recorded.
        seen: the same runs as they were seen again.
    """
    chunk, _ = plan.find(int(runs.settings["run"][0]))
    group, work = plan.groups[chunk.group], plan.work(chunk)
    rows = [int(np.flatnonzero(group.index == n)[0]) for n in runs.settings["run"]]
    steps, reached = _reached(runs, seen)
    path = None if seen.path is None else _joined(curvature, seen.path)
    columns = _columns(seen, steps, reached)
    end = curvature.flat(runs.parameters)
    if path is None:  # the start, over and over
        mine = replace(work, group=group.part(np.array(rows)))
        start = curvature.flat(stacked_starts(mine, list(curvature.layout.shapes)))
        flat = torch.stack([start] * (len(PLACES) - 1) + [end], dim=1)
    else:
        index = torch.tensor(columns)[:, :, None].expand(-1, -1, path.shape[2])
        flat = torch.cat([torch.gather(path, 1, index), end[:, None]], dim=1)
    scheduled = plan.options.schedule is not None
    told = [settings_of(group, row, work.full, scheduled) for row in rows]
    if scheduled:
        ends = np.where(runs.first_bad_step > 0, runs.first_bad_step, runs.steps_done)
        told = _in_force(work, rows, told, ends)
    places = measure(
        curvature, flat, work.sign, np.array([settings.weight_decay for settings in told])
    )
    for run, settings in enumerate(told):
        last = reached[run]
        done = int(runs.steps_done[run])
        first_bad = int(runs.first_bad_step[run])
        updates = done if first_bad < 0 else first_bad
        turned, pace = np.nan, np.nan
        if path is not None:
            turned, pace = moves(path[run, : last + 1], steps[run, : last + 1])
        moved = flat[run, -1] - flat[run, 0]
        yield Facts(
            number=int(runs.settings["run"][run]),
            settings=settings,
            status=Status(runs.status[run]).name,
            first_bad_step=first_bad,
            steps_done=done,
            loss=settings.sign * seen.loss[run, : last + 1].astype(np.float64),
            steps=steps[run, : last + 1],
            batch_loss=settings.sign * _some(seen.batch_loss, run, updates),
            norms=_some(seen.gradient_norm, run, updates),
            turned=turned,
            pace=pace,
            moved=float(moved.norm()),
            size=float(flat[run, 0].norm()),
            places=_named(places, run, steps[run], columns[run], done),
            at=flat[run],
        )


def _in_force(
    work: Work, rows: Sequence[int], told: list[Settings], ends: NDArray[np.int64]
) -> list[Settings]:
    """The settings with the rate of each run's last update in the place of its base rate; None
    where a scheduler that looks at the loss made it."""
    if needs_loss(work):
        return [replace(settings, lr=None) for settings in told]
    rates = read_sequences(work, rows).get("lr")
    if rates is None or rates.shape[2] > 1:
        return told if rates is None else [replace(settings, lr=None) for settings in told]
    schedule = work.options.schedule
    gap = work.updates_per_epoch if schedule is not None and schedule.per == "epoch" else 1
    made = []
    for run, settings in enumerate(told):
        last = min(max(int(ends[run]) - 1, 0) // gap, len(rates) - 1)
        used = rates[: last + 1, run, 0]
        made.append(replace(settings, lr=float(used[-1]), highest_lr=float(used.max())))
    return made


def _some(values: NDArray[np.floating] | None, run: int, count: int) -> NDArray[np.float64]:
    if values is None:
        return np.empty(0)
    return values[run, :count].astype(np.float64)


def _reached(runs: Runs, seen: Runs) -> tuple[NDArray[np.int64], list[int]]:
    """Steps of the records, and the last record of each run that it reached as it first was."""
    steps = np.asarray(seen.steps)
    finite = np.isfinite(seen.loss)
    inside = finite & (steps >= 0) & (steps <= runs.steps_done[:, None])
    last = [int(np.flatnonzero(row)[-1]) if row.any() else 0 for row in inside]
    return steps, last


def _joined(curvature: Curvature, path: Mapping[str, Tensor]) -> Tensor:
    """{name: (runs, records, *shape)} as (runs, records, size)."""
    names = list(curvature.layout.shapes)
    parts = [path[name].to(curvature.dtype).reshape(*path[name].shape[:2], -1) for name in names]
    return torch.cat(parts, dim=2)


def _columns(seen: Runs, steps: NDArray[np.int64], reached: list[int]) -> list[list[int]]:
    """The records of the places, by `PLACES`, for each run; the last is the run's own end."""
    if seen.path is None:
        return [[0] * (len(PLACES) - 1) for _ in reached]
    made = []
    for run, last in enumerate(reached):
        losses = seen.loss[run, : last + 1]
        sign = float(seen.signs[run])
        calm = int(np.nanargmin(sign * losses)) if np.isfinite(losses).any() else 0
        made.append([0, calm, last // 4, last // 2, 3 * last // 4])
    return made


def _named(
    places: Places, run: int, steps: NDArray[np.int64], columns: list[int], done: int
) -> dict[str, Place]:
    at = [int(steps[column]) for column in columns] + [done]
    return {
        label: place_of(places, run, column, where_at(step))
        for column, (label, step) in enumerate(zip(PLACES, at, strict=True))
    }
