"""What the picture of a fit shows, as plain arrays: the best run's predictions beside the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.data import Rows
from downslope.errors import InputError
from downslope.problem import Problem
from downslope.run import no_problem
from downslope.runs import Runs
from downslope.views.data.classes import (
    Regions,
    class_names,
    counts,
    is_classifier,
    outputs_of,
    predicted_classes,
    regions,
    true_classes,
)
from downslope.views.data.features import (
    Features,
    encoded,
    features_of,
    predicted,
    some,
    target_units,
)
from downslope.views.data.losses import Floats

_CURVE_POINTS = 201
_NONE = np.empty(0)
_NO_COUNTS = np.empty((0, 0), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Points:
    """Rows that were kept apart.

    Attributes:
        label: what they are: ``validation rows``, ``test rows``.
        x, y: (points,), as in `Fit`; of_class: (points,), the class of each, for "regions".
        counts: as in `Fit`, for "classes", which have no points.
    """

    label: str
    x: Floats
    y: Floats
    of_class: NDArray[np.int64] | None = None
    counts: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """Data and what the best run predicts.

    Attributes:
        kind: "curve" (y and the prediction against the only feature), "feature" (against one of
            several), "numbers" (predicted against true), "regions" (of a plane of two features, by
            the predicted class), "classes" (counts of them).
        x: (points,) the feature, the true values, or the first feature; y: (points,) the data, the
            predictions, or the second feature; both of the training rows.
        made_x, made_y: where and what was predicted, for "curve" and "feature".
        counts: (true classes, predicted classes), of the training rows.
        names: of the horizontal and the vertical axis; classes: the classes' names.
        label: what the points are.
        target: what is predicted.
        apart: the same of validation and test rows, if there are any.
        of_class: (points,), the class of each training row; regions: for "regions".
    """

    kind: Literal["curve", "feature", "numbers", "regions", "classes"]
    names: tuple[str, str]
    label: str
    x: Floats
    y: Floats
    made_x: Floats
    made_y: Floats
    counts: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    target: str = "y"
    apart: tuple[Points, ...] = ()
    of_class: NDArray[np.int64] | None = None
    regions: Regions | None = None


def fit(runs: Runs, feature: str | int | None = None) -> Fit:
    """The best run's predictions of the training rows and of those kept apart, in the target's own
    units for a table.

    Args:
        feature: of several, draw the target against this one (a name, or a number from 0);
            without it predicted against true values.

    Raises:
        InputError: for a problem without data, an unknown feature, or more than one output.
    """
    if runs.plan is None:
        raise InputError(no_problem(runs, "its predictions"))
    problem = runs.plan.problem
    if problem.train is None or problem.train.y is None:
        raise InputError("there is no fit to draw: the problem has no data with a target")
    parts = [
        some(rows, what)
        for rows, what in (
            (problem.train, "training rows"),
            (problem.validation, "validation rows"),
            (problem.test, "test rows"),
        )
        if rows is not None and rows.y is not None and len(rows)
    ]
    model = runs.best.model
    made = predicted(model, parts[0][0].x)
    if is_classifier(problem, outputs_of(made)):
        if feature is not None:
            raise InputError(
                f"feature= draws a target that is a number, but {features_of(problem).target!r} "
                "holds classes: leave it out"
            )
        return _classes(problem, model, parts, made)
    if made.numel() != len(made):
        raise InputError(
            f"a fit can be drawn for one output, but the model's have shape {tuple(made.shape[1:])}"
        )
    features = features_of(problem)
    several = len(features.names) > 1
    if several and feature is None:
        return _numbers(problem, model, parts, features.target)
    place = 0 if feature is None else features.place(feature)
    (x, true), *apart = [
        (features.own(encoded(rows.x)[:, place], place), _true(problem, rows)) for rows, _ in parts
    ]
    made_x, made_y = x, target_units(problem, made)
    if not several:
        made_x, made_y = _curve(problem, model, [rows.x for rows, _ in parts], features)
    return Fit(
        "feature" if several else "curve",
        (features.names[place], features.target),
        parts[0][1],
        x,
        true,
        made_x,
        made_y,
        _NO_COUNTS,
        target=features.target,
        apart=tuple(Points(label, *xy) for (_, label), xy in zip(parts[1:], apart, strict=True)),
    )


def _numbers(problem: Problem, model: nn.Module, parts: list[tuple[Rows, str]], target: str) -> Fit:
    """Predicted against true values."""
    (x, y), *apart = [
        (_true(problem, rows), target_units(problem, predicted(model, rows.x))) for rows, _ in parts
    ]
    return Fit(
        "numbers",
        (f"True {target}", f"Predicted {target}"),
        parts[0][1],
        x,
        y,
        _NONE,
        _NONE,
        _NO_COUNTS,
        target=target,
        apart=tuple(Points(label, *xy) for (_, label), xy in zip(parts[1:], apart, strict=True)),
    )


def _classes(
    problem: Problem, model: nn.Module, parts: list[tuple[Rows, str]], made: Tensor
) -> Fit:
    """Regions of the plane of two features, or counts of classes."""
    features = features_of(problem)
    (rows, label), *others = parts
    assert rows.y is not None
    true = true_classes(rows.y)
    names = class_names(problem, outputs_of(made), true)
    counted = _counted(problem, model, rows, len(names))
    found = None
    if rows.y.numel() == len(rows):
        found = regions(problem, model, [part.x for part, _ in parts], len(names))
    if found is None:
        axes = (f"Predicted {features.target}", f"True {features.target}")
        kept = [
            Points(what, _NONE, _NONE, counts=_counted(problem, model, part, len(names)))
            for part, what in others
        ]
        return Fit(
            "classes", axes, label, _NONE, _NONE, _NONE, _NONE, counted, names, features.target,
            tuple(kept),
        )  # fmt: skip
    x, y, of_class = _on_plane(features, rows)
    return Fit(
        "regions",
        (features.names[0], features.names[1]),
        label,
        x,
        y,
        _NONE,
        _NONE,
        counted,
        names,
        features.target,
        tuple(Points(what, *_on_plane(features, part)) for part, what in others),
        of_class,
        found,
    )


def _counted(problem: Problem, model: nn.Module, rows: Rows, classes: int) -> NDArray[np.int64]:
    """How many rows of each class were predicted to be of each."""
    assert rows.y is not None
    ignored = getattr(problem.template.loss, "ignore_index", None)
    made = predicted_classes(problem, predicted(model, rows.x))
    return counts(true_classes(rows.y), made, classes, ignored)


def _on_plane(features: Features, rows: Rows) -> tuple[Floats, Floats, NDArray[np.int64]]:
    assert rows.y is not None
    plain = encoded(rows.x)
    return features.own(plain[:, 0], 0), features.own(plain[:, 1], 1), true_classes(rows.y)


def _true(problem: Problem, rows: Rows) -> Floats:
    assert rows.y is not None
    return target_units(problem, rows.y)


def _curve(
    problem: Problem, model: nn.Module, inputs: list[Tensor], features: Features
) -> tuple[Floats, Floats]:
    """The prediction between the least and the greatest value of the only feature."""
    x = torch.cat(inputs)
    at = torch.linspace(float(x.min()), float(x.max()), _CURVE_POINTS).to(x)
    made = predicted(model, at.reshape(-1, *x.shape[1:]))
    return features.own(at.double().cpu().numpy(), 0), target_units(problem, made)
