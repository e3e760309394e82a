"""What a model predicts at any parameters, for pictures of a fit that move: plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.data import Rows
from downslope.errors import InputError
from downslope.objective import Objective
from downslope.problem import Problem
from downslope.randomness import all_borrowed
from downslope.views.data.classes import (
    MOST_CLASSES,
    can_be_regions,
    class_names,
    is_classifier,
    outputs_of,
    plane,
    predicted_classes,
    true_classes,
)
from downslope.views.data.features import encoded, features_of, predicted, some, target_units
from downslope.views.data.losses import Floats

_MOST_POINTS = 1_000
_CURVE_POINTS = 201
_REGION_SIDE = 81


@dataclass(frozen=True, eq=False)
class Ground:
    """What stands still behind a prediction.

    Attributes:
        kind: "curve" (y against the only feature), "numbers" (predicted against true values), or
            "regions" (of two features, the predicted class).
        names: of the horizontal and the vertical axis; label: what the points are.
        x, y: (points,) the data; for "numbers", both the true values.
        of_class: (points,) each point's class, for "regions"; classes: their names.
        at: (made,) where the prediction is made, for "curve"; (2, side) for "regions".
    """

    kind: Literal["curve", "numbers", "regions"]
    names: tuple[str, str]
    label: str
    x: Floats
    y: Floats
    at: Floats
    of_class: NDArray[np.int64]
    classes: tuple[str, ...] = ()


class Predictor:
    """A model of its own, to be asked for predictions at many parameters.

    Args:
        objective: at the start of a run; its model is changed.

    Raises:
        InputError: where there is nothing that a picture could show.
    """

    def __init__(self, problem: Problem, objective: Objective) -> None:
        self.problem, self.model = problem, objective.model.eval()
        rows = problem.train
        if rows is None or rows.y is None:
            raise InputError("there is no fit to draw: the problem has no data with a target")
        if _changes_state(problem):
            raise InputError(
                "a fit cannot be drawn on its way: the model keeps state of its own (such as batch "
                "normalisation's means), which is not among the recorded parameters"
            )
        if not rows.x.is_floating_point():
            raise InputError(f"a fit can be drawn of numbers, but X holds {rows.x.dtype}")
        few, label = some(rows, "training rows", _MOST_POINTS)
        assert few.y is not None
        made = predicted(self.model, few.x)
        self.sorts = is_classifier(problem, outputs_of(made))
        self.inputs = few.x
        if self.sorts:
            self.ground = self._regions(few, label, rows.x, made)
        else:
            self.ground = self._numbers(few, label, rows.x, made)
        predicted(self.model, self.inputs)  # a model may refuse these, which is to be known now

    def at(self, parameters: Mapping[str, Tensor]) -> Floats:
        """The prediction at these parameters, (made,) in the target's own units, or for
        "regions" the class at each of (second feature, first feature)."""
        with torch.no_grad():
            for name, value in parameters.items():
                self.model.get_parameter(name).copy_(value)
        made = predicted(self.model, self.inputs)
        if not self.sorts:
            return target_units(self.problem, made)
        grid: Floats = predicted_classes(self.problem, made).astype(np.float64)
        return grid.reshape(_REGION_SIDE, _REGION_SIDE)

    def _numbers(self, few: Rows, label: str, every: Tensor, made: Tensor) -> Ground:
        assert few.y is not None
        if made.numel() != len(few):
            raise InputError(
                "a fit can be drawn for one output, but the model's have shape "
                f"{tuple(made.shape[1:])}"
            )
        if few.y.numel() != len(few):
            raise InputError(
                f"a fit can be drawn for one output, but y has shape {tuple(few.y.shape)}"
            )
        features = features_of(self.problem)
        true, none = target_units(self.problem, few.y), np.empty(0, dtype=np.int64)
        if len(features.names) > 1:
            axes = (f"True {features.target}", f"Predicted {features.target}")
            return Ground("numbers", axes, label, true, true, np.empty(0), none)
        at = torch.linspace(float(every.min()), float(every.max()), _CURVE_POINTS).to(every)
        self.inputs = at.reshape(-1, *every.shape[1:])
        x, drawn = (features.own(values[:, 0], 0) for values in (encoded(few.x), encoded(at)))
        return Ground("curve", (features.names[0], features.target), label, x, true, drawn, none)

    def _regions(self, few: Rows, label: str, every: Tensor, made: Tensor) -> Ground:
        assert few.y is not None
        features, of_class = features_of(self.problem), true_classes(few.y)
        names = class_names(self.problem, outputs_of(made), of_class)
        if not can_be_regions(self.problem, len(names)) or len(of_class) != len(few):
            raise InputError(
                "the regions of a classifier can be drawn over two features that are numbers, for "
                f"up to {MOST_CLASSES} classes, got {len(features.names)} features and "
                f"{len(names)} classes"
            )
        axes, self.inputs = plane(self.problem, every, _REGION_SIDE)
        x, y = (features.own(encoded(few.x)[:, place], place) for place in range(2))
        return Ground(
            "regions", (features.names[0], features.names[1]), label, x, y, np.stack(axes),
            of_class, names,
        )  # fmt: skip


def moves_as_fit(problem: Problem) -> bool:
    """Whether a fit is what people want to see move: of one feature, or two of a classifier."""
    rows = problem.train
    if rows is None or rows.y is None or not rows.x.is_floating_point():
        return False
    features = rows.x[:1].numel()
    if features > 2 or rows.y.numel() != len(rows) or _changes_state(problem):
        return False
    try:
        made = predicted(problem.fresh(0).model.eval(), rows.x[:4])
    except InputError:  # no tensor, or not one answer to each row
        return False
    outputs = outputs_of(made)
    if is_classifier(problem, outputs):
        names = class_names(problem, outputs, true_classes(rows.y))
        return can_be_regions(problem, len(names))
    return features == 1 and made.numel() == len(made)


def _changes_state(problem: Problem) -> bool:
    """Whether training changes more of the model than its parameters."""
    objective = problem.fresh(0)
    before = [b.clone() for b in objective.model.buffers()]
    if before:
        with all_borrowed(problem.device), torch.no_grad():
            problem.forward(objective.train(), 4)
    same = all(map(torch.equal, before, objective.model.buffers()))
    return not same or problem.keeps_state
