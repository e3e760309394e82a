"""What the picture of a classifier shows, as plain arrays: counts of classes, and the regions of a
plane of two features in which each class is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.errors import InputError
from downslope.problem import Problem
from downslope.views.data.features import encoded, features_of, predicted
from downslope.views.data.losses import Floats

MOST_CLASSES = 7
"""Classes whose regions can be told apart."""

_SIDE = 200
_ROOM = 0.08

Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Where a classifier of two features predicts which class.

    Attributes:
        axes: the values of the first and of the second feature, in their own units.
        predicted: the class there, (values of the second, values of the first).
    """

    axes: tuple[Floats, Floats]
    predicted: Classes


def is_classifier(problem: Problem, outputs: int) -> bool:
    """Whether the target holds classes: whole numbers, or 0 and 1 under a binary loss. One output
    can tell but 0 from 1: other whole numbers are numbers then."""
    rows = problem.train
    assert rows is not None and rows.y is not None
    if problem.table is not None:
        return bool(problem.table.schema.target.classes)
    known = isinstance(problem.template.loss, nn.BCEWithLogitsLoss | nn.BCELoss)
    binary = outputs == 1 and bool(((rows.y == 0) | (rows.y == 1)).all())
    if not rows.y.is_floating_point():
        return outputs > 1 or (binary and known)
    return binary and known


def class_names(problem: Problem, outputs: int, true: Classes) -> tuple[str, ...]:
    """The classes' names: the table's, or their numbers."""
    if problem.table is not None:
        return problem.table.schema.target.classes
    return tuple(map(str, range(max(2, outputs, int(true.max(initial=0)) + 1))))


def outputs_of(made: Tensor) -> int:
    """How many outputs a classifier has; 1 for one that tells two classes apart by a number."""
    return 1 if made.ndim == 1 else int(made.shape[1])


def predicted_classes(problem: Problem, made: Tensor) -> Classes:
    """The class that each prediction stands for: the largest output, or whether the only one is
    above 0 (of probabilities, above a half)."""
    if outputs_of(made) == 1:
        half = 0.5 if isinstance(problem.template.loss, nn.BCELoss) else 0.0
        chosen = (made.reshape(-1) > half).long()
    else:
        chosen = made.argmax(1).reshape(-1)
    plain: Classes = chosen.cpu().numpy()
    return plain


def true_classes(y: Tensor) -> Classes:
    """Targets as class numbers, (rows,)."""
    plain: Classes = y.reshape(-1).long().cpu().numpy()
    return plain


def counts(true: Classes, made: Classes, classes: int, ignored: Any = None) -> Classes:
    """How many rows of each class (first axis) were predicted to be of each (second).

    Args:
        ignored: the class number that the loss leaves out, if any.

    Raises:
        InputError: for a class number below 0.
    """
    known = np.ones(len(true), dtype=bool) if ignored is None else true != ignored
    if (true[known] < 0).any():
        least = int(true[known].min())
        raise InputError(f"classes are counted from 0, but the target holds {least}")
    found = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(found, (true[known], made[known]), 1)
    return found


def can_be_regions(problem: Problem, classes: int) -> bool:
    """Whether a picture can show the regions of the classes: the inputs are two numbers, and the
    classes few enough to be told apart."""
    assert problem.train is not None
    features = features_of(problem)
    two = len(features.names) == 2 and all(features.numeric)
    return two and problem.train.x.is_floating_point() and classes <= MOST_CLASSES


def plane(problem: Problem, x: Tensor, side: int = _SIDE) -> tuple[tuple[Floats, Floats], Tensor]:
    """A lattice of `side` × `side` places around some inputs.

    Args:
        x: inputs (rows, 2), which it has to hold.

    Returns:
        The values of both features in their own units, (side,) each, and the places as inputs,
        (side²,), the first feature's changing fastest.
    """
    features = features_of(problem)
    axes = [_values(encoded(x)[:, place], side) for place in range(2)]
    first, second = np.meshgrid(*axes)
    places = np.stack([first.ravel(), second.ravel()], axis=1)
    own = (features.own(axes[0], 0), features.own(axes[1], 1))
    return own, torch.from_numpy(places).to(x).reshape(-1, *x.shape[1:])


def regions(problem: Problem, model: nn.Module, rows: list[Tensor], classes: int) -> Regions | None:
    """The regions of the classes around some rows; None where they cannot be shown.

    Args:
        rows: inputs (rows, 2), which the picture has to hold.
    """
    if not can_be_regions(problem, classes):
        return None
    axes, at = plane(problem, torch.cat(rows))
    made = predicted_classes(problem, predicted(model, at))
    return Regions(axes, made.reshape(len(axes[1]), len(axes[0])))


def _values(feature: Floats, side: int) -> Floats:
    low, high = feature.min(), feature.max()
    room = _ROOM * (high - low) if high > low else 0.5 * max(1.0, abs(high))
    return np.linspace(low - room, high + room, side)
