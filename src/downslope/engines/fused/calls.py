"""What an operation of a graph may ask about its own call, and arrays of Values."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.fused.values import Array, Emitter, Value

GETITEM = "operator.getitem"

KIND_OF = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bool: "i1",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "i8",
}


class Call:
    """What an operation may ask about its own call."""

    def __init__(self, emit: Emitter, node: Node) -> None:
        self.emit, self.node = emit, node
        meta = node.meta.get("val")
        self.shape = tuple(meta.shape) if isinstance(meta, Tensor) else ()
        self.dtype = meta.dtype if isinstance(meta, Tensor) else None

    @property
    def kind(self) -> str:
        """The kind of number of the result."""
        assert self.dtype is not None
        return kind_of(self.dtype)

    def full(self, number: Any) -> Array:
        """The result's shape, full of one number."""
        if isinstance(number, np.ndarray):
            value = number.item().to(self.kind)
        else:
            value = number.to(self.kind) if isinstance(number, Value) else self.number(number)
        return filled(self.shape, [value] * int(np.prod(self.shape)))

    def number(self, number: Any) -> Value:
        """A constant of the result's kind."""
        return self.emit.number(number, self.kind)


def kind_of(dtype: torch.dtype) -> str:
    """The kind of a torch dtype.

    Raises:
        UnknownOperationError: for one that there is no arithmetic for.
    """
    if dtype not in KIND_OF:
        raise UnknownOperationError(f"arithmetic in {str(dtype).removeprefix('torch.')}")
    return KIND_OF[dtype]


def filled(shape: Sequence[int], values: Sequence[Value]) -> Array:
    """An array of Values of this shape."""
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made.reshape(tuple(shape))


def operation_name(target: Any) -> str:
    """Torch's name for an operation, as `OPERATIONS` has it."""
    if target is operator.getitem:
        return GETITEM
    return str(target).removesuffix(".default")
