"""Cross products of columns that are computed from rows of data: one pass of machine code.

The columns of a least-squares problem are its features, what parameters are multiplied by, and its
targets, one for each square of the loss. Some rows at a time, their columns are computed with rows
side by side and put one below another in float64, where the cache holds them; turned, as
`least_squares` asks; and multiplied with each other, four by four columns, whose sums stay in
registers meanwhile.

Sums are gathered in parts that depend on the number of rows alone, and added up in order, so that
they are the same to the bit on any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused import compile as compiling
from downslope.engines.fused.affine import Affine, Known, Squares, squares, times
from downslope.engines.fused.blocks import I64, Bank, Variable, at, loop
from downslope.engines.fused.calls import KIND_OF
from downslope.engines.fused.columns import Columns, as_matrix, stands_by_columns
from downslope.engines.fused.instructions import POINTER
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.values import Emitter, Value, where
from downslope.engines.fused.vector_basics import sqrt

CROSS = "downslope_cross"
BLOCK = 128
"""Rows whose columns are in the cache at a time."""

STRIDE = BLOCK + 8
TILE = 4
"""Columns that are multiplied with as many others at a time."""

_PARTS, _PART = 64, 128 * BLOCK
"""Parts of the rows at most, and rows of a part at least."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Targets with the same features; the columns are the features, then the targets.

    Attributes:
        weight: what their squares are multiplied by.
        features: how many.
        targets: for each, pairs of a parameter's place and the feature it is multiplied by.
    """

    weight: float
    features: int
    targets: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def size(self) -> int:
        """How many columns."""
        return self.features + len(self.targets)

    @property
    def room(self) -> int:
        """The same as a whole number of tiles."""
        return -(-self.size // TILE) * TILE


@dataclass(frozen=True)
class Form:
    """A least-squares problem: its columns, and the program for their cross products.

    Attributes:
        by_column: for each tensor of the rows, whether its columns stand together.
    """

    groups: tuple[Group, ...]
    by_column: tuple[bool, ...]
    lanes: int
    text: str = field(repr=False)


def form_of(
    loss: Traced,
    shapes: Sequence[tuple[int, ...]],
    constants: Sequence[Tensor],
    fixed: bool,
    rows: Rows,
) -> Form:
    """The columns of a loss of one sample.

    Args:
        shapes: of the parameters.
        constants: the other numbers of a run; no column may depend on them unless they are `fixed`.

    Raises:
        NotSquaresError: if the loss is no sum of squares.
    """
    module = ir.Module(CROSS)
    kinds = [POINTER] * 6 + [I64] * 6
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), CROSS)
    features = compiling.host().features.split(",")
    lanes = 8 if "+avx512f" in features else 4 if "+avx2" in features else 2
    emit = Emitter(ir.IRBuilder(function.append_basic_block("entry")), lanes)
    writer = _Writer(emit, function, loss, shapes, rows)
    groups = writer.write([tuple(c.shape) for c in constants], fixed)
    return Form(groups, writer.by_column, lanes, str(module))


class _Writer:
    """The program being written."""

    def __init__(
        self,
        emit: Emitter,
        function: ir.Function,
        loss: Traced,
        shapes: Sequence[tuple[int, ...]],
        rows: Rows,
    ) -> None:
        self.emit, self.loss, self.shapes = emit, loss, shapes
        x, y, self.constants, self.turns, self.scratch, self.out, *counts = function.args
        self.whole, x_stride, y_stride, self.rows, self.first, self.last = map(emit.wrap, counts)
        self.by_column = tuple(map(stands_by_columns, tensors(rows)))
        given = zip((x, y), tensors(rows), self.by_column, (x_stride, y_stride), strict=False)
        self.data = [Columns(emit, base, t, flag, stride) for base, t, flag, stride in given]
        self.kind = KIND_OF[rows.x.dtype]

    def write(self, constants: Sequence[tuple[int, ...]], fixed: bool) -> tuple[Group, ...]:
        """The whole function; returns what its columns are."""
        emit, builder = self.emit, self.emit.builder
        exit_ = builder.append_basic_block("exit")
        emit.never = (self.rows.compare("lt", 0).ir, exit_)
        count = sum(map(prod, constants))
        held = Bank(emit, self.kind, True, count, self.constants).arrays(constants)
        others = list(held) if fixed else [None] * len(constants)
        with loop(emit, self.first, self.last, BLOCK) as start:
            with loop(emit, start, start + BLOCK, emit.lanes) as i:
                # A vector that would go past the end starts earlier; what it repeats counts as 0.
                latest = self.rows - emit.lanes
                first = where(i.compare("lt", latest), i, latest)
                numbers = list(range(emit.lanes))
                row = first + emit.wrap(ir.Constant(ir.VectorType(I64, emit.lanes), numbers))
                counts = row.compare("ge", i) & row.compare("lt", self.last)
                data = [columns.array(first, BLOCK) for columns in self.data]
                found = squares(self.loss, self.shapes, [*others, *data], emit)
                groups, columns = _grouped(found)
                for place, column in enumerate(columns):
                    value = emit.number(column, "f64") if isinstance(column, float) else column
                    kept = where(counts, value.to("f64"), emit.number(0.0, "f64"))
                    emit.store(kept, self._place(place, i - start), False)
            column = turn = out = 0
            for group in groups:
                self._turn(group, column, turn)
                self._multiply(group, column, out)
                column, turn, out = column + group.room, turn + group.size**2, out + group.room**2
        builder.branch(exit_)
        builder.position_at_end(exit_)
        builder.ret_void()
        return groups

    def _place(self, column: Value | int, row: Value | int) -> ir.Value:
        return at(self.emit, self.scratch, "f64", column * STRIDE + row)

    def _load(self, base: ir.Value, place: Value | int, uniform: bool = False) -> Value:
        return self.emit.load(at(self.emit, base, "f64", place), "f64", uniform)

    def _turn(self, group: Group, first_column: int, turn: int) -> None:
        """Add to each column what `turns` says of the features before it; to the targets alone if
        not `whole`. The last column first, so that the others are still as they were."""
        emit = self.emit
        zero, features = emit.number(0, "i64"), emit.number(group.features, "i64")
        start = where(self.whole.compare("ne", 0), zero, features)
        with loop(emit, start, emit.number(group.size, "i64")) as number:
            column = start + (group.size - 1) - number
            before = where(column.compare("lt", features), column, features)
            with loop(emit, zero, emit.number(BLOCK, "i64"), 4 * emit.lanes) as row:
                rows = [row + emit.lanes * k for k in range(4)]
                sums = [Variable(emit, "f64", False) for _ in rows]
                for made, place in zip(sums, rows, strict=True):
                    made.set(self._load(self.scratch, (column + first_column) * STRIDE + place))
                with loop(emit, zero, before) as feature:
                    share = self._load(self.turns, feature * group.size + column + turn, True)
                    for made, place in zip(sums, rows, strict=True):
                        other = self._load(self.scratch, (feature + first_column) * STRIDE + place)
                        made.set(made.get() + share * other)
                for made, place in zip(sums, rows, strict=True):
                    emit.store(made.get(), self._place(column + first_column, place), False)

    def _multiply(self, group: Group, first_column: int, out: int) -> None:
        """Add the products of all pairs of columns to `out`, lane by lane, tile after tile."""
        emit = self.emit
        zero, size = emit.number(0, "i64"), emit.number(group.room, "i64")
        each = [(a, b) for a in range(TILE) for b in range(TILE)]
        with loop(emit, zero, size, TILE) as left, loop(emit, left, size, TILE) as right:
            sums = {pair: Variable(emit, "f64", False) for pair in each}
            for made in sums.values():
                made.set(emit.number(0.0, "f64"))
            bases = [self._place(side + first_column, 0) for side in (left, right)]
            with loop(emit, zero, emit.number(BLOCK, "i64"), emit.lanes) as row:
                a, b = (
                    [self._load(base, row + place * STRIDE) for place in range(TILE)]
                    for base in bases
                )
                for i, j in each:
                    sums[i, j].set(sums[i, j].get() + a[i] * b[j])
            place = (left * group.room + right * TILE + out) * emit.lanes
            for number, made in enumerate(sums.values()):
                old = self._load(self.out, place + number * emit.lanes)
                target = at(emit, self.out, "f64", place + number * emit.lanes)
                emit.store(old + made.get(), target, False)


def _grouped(found: Squares) -> tuple[tuple[Group, ...], list[Known]]:
    """The squares by their features, and all columns in order."""
    members: dict[Any, list[Affine]] = {}
    for weight, number in found.terms:
        if not isinstance(weight, float):  # a weight of the sample; NaN if it is negative
            root = sqrt(weight)
            number = number.scaled(lambda known, root=root: times(root, known))
            weight = 1.0
        features = tuple(dict.fromkeys(map(_identity, number.slopes.values())))
        members.setdefault((weight, features), []).append(number)
    groups, columns = [], []
    for (weight, features), numbers in members.items():
        known = {_identity(s): s for number in numbers for s in number.slopes.values()}
        places = {feature: place for place, feature in enumerate(features)}
        targets = tuple(
            tuple((p, places[_identity(s)]) for p, s in n.slopes.items()) for n in numbers
        )
        group = Group(weight, len(features), targets)
        groups.append(group)
        columns += [known[feature] for feature in features] + [n.constant for n in numbers]
        columns += [0.0] * (group.room - group.size)
    return tuple(groups), columns


def _identity(number: Known) -> Any:
    return number if isinstance(number, float) else (id(number), "value")


# -- carried out -----------------------------------------------------------------------------------


class Passes:
    """Passes over some rows.

    Args:
        constants: as `form_of` had them.
    """

    def __init__(self, form: Form, rows: Rows, constants: Sequence[Tensor]) -> None:
        self.form, self.groups, self.count = form, form.groups, len(rows)
        code = compiling.load(form.text, lambda: form.text, functions=[CROSS])
        self.function = code.function(CROSS, *[ctypes.c_void_p] * 6, *[ctypes.c_int64] * 6)
        if len(rows) < form.lanes:  # a vector is loaded whole
            rows = rows[torch.arange(form.lanes).clamp(max=len(rows) - 1)]
        self.rows = len(rows)
        self.data = [*map(as_matrix, tensors(rows), form.by_column)]
        flat = [c.detach().reshape(-1).to(rows.x.dtype) for c in constants]
        self.constants = torch.cat([torch.zeros(1, dtype=rows.x.dtype), *flat])[1:]

    def __call__(self, turns: Sequence[Matrix]) -> list[Matrix]:
        """The cross products of each group's columns, turned.

        Args:
            turns: for each group, what multiplies its columns: upper triangular with ones on the
                diagonal and zeros between targets, (size, size). Where features stay as they are
                it takes half the time.
        """
        counts = [group.features for group in self.groups]
        parts_of_features = [turn[:n, :n] for n, turn in zip(counts, turns, strict=True)]
        whole = not all(np.array_equal(part, np.eye(len(part))) for part in parts_of_features)
        joined = np.concatenate([turn.reshape(-1) for turn in turns])
        each = max(-(-self.count // (_PARTS * BLOCK)) * BLOCK, _PART)
        starts = range(0, self.count, each)

        sizes = [group.room**2 * self.form.lanes for group in self.groups]

        def part(first: int) -> Tensor:
            last = min(first + each, self.count)
            return self._part(torch.from_numpy(joined), whole, first, last, sum(sizes))

        threads = min(torch.get_num_threads(), len(starts))
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        with ThreadPoolExecutor(threads) as pool:
            for made in pool.map(part, starts) if threads > 1 else map(part, starts):
                total += made
        pairs = zip(self.groups, total.split(sizes), strict=True)
        return [_matrix(group, made.numpy()) for group, made in pairs]

    def _part(self, turns: Tensor, whole: bool, first: int, last: int, size: int) -> Tensor:
        columns = sum(group.room for group in self.groups)
        scratch = torch.zeros(columns, STRIDE, dtype=torch.float64)
        out = torch.zeros(size, dtype=torch.float64)
        x, y = (*self.data, self.data[0])[:2]
        memory = (x, y, self.constants, turns, scratch, out)
        strides = x.stride(1), y.stride(1)
        addresses = [tensor.data_ptr() for tensor in memory]
        self.function(*addresses, int(whole), *strides, self.rows, first, last)
        return out


def _matrix(group: Group, tiles: Matrix) -> Matrix:
    """Sums of products, tile by tile and lane by lane, as a matrix."""
    count = group.room // TILE
    summed = tiles.reshape(count, count, TILE, TILE, -1).sum(-1)
    upper = np.triu(summed.transpose(0, 2, 1, 3).reshape(group.room, group.room))
    made: Matrix = (upper + np.triu(upper, 1).T)[: group.size, : group.size]
    return made
