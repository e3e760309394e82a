"""What a moving picture shows from frame to frame, as plain arrays.

The frames are taken evenly in change, not in steps: a descent that rushes at first and creeps
later is shown slowly where it rushes, and fast where it creeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from downslope.errors import InputError
from downslope.objective import Objective
from downslope.run import Run, no_problem
from downslope.runs import Runs
from downslope.views.data.losses import Floats, LossCurves, loss_curves
from downslope.views.data.paths import Paths, paths
from downslope.views.data.predicting import Ground, Predictor

_LOOKED_AT = 2_000
"""Records at which a prediction is made, to see how much it changes."""

_OUTSIDE = 1.0
"""Heights of the data that a prediction may stretch the picture by, above and below."""

_UNSEEN = 1e-3
"""Share of the picture's height that nobody sees move."""

_KEEP = (
    'record them with keep=("loss", "parameters"), and often enough with every=: '
    'ds.descend(problem, ..., every=10, keep=("loss", "parameters"))'
)


@dataclass(frozen=True, eq=False)
class Told:
    """What is written into each frame.

    Attributes:
        steps, losses: (frames,); total: the steps that the run was to make.
        first_bad_step: of a run that diverged; several: whether they are of several runs.
    """

    steps: NDArray[np.int64]
    losses: Floats
    total: int
    first_bad_step: int | None = None
    several: bool = False

    def words(self, frame: int) -> str:
        """It in words."""
        said = f"step {self.steps[frame]:,} of {self.total:,}"
        if np.isfinite(self.losses[frame]):
            said += f", {'lowest ' if self.several else ''}loss {self.losses[frame]:.4g}"
        if frame == len(self.steps) - 1 and self.first_bad_step is not None:
            said += f": diverged at step {self.first_bad_step:,}"
        return said


@dataclass(frozen=True, eq=False)
class FitFrames:
    """A prediction on its way.

    Attributes:
        made: (frames, made), or (frames, second, first) classes for regions.
        limits: of the vertical axis.
    """

    ground: Ground
    made: Floats
    limits: tuple[float, float]
    told: Told


@dataclass(frozen=True, eq=False)
class PathFrames:
    """A way over the loss: `paths` with this one way, and how many of its points each frame shows,
    (frames,)."""

    paths: Paths
    shown: NDArray[np.int64]
    told: Told


@dataclass(frozen=True, eq=False)
class LossFrames:
    """Loss curves being drawn: up to which place on the axis in each frame, (frames,)."""

    curves: LossCurves
    x: Floats
    told: Told


def evenly(points: Floats, count: int, least: float = 0.0) -> NDArray[np.int64]:
    """Places along a way such that about as much changes from each to the next.

    The first and the last are among them. A jump between two neighbours takes one frame however
    far it is: the others are spread over the rest.

    Args:
        points: (records, numbers), finite.
        count: frames, at most.
        least: what changes less than this, nobody sees: places nearer to each other are left out.

    >>> evenly(np.array([[0.0], [1], [2], [3], [4], [4], [4], [4]]), 3).tolist()
    [0, 2, 7]
    """
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    chosen = _spread(lengths, count) if len(points) > count else np.arange(len(points))
    way = np.concatenate([[0.0], np.cumsum(lengths)])
    seen = [0]
    for place in chosen[1:-1]:
        if way[place] - way[seen[-1]] > least:
            seen.append(int(place))
    return np.unique([*seen, len(points) - 1])


def _spread(lengths: Floats, count: int) -> NDArray[np.int64]:
    """So many places, the same way apart, given the lengths between neighbours."""
    parts = max(count - 1, 1)
    for _ in range(50):  # until no gap is longer than what a frame is to show
        most = lengths.sum() / parts
        if lengths.max() <= most * (1 + 1e-6):
            break
        lengths = np.minimum(lengths, most)
    way = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0, way[-1], parts + 1)
    after = np.clip(np.searchsorted(way, wanted), 1, len(way) - 1)
    nearer = np.where(wanted - way[after - 1] < way[after] - wanted, after - 1, after)
    return np.unique([0, *nearer[1:-1], len(way) - 1])


def fit_frames(runs: Runs, place: int, count: int) -> FitFrames:
    """The prediction of one run on its way, at up to `count` records.

    Raises:
        InputError: if the parameters were not kept, or there is no fit that could be drawn.
    """
    run, way = _way(runs, place, "a fit on its way")
    assert runs.plan is not None
    problem = runs.plan.problem
    predictor = Predictor(problem, _objective(run))
    looked = np.unique(np.linspace(0, len(way) - 1, _LOOKED_AT).round().astype(int))
    path = run.path or {}
    records = np.flatnonzero(run.steps >= 0)[way[looked]]
    made = np.stack([predictor.at({n: v[record] for n, v in path.items()}) for record in records])
    ground = predictor.ground
    limits = _limits(ground, made)
    seen = made.reshape(len(made), -1)
    if ground.kind != "regions":  # in heights of the picture, the mean over the points
        seen = np.clip(seen, *limits) / (limits[1] - limits[0])
    chosen = evenly(seen / seen.shape[1] ** 0.5, count, _UNSEEN)
    told = _told(runs, run, records[chosen])
    return FitFrames(ground, made[chosen], limits, told)


def path_frames(runs: Runs, place: int, count: int) -> PathFrames:
    """The way of one run over the loss, in up to `count` frames: of more than two numbers, on the
    plane of its and the best run's two main directions.

    Raises:
        InputError: if the parameters were not kept, or the runs came without their problem.
    """
    run, _ = _way(runs, place, "a path on its way")
    # Beside it the best run, so that the picture holds the valley however a run leaves it.
    beside = [runs.best.place] if np.isfinite(runs.score).any() else []
    data = paths(runs[[place, *(b for b in beside if b != place)]])
    way = data.paths[0]
    data = replace(data, paths=(way,), runs=1)
    low = np.array([axis[0] for axis in data.axes])
    high = np.array([axis[-1] for axis in data.axes])
    points = way.points
    if len(data.axes) == 1:
        known = data.surface[np.isfinite(data.surface)]
        points = np.column_stack([points, np.nan_to_num(way.losses, nan=np.inf)])
        low, high = np.append(low, known.min()), np.append(high, known.max())
        points = _held_inside(points, low, high)
    scaled = (np.clip(points, low, high) - low) / np.where(high > low, high - low, 1.0)
    chosen = evenly(scaled, count, _UNSEEN)
    told = _told(runs, run, np.flatnonzero(run.steps >= 0)[chosen])
    return PathFrames(data, chosen + 1, told)


def _held_inside(points: Floats, low: Floats, high: Floats) -> Floats:
    """Points (records, 2), each that lies above the picture in the place of the last that did not:
    what goes on up there is not seen."""
    inside = (points[:, 1] <= high[1]) & (points[:, 0] >= low[0]) & (points[:, 0] <= high[0])
    held: Floats = points[np.maximum.accumulate(np.where(inside, np.arange(len(points)), 0))]
    return held


def loss_frames(runs: Runs, place: int | None, count: int) -> LossFrames:
    """Loss curves being drawn, of one run or of all.

    Raises:
        InputError: if the loss at the records was not kept.
    """
    some = runs if place is None else runs[[place]]
    data = loss_curves(some, "step")
    every = [*data.curves, *data.others]
    at = np.unique(np.concatenate([curve.x for curve in every]))
    low, high = np.log10(data.limits) if data.log else data.limits
    heights = []
    for curve in every:
        there = np.isfinite(curve.middle)
        if data.log:
            there &= curve.middle > 0
        if there.any():
            values = np.log10(curve.middle[there]) if data.log else curve.middle[there]
            heights.append(np.interp(at, curve.x[there], np.clip(values, low, high)))
    columns = np.array(heights).T.reshape(len(at), -1) / (high - low or 1.0)
    # As far as the pen moves: along the axis too, or a flat part would be over at once.
    moved = np.column_stack([at / (at[-1] or 1.0), columns / max(columns.shape[1], 1) ** 0.5])
    chosen = evenly(moved, count, _UNSEEN)
    total = _total(some, len(some) - 1 if place is None else 0)
    total = max(total, int(at[-1]))
    lowest = _lowest(data, at[chosen])
    bad = some.first_bad_step[0] if len(some) == 1 and some.diverged[0] else None
    first_bad = None if bad is None else int(bad)
    told = Told(at[chosen].astype(np.int64), lowest, total, first_bad, len(some) > 1)
    return LossFrames(data, at[chosen], told)


def _lowest(data: LossCurves, x: Floats) -> Floats:
    """The lowest loss that a curve has at each place, of those that still go on."""
    found = np.full(len(x), np.nan)
    for curve in (*data.curves, *data.others):
        if len(curve.x):
            last = np.searchsorted(curve.x, x, side="right") - 1
            found = np.fmin(found, np.where(last >= 0, curve.middle[last], np.nan))
    return found


def _way(runs: Runs, place: int, what: str) -> tuple[Run, NDArray[np.int64]]:
    """A run, and which of its records hold finite parameters, counted among those it has."""
    run = runs[place]
    if run.path is None:
        raise InputError(
            f"{what} needs the parameters at the records, which were not kept; {_KEEP}"
        )
    if runs.plan is None:
        raise InputError(no_problem(runs, what))
    here = run.steps >= 0
    flat = [v[here].reshape(int(here.sum()), -1) for v in run.path.values()]
    finite = np.all([v.isfinite().all(1).cpu().numpy() for v in flat], axis=0)
    if not finite.any():
        raise InputError(f"run {run.number} has no record with finite parameters: nothing moves")
    return run, np.flatnonzero(finite)


def _objective(run: Run) -> Objective:
    """One whose model is the run's own, constants and buffers too."""
    assert run.runs.plan is not None
    objective = run.runs.plan.problem.fresh(int(run.runs.settings["seed"][run.place]))
    model: nn.Module = run.model
    objective.model.load_state_dict(model.state_dict())
    return objective


def _told(runs: Runs, run: Run, records: NDArray[np.int64]) -> Told:
    losses = run.loss[records].astype(np.float64)
    bad = int(runs.first_bad_step[run.place]) if run.status == "diverged" else None
    return Told(run.steps[records], losses, _total(runs, run.place), bad)


def _total(runs: Runs, place: int) -> int:
    """How many steps a run was to make."""
    most = int(runs.steps[place].max())
    if runs.plan is None:
        return most
    chunk, _ = runs.plan.find(int(runs.settings["run"][place]))
    return max(most, runs.plan.work(chunk).updates)


def _limits(ground: Ground, made: Floats) -> tuple[float, float]:
    """The vertical axis: the data, and the predictions as far as they are not wildly off."""
    low, high = float(ground.y.min()), float(ground.y.max())
    if ground.kind == "regions":
        return float(ground.at[1, 0]), float(ground.at[1, -1])
    height = high - low or max(1.0, abs(high))
    finite = made[np.isfinite(made)]
    least, most = finite.min(initial=low), finite.max(initial=high)
    bottom, top = max(least, low - _OUTSIDE * height), min(most, high + _OUTSIDE * height)
    room = 0.05 * (top - bottom or 1.0)
    return bottom - room, top + room
