"""Units of a network that answer nothing, or the same whatever they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CUT = {"relu", "relu_", "relu6", "hardtanh", "clamp", "clamp_min", "threshold"}
_FLAT = {"tanh": 1.0, "tanh_": 1.0, "sigmoid": 0.5, "sigmoid_": 0.5, "softsign": 1.0}
"""Functions that level off, and how far their ends lie from their middle."""

_LEVEL = 0.999
"""Share of that distance from which on a unit counts as saturated."""


@dataclass(frozen=True)
class Units:
    """The units of a model, over all rows.

    Attributes:
        cut: units behind a function that cuts off (ReLU and its like); dead: those of them that
            are 0 for every row.
        level: units behind one that levels off (tanh, sigmoid); saturated: those of them that are
            at an end of it for every row.
        dead_layer, saturated_layer: whether all units of some layer are.
    """

    cut: int
    dead: int
    level: int
    saturated: int
    dead_layer: bool
    saturated_layer: bool


class _Watching(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.layers: list[tuple[bool, Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if isinstance(made, Tensor) and made.ndim > 1:
            values = made.detach()
            if name in _CUT:
                self.layers.append((True, _units(values == 0)))
            elif name in _FLAT:
                far = _FLAT[name]
                middle = 1 - far
                self.layers.append((False, _units((values - middle).abs() >= _LEVEL * far)))
        return made


def _units(which: Tensor) -> Tensor:
    """For each unit (the second axis) whether it is so for every row and place."""
    return which.transpose(0, 1).flatten(1).all(1)


def units(call: Callable[[], Any]) -> Units:
    """What the functions that `call` runs through did to their units.

    >>> X = torch.tensor([[1.0], [2.0]])
    >>> units(lambda: torch.relu(X * torch.tensor([1.0, -1.0]))).dead
    1
    """
    with torch.no_grad(), _Watching() as watching:
        call()
    cut = [layer for is_cut, layer in watching.layers if is_cut]
    flat = [layer for is_cut, layer in watching.layers if not is_cut]
    return Units(
        cut=sum(map(len, cut)),
        dead=sum(int(layer.sum()) for layer in cut),
        level=sum(map(len, flat)),
        saturated=sum(int(layer.sum()) for layer in flat),
        dead_layer=any(bool(layer.all()) for layer in cut),
        saturated_layer=any(bool(layer.all()) for layer in flat),
    )
