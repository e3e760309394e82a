"""What a model predicts at any parameters, for pictures of a fit that move: plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.errors import InputError
from downslope.objective import Objective
from downslope.problem import Problem
from downslope.randomness import all_borrowed
from downslope.views.data.losses import Floats

_MOST_POINTS = 1_000
_CURVE_POINTS = 201
_REGION_SIDE = 81
_ROOM = 0.06


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
        chosen = np.unique(np.linspace(0, len(rows) - 1, _MOST_POINTS).round().astype(int))
        some = rows[torch.from_numpy(chosen)]
        assert some.y is not None
        self.label = "training rows" if len(chosen) == len(rows) else f"{len(chosen):,} rows"
        self.sorts = _has_classes(problem, some.y)
        features = some.x.reshape(len(some), -1)
        self.inputs = some.x
        if self.sorts:
            self.ground = self._regions(features, some.y, rows.x)
        else:
            self.ground = self._numbers(features, some.y, rows.x)
        made = self._raw()
        if not self.sorts and made.numel() != len(self.inputs):
            raise InputError(
                "a fit can be drawn for one output, but the model's have shape "
                f"{tuple(made.shape[1:])}"
            )

    def at(self, parameters: Mapping[str, Tensor]) -> Floats:
        """The prediction at these parameters, (made,) in the target's own units, or for
        "regions" the class at each of (second feature, first feature)."""
        with torch.no_grad():
            for name, value in parameters.items():
                self.model.get_parameter(name).copy_(value)
        made = self._raw()
        if not self.sorts:
            return _own(self.problem, made)
        one = made.ndim == 1 or made.shape[-1] == 1
        found = (made.reshape(-1) > 0).long() if one else made.argmax(1).reshape(-1)
        grid: Floats = found.double().cpu().numpy().reshape(_REGION_SIDE, _REGION_SIDE)
        return grid

    def _raw(self) -> Tensor:
        with all_borrowed(self.problem.device), torch.no_grad():
            made: Tensor = self.model(self.inputs)
        return made

    def _numbers(self, features: Tensor, target: Tensor, every: Tensor) -> Ground:
        names, means, scales, name = _names(self.problem, features.shape[1])
        true = _own(self.problem, target)
        if len(true) != len(features):
            raise InputError(
                f"a fit can be drawn for one output, but y has shape {tuple(target.shape)}"
            )
        none = np.empty(0, dtype=np.int64)
        if features.shape[1] > 1:
            axes = (f"True {name}", f"Predicted {name}")
            return Ground("numbers", axes, self.label, true, true, np.empty(0), none)
        at = torch.linspace(
            float(every.min()), float(every.max()), _CURVE_POINTS,
            dtype=every.dtype, device=every.device,
        )  # fmt: skip
        self.inputs = at.reshape(-1, *every.shape[1:])
        x, drawn = (t.double().cpu().numpy() * scales[0] + means[0] for t in (features[:, 0], at))
        return Ground("curve", (names[0], name), self.label, x, true, drawn, none)

    def _regions(self, features: Tensor, target: Tensor, every: Tensor) -> Ground:
        if features.shape[1] != 2:
            raise InputError(
                "the regions of a classifier can be drawn over two features, got "
                f"{features.shape[1]}"
            )
        names, means, scales, _ = _names(self.problem, 2)
        both = every.reshape(len(every), 2)
        low, high = both.min(0).values, both.max(0).values
        room = _ROOM * torch.where(high > low, high - low, torch.ones_like(low))
        ends = zip((low - room).tolist(), (high + room).tolist(), strict=True)
        first, second = (
            torch.linspace(a, b, _REGION_SIDE, dtype=every.dtype, device=every.device)
            for a, b in ends
        )
        mesh = torch.stack(torch.meshgrid(first, second, indexing="xy"), dim=-1)
        self.inputs = mesh.reshape(-1, *every.shape[1:])
        of_class = target.reshape(-1).long().cpu().numpy()
        table = self.problem.table
        classes = () if table is None else table.schema.target.classes
        if not classes:
            made = self._raw()
            outputs = 2 if made.ndim == 1 else max(2, made.shape[-1])
            classes = tuple(map(str, range(max(outputs, int(of_class.max()) + 1))))
        shift, scale = np.array(means), np.array(scales)
        drawn = torch.stack([first, second]).double().cpu().numpy() * scale[:, None]
        at = drawn + shift[:, None]
        own = features.double().cpu().numpy() * scale + shift
        axes = (names[0], names[1])
        x, y = own.T
        return Ground("regions", axes, self.label, x, y, at, of_class, classes)


def moves_as_fit(problem: Problem) -> bool:
    """Whether a fit is what people want to see move: of one feature, or two of a classifier."""
    rows = problem.train
    if rows is None or rows.y is None or not rows.x.is_floating_point() or _changes_state(problem):
        return False
    features = rows.x[:1].numel()
    if _has_classes(problem, rows.y):
        return features == 2
    return features == 1 and rows.y[:1].numel() == 1


def _changes_state(problem: Problem) -> bool:
    """Whether training changes more of the model than its parameters."""
    objective = problem.fresh(0)
    before = [b.clone() for b in objective.model.buffers()]
    if before:
        with all_borrowed(problem.device), torch.no_grad():
            problem.forward(objective.train(), 4)
    same = all(map(torch.equal, before, objective.model.buffers()))
    return not same or problem.keeps_state


def _has_classes(problem: Problem, y: Tensor) -> bool:
    known = problem.table is not None and problem.table.schema.target.classes
    logits = isinstance(problem.template.loss, nn.BCEWithLogitsLoss)
    return bool(known) or logits or not y.is_floating_point()


def _own(problem: Problem, values: Tensor) -> Floats:
    plain = values.detach().double().cpu().reshape(-1).numpy()
    return plain if problem.table is None else problem.table.schema.to_own_units(plain)


def _names(problem: Problem, count: int) -> tuple[list[str], list[float], list[float], str]:
    """The features' names, means and scales, and the target's name."""
    if problem.table is None:
        names = ["x"] if count == 1 else [f"x[{place}]" for place in range(count)]
        return names, [0.0] * count, [1.0] * count, "y"
    schema = problem.table.schema
    each = [(name, c.mean, c.scale) for c in schema.columns for name in c.feature_names]
    named, means, scales = zip(*each, strict=True)
    return list(named), list(means), list(scales), schema.target.name
