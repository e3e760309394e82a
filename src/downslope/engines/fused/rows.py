"""Rows of data as Values: broadcast to all runs, or side by side for a single one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from llvmlite import ir

from downslope.engines.fused.blocks import I32, Bank, at, gathered, integer, loop
from downslope.engines.fused.calls import filled
from downslope.engines.fused.spec import Spec
from downslope.engines.fused.values import Array, Emitter, Value

Place = Value | list[Value]


_WIDE = 128
"""Numbers of rows from which on they are brought side by side, for loops to go through."""


class Rows:
    """The rows of x and y in memory.

    Where runs lie across a vector, a row's numbers stand together; where samples do, a column's.

    Attributes:
        bases: where x and y start.
        stride: rows there is room for in a column.
    """

    def __init__(
        self, emit: Emitter, spec: Spec, bases: tuple[ir.Value, ...], stride: Value
    ) -> None:
        self.emit, self.spec, self.bases, self.stride = emit, spec, bases, stride

    def arrays(self, chosen: Sequence[Place]) -> list[Array]:
        """X and y of these rows, stacked; (rows, ...) each.

        A row is one number for all lanes, a number a lane, or a few that share the lanes out.
        """
        made = []
        for base, shape, kind in zip(
            self.bases, self.spec.data.shapes, self.spec.data.kinds, strict=True
        ):
            size = prod(shape)
            row = chosen[0]
            if self.spec.across == "runs" and not self.spec.orders and isinstance(row, Value):
                # As stored: they follow each other, and stay where they are.
                first = at(self.emit, base, kind, row, size)
                bank = Bank(self.emit, kind, True, len(chosen) * size, first)
                flat = bank.array((len(chosen), size))
            elif self.emit.workspace is not None and len(chosen) * size >= _WIDE:
                flat = self._beside(base, kind, chosen, size)
            else:
                numbers = [
                    self._number(base, kind, r, c, size) for r in chosen for c in range(size)
                ]
                flat = filled((len(chosen), size), numbers)
            made.append(flat.reshape(len(chosen), *shape))
        return made

    def _beside(self, base: ir.Value, kind: str, chosen: Sequence[Place], size: int) -> Array:
        """Long rows brought side by side, for loops to go through: (rows, size)."""
        emit, count = self.emit, len(chosen)
        uniform = self.spec.across == "runs" and all(
            isinstance(row, Value) and row.uniform for row in chosen
        )
        bank: Bank = emit.workspace.bank(kind, uniform, count * size)
        with loop(emit, integer(emit, 0), integer(emit, size)) as column:
            for place, row in enumerate(chosen):
                number = self._number(base, kind, row, column, size)
                bank.set(column + place * size, number)
        return bank.array((count, size))

    def _number(
        self, base: ir.Value, kind: str, row: Place, column: int | Value, size: int
    ) -> Value:
        emit = self.emit
        if isinstance(row, list):
            offsets = [each * size + column for each in row]
            return spread(emit, [emit.load(at(emit, base, kind, o), kind, True) for o in offsets])
        if self.spec.across == "samples":
            offset = self.stride * column + row
            if row.uniform:  # the first of rows side by side
                return emit.load(at(emit, base, kind, offset), kind, False)
            return gathered(emit, base, kind, offset)
        offset = row * size + column
        return (
            emit.load(at(emit, base, kind, offset), kind, True)
            if row.uniform
            else gathered(emit, base, kind, offset)
        )


def spread(emit: Emitter, numbers: list[Value]) -> Value:
    """A few numbers, each in an equal share of the lanes."""
    builder, few, lanes = emit.builder, len(numbers), emit.lanes
    vector = ir.Constant(ir.VectorType(numbers[0].ir.type, few), ir.Undefined)
    for place, number in enumerate(numbers):
        vector = builder.insert_element(vector, number.ir, ir.Constant(I32, place))
    mask = [lane * few // lanes for lane in range(lanes)]
    made = builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, lanes), mask))
    return Value(emit, numbers[0].kind, False, made)
