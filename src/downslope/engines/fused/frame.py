"""What a program is told when it is called: a list of whole numbers and addresses, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from downslope.engines.fused.blocks import I64, pointer
from downslope.engines.fused.values import Emitter, Value

COUNTS = (
    "tiles",
    "first_update",  # updates done before this call
    "last_update",  # updates done after it
    "updates",  # of a whole descent
    "per_epoch",
    "batch",
    "rows",
    "row_stride",  # rows there is room for, where samples lie side by side
    "validation_rows",
    "validation_stride",
    "first_record",  # records made before this call
    "records",
    "gap",  # updates between records
    "every_loss",  # whether the loss is wanted at all records, and not at the first and last alone
    "first_epoch",  # of the orders given
    "epochs",  # in the orders given
    "patience",
)
NUMBERS = ("divergence", "tolerance")
ADDRESSES = (
    "next_tile",
    "stop",
    "progress",
    "x",
    "y",
    "validation_x",
    "validation_y",
    "orders",
    "order_of",
    "constants",
    "numbers",
    "doubles",
    "whole",
    "judged",
    "clip",
    "hyper",
    "shared_hyper",
    "moving",
    "shared_moving",
    "scratch",
    "scratch_size",
    "loss",
    "validation_loss",
    "batch_loss",
    "gradient_norm",
    "path",
)
PLACES = {name: place for place, name in enumerate((*COUNTS, *NUMBERS, *ADDRESSES))}


def packed(values: Mapping[str, Any]) -> NDArray[np.int64]:
    """The frame's memory: whole numbers, bits of floats, addresses of arrays; 0 where not given."""
    memory = np.zeros(len(PLACES), dtype=np.int64)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            memory[PLACES[name]] = value.ctypes.data
        elif isinstance(value, float):
            memory[PLACES[name]] = np.float64(value).view(np.int64)
        else:
            memory[PLACES[name]] = value
    return memory


class Frame:
    """The same, as the program reads it; loaded once, where the function starts."""

    def __init__(self, emit: Emitter, argument: ir.Value) -> None:
        self.emit, self.argument = emit, argument
        self.start = emit.builder.block
        self._known: dict[str, Value] = {}
        for name in PLACES:
            self._known[name] = self._load(name)

    def __getitem__(self, name: str) -> Value:
        """A count."""
        return self._known[name]

    def number(self, name: str) -> Value:
        """A float."""
        return self._known[name].bits()

    def address(self, name: str) -> ir.Value:
        """An array, as a pointer to its bytes."""
        return pointer(self.emit, self._known[name])

    def _load(self, name: str) -> Value:
        place = ir.Constant(I64, 8 * PLACES[name])
        where = self.emit.builder.gep(self.argument, [place], source_etype=ir.IntType(8))
        return self.emit.load(where, "i64", True)
