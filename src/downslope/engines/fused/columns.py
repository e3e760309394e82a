"""Columns of data with rows side by side in a vector, from rows as they are stored.

Where a row's numbers stand together, a square of rows and columns is loaded and turned over inside
the registers: loading number by number would take longer than all that follows. A block of rows is
asked for while another is worked on, since the processor does not look ahead so far by itself.
"""

from __future__ import annotations

from math import prod

import numpy as np
from llvmlite import ir
from torch import Tensor

from downslope.engines.fused.blocks import I32, at
from downslope.engines.fused.calls import KIND_OF, filled
from downslope.engines.fused.instructions import POINTER, SIZES
from downslope.engines.fused.values import Array, Emitter, Value


def stands_by_columns(tensor: Tensor) -> bool:
    """Whether the numbers of a column, not of a row, stand together."""
    flat = tensor.detach().reshape(len(tensor), -1)
    return flat.shape[1] > 1 and flat.stride(0) == 1 and flat.stride(1) >= len(flat)


def as_matrix(tensor: Tensor, by_column: bool) -> Tensor:
    """The tensor as (rows, columns), rows or columns standing together; copied if it must be."""
    flat = tensor.detach().reshape(len(tensor), -1)
    if not by_column:
        return flat.contiguous()
    return flat if stands_by_columns(flat) else flat.T.contiguous().T


class Columns:
    """A tensor of data in memory.

    Attributes:
        shape: of a row.
        stride: numbers from a column to the next, if `by_column`.
    """

    def __init__(
        self, emit: Emitter, base: ir.Value, like: Tensor, by_column: bool, stride: Value
    ) -> None:
        self.emit, self.base = emit, base
        self.kind, self.shape = KIND_OF[like.dtype], tuple(like.shape[1:])
        self.by_column, self.stride = by_column, stride

    def array(self, first: Value, ahead: int) -> Array:
        """A batch of one, its numbers those of as many rows from `first` on as there are lanes.

        Those `ahead` rows after them are asked for from memory, to be there by then.
        """
        size = prod(self.shape)
        self._prefetch(first + ahead, size)
        if self.by_column:
            made = [self._loaded(self.stride * column + first) for column in range(size)]
        elif size < self.emit.lanes:
            made = self._picked(first, size)
        else:
            made = self._turned_over(first, size)
        values = [Value(self.emit, self.kind, False, one) for one in made]
        return filled((1, *self.shape), values)

    def _prefetch(self, row: Value, size: int) -> None:
        emit, each = self.emit, 64 // SIZES[self.kind]
        name = "llvm.prefetch.p0"
        declared = emit.module.globals.get(name)
        if declared is None:
            taken = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
            declared = ir.Function(emit.module, taken, name)
        if self.by_column:
            places = [self.stride * column + row for column in range(size)]
        else:
            places = [row * size + p for p in range(0, size * emit.lanes, each)]
        to_read_into_second_cache = [ir.Constant(I32, n) for n in (0, 2, 1)]
        for place in places:
            pointer = at(emit, self.base, self.kind, place)
            emit.builder.call(declared, [pointer, *to_read_into_second_cache])

    def _loaded(self, place: Value) -> ir.Value:
        pointer = at(self.emit, self.base, self.kind, place)
        return self.emit.load(pointer, self.kind, False).ir

    def _picked(self, first: Value, size: int) -> list[ir.Value]:
        """Few columns: the rows are so many vectors, and a column's numbers stand `size` apart."""
        lanes = self.emit.lanes
        vectors = [self._loaded(first * size + lanes * v) for v in range(size)]
        made = []
        for column in range(size):
            places = np.arange(lanes) * size + column
            one = vectors[0]
            picked = np.where(places < lanes, places, 0)
            for number, vector in enumerate(vectors):
                here = places // lanes == number
                kept = picked if number == 0 else np.arange(lanes)
                one = self._shuffled(one, vector, np.where(here, places % lanes + lanes, kept))
            made.append(one)
        return made

    def _turned_over(self, first: Value, size: int) -> list[ir.Value]:
        lanes = self.emit.lanes
        made: list[ir.Value] = []
        while len(made) < size:
            start = min(len(made), size - lanes)  # the last square may overlap the one before
            square = [self._loaded((first + row) * size + start) for row in range(lanes)]
            half = lanes // 2
            while half:  # swap the blocks beside the diagonal, ever smaller ones
                for row in (r for r in range(lanes) if not r & half):
                    a, b = square[row], square[row + half]
                    low = [e if not e & half else lanes + e - half for e in range(lanes)]
                    high = [e + half if not e & half else lanes + e for e in range(lanes)]
                    square[row] = self._shuffled(a, b, low)
                    square[row + half] = self._shuffled(a, b, high)
                half //= 2
            made += square[len(made) - start :]
        return made

    def _shuffled(self, a: ir.Value, b: ir.Value, places: object) -> ir.Value:
        mask = [int(place) for place in np.asarray(places)]
        constant = ir.Constant(ir.VectorType(I32, len(mask)), mask)
        return self.emit.builder.shuffle_vector(a, b, constant)
