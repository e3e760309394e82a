"""What the picture of paths shows, as plain arrays: ways over the loss of one or two numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from downslope.errors import InputError, listed
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.problem_rows import row_blocks
from downslope.runs import Runs
from downslope.views.data.losses import Floats
from downslope.views.data.settings import settings_of

MOST_PANELS = 6
_CURVE_POINTS = 201
_ROOF = 2.0
"""Times the height of the start above the least loss: a way that climbs higher is not followed."""
_MOST_ROW_EVALUATIONS = 20_000_000


@dataclass(frozen=True, eq=False)
class Path:
    """One run's way: points (records, 1 or 2) and the loss at each (records,)."""

    label: str
    points: Floats
    losses: Floats
    diverged: bool


@dataclass(frozen=True, eq=False)
class Paths:
    """Some runs' ways over the loss of one or two numbers.

    Attributes:
        names: of the one or two numbers.
        axes: for each number the values at which the loss is known.
        surface: the loss there: (values,), or (values of the second, values of the first).
        runs: how many runs there are in all.
    """

    names: tuple[str, ...]
    axes: tuple[Floats, ...]
    surface: Floats
    paths: tuple[Path, ...]
    runs: int
    y_label: str


def paths(runs: Runs) -> Paths:
    """The ways of up to `MOST_PANELS` runs, spread evenly over them.

    Raises:
        InputError: if the paths were not kept, or the parameters are more than two numbers.
    """
    if runs.path is None:
        raise InputError(
            "the paths were not kept: descend with keep=('loss', 'parameters') to draw them"
        )
    if runs.plan is None:
        raise InputError(no_problem("paths over the loss"))
    names = [
        name if tensor[0, 0].numel() == 1 else f"{name}[{place}]"
        for name, tensor in runs.path.items()
        for place in range(tensor[0, 0].numel())
    ]
    if len(names) > 2:
        raise InputError(
            f"a path can be drawn over one or two numbers, but the parameters "
            f"{listed(runs.path)} hold {len(names):,}"
        )
    problem = runs.plan.problem
    places = np.unique(np.linspace(0, len(runs) - 1, MOST_PANELS).round().astype(int))
    label = {int(row): s.label for s in settings_of(runs) for row in s.rows}
    several = any(len(s.rows) > 1 for s in settings_of(runs))
    drawn = []
    for place in places:
        run = runs[int(place)]
        flat = [t.double().cpu().reshape(len(t), -1).numpy() for t in (run.path or {}).values()]
        there = run.steps >= 0
        points = np.concatenate(flat, axis=1)[there]
        losses = run.loss[there].astype(np.float64)
        if not np.isfinite(losses).all():
            losses = loss_at(problem, points)
        seed = f", seed {runs.settings['seed'][int(place)]}" if several else ""
        drawn.append(Path(label[int(place)] + seed, points, losses, run.status == "diverged"))
    axes = _frame(drawn, problem)
    mesh = np.meshgrid(*axes)
    surface = loss_at(problem, np.stack([m.ravel() for m in mesh], axis=1))
    symbol = f"f({names[0]})" if len(names) == 1 and problem.train is None else "Loss"
    return Paths(
        tuple(names), axes, surface.reshape(mesh[0].shape), tuple(drawn), len(runs), symbol
    )


def loss_at(problem: Problem, points: Floats) -> Floats:
    """The loss over all training rows at parameters (points, numbers), (points,)."""
    objective = problem.fresh(0).eval()
    values = [objective.get_parameter(MODEL_PREFIX + name) for name in problem.names]
    rows = problem.train
    blocks = [(slice(0, 0), 1.0)] if rows is None else row_blocks(problem, rows)
    found = np.empty(len(points))
    with torch.no_grad():
        for number, point in enumerate(points):
            flat = torch.from_numpy(point).split([v.numel() for v in values])
            for value, given in zip(values, flat, strict=True):
                value.copy_(given.reshape(value.shape))
            if rows is None:
                found[number] = float(objective())
            else:
                parts = [w * float(objective(rows[b].x, rows[b].y)) for b, w in blocks]
                found[number] = sum(parts)
    return found


def _frame(drawn: list[Path], problem: Problem) -> tuple[Floats, ...]:
    """Values of each number that hold every way as far as its loss is not blown up."""
    finite = np.concatenate([p.losses[np.isfinite(p.losses)] for p in drawn])
    first = max(p.losses[0] for p in drawn)
    floor = finite.min(initial=first)
    roof = floor + _ROOF * max(first - floor, 1e-12)
    inside = [p.points[np.isfinite(p.losses) & (p.losses <= roof)] for p in drawn]
    points = np.concatenate([*inside, *(p.points[:1] for p in drawn)])
    low, high = points.min(0), points.max(0)
    room = np.where(high > low, 0.12 * (high - low), 0.5 * np.maximum(1.0, abs(high)))
    if points.shape[1] == 1:
        count = _CURVE_POINTS
    else:
        rows = 0 if problem.train is None else len(problem.train)
        count = int(np.clip((_MOST_ROW_EVALUATIONS / max(rows, 1)) ** 0.5, 15, 61))
    ends = zip(low - room, high + room, strict=True)
    return tuple(np.linspace(a, b, count) for a, b in ends)


def no_problem(what: str) -> str:
    """What to say where runs were loaded without their problem."""
    return (
        f"these runs were loaded without their problem: for {what}, "
        "load them with downslope.load(folder, problem=...)"
    )
