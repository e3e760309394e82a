"""What the picture of a fit shows, as plain arrays: the best run's predictions beside the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.errors import InputError, listed, nearest
from downslope.problem import Problem
from downslope.runs import Run, Runs
from downslope.views.data.losses import Floats
from downslope.views.data.paths import no_problem

MOST_POINTS = 5_000
_CURVE_POINTS = 201


@dataclass(frozen=True, eq=False)
class Fit:
    """Data and what the best run predicts.

    Attributes:
        kind: "curve" (y and the prediction against the only feature), "feature" (against one of
            several), "numbers" (predicted against true), "classes" (counts of them).
        x: (points,) the feature, or the true values; y: (points,) the data, or the predictions.
        made_x, made_y: where and what was predicted, for "curve" and "feature".
        counts: (true classes, predicted classes).
        names: of the horizontal and the vertical axis; classes: the classes' names.
        label: what the points are.
    """

    kind: Literal["curve", "feature", "numbers", "classes"]
    names: tuple[str, str]
    label: str
    x: Floats
    y: Floats
    made_x: Floats
    made_y: Floats
    counts: NDArray[np.int64]
    classes: tuple[str, ...] = ()


def fit(runs: Runs, feature: str | int | None = None) -> Fit:
    """The best run's predictions of the training rows, in the target's own units for a table.

    Args:
        feature: of several, draw the target against this one (a name, or a number from 0);
            without it predicted against true values.

    Raises:
        InputError: for a problem without data, an unknown feature, or more than one output.
    """
    best = runs.best
    if runs.plan is None:
        raise InputError(no_problem("its predictions"))
    problem = runs.plan.problem
    rows = problem.train
    if rows is None or rows.y is None:
        raise InputError("there is no fit to draw: the problem has no data with a target")
    chosen = np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int))
    some = rows[torch.from_numpy(chosen)]
    label = "training rows" if len(chosen) == len(rows) else f"{len(chosen):,} training rows"
    assert some.y is not None
    with torch.no_grad():
        made = best.model(some.x)
    none = np.empty(0)
    if not some.y.is_floating_point() or (problem.table and problem.table.schema.target.classes):
        return _classes(problem, some.y, made, label)
    if made.numel() != len(some):
        raise InputError(
            f"a fit can be drawn for one output, but the model's have shape {tuple(made.shape[1:])}"
        )
    features = some.x.reshape(len(some), -1).double().cpu().numpy()
    names, means, scales, target = _features(problem, features.shape[1])
    true, predicted = _own(problem, some.y), _own(problem, made)
    no_counts = np.empty((0, 0), dtype=np.int64)
    if len(names) > 1 and feature is None:
        axes = (f"True {target}", f"Predicted {target}")
        return Fit("numbers", axes, label, true, predicted, none, none, no_counts)
    place = 0 if feature is None else _place(names, feature)
    x = features[:, place] * scales[place] + means[place]
    made_x, made_y = x, predicted
    if len(names) == 1:
        made_x, made_y = _curve(best, problem, some.x, means[0], scales[0])
    kind: Literal["curve", "feature"] = "curve" if len(names) == 1 else "feature"
    return Fit(kind, (names[place], target), label, x, true, made_x, made_y, no_counts)


def _classes(problem: Problem, y: Tensor, made: Tensor, label: str) -> Fit:
    one_output = made.ndim == 1 or made.shape[-1] == 1
    predicted = (made.reshape(-1) > 0).long() if one_output else made.argmax(1).reshape(-1)
    true = y.reshape(-1).long().cpu().numpy()
    count = max(2, 1 if one_output else made.shape[1], int(true.max()) + 1)
    counts = np.zeros((count, count), dtype=np.int64)
    np.add.at(counts, (true, predicted.cpu().numpy()), 1)
    classes = tuple(map(str, range(count)))
    name = "class"
    if problem.table is not None:
        classes, name = problem.table.schema.target.classes, problem.table.schema.target.name
    none = np.empty(0)
    axes = (f"Predicted {name}", f"True {name}")
    return Fit("classes", axes, label, none, none, none, none, counts, classes)


def _curve(best: Run, problem: Problem, x: Tensor, mean: float, scale: float) -> tuple[Any, Any]:
    """The prediction between the least and the greatest value of the only feature."""
    low, high = float(x.min()), float(x.max())
    at = torch.linspace(low, high, _CURVE_POINTS, dtype=x.dtype, device=x.device)
    with torch.no_grad():
        made = best.model(at.reshape(-1, *x.shape[1:]))
    return at.double().cpu().numpy() * scale + mean, _own(problem, made)


def _own(problem: Problem, values: Tensor) -> Floats:
    plain = values.detach().double().cpu().reshape(-1).numpy()
    return plain if problem.table is None else problem.table.schema.to_own_units(plain)


def _features(problem: Problem, count: int) -> tuple[list[str], list[float], list[float], str]:
    """The features' names, means and scales, and the target's name."""
    if problem.table is None:
        names = ["x"] if count == 1 else [f"x[{place}]" for place in range(count)]
        return names, [0.0] * count, [1.0] * count, "y"
    schema = problem.table.schema
    each = [(name, c.mean, c.scale) for c in schema.columns for name in c.feature_names]
    named, means, scales = zip(*each, strict=True)
    return list(named), list(means), list(scales), schema.target.name


def _place(names: list[str], feature: str | int) -> int:
    if isinstance(feature, int) and 0 <= feature < len(names):
        return feature
    if isinstance(feature, str) and feature in names:
        return names.index(feature)
    hint = nearest(str(feature), names)
    raise InputError(f"there is no feature {feature!r}{hint}; the features are {listed(names)}")
