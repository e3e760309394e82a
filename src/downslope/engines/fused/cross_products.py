"""Cross products of columns that are computed from rows of data: one pass of machine code.

The columns of a least-squares problem are its features, what parameters are multiplied by, and its
targets, one for each square of the loss. Some rows at a time, their columns are computed with rows
side by side and put one below another in float64, where the cache holds them; turned, as
`least_squares` asks; and multiplied with each other, four by four columns, whose sums stay in
registers meanwhile. (Converting blocks of rows and calling BLAS takes three times as long for some
20 columns, and its last bits depend on the number of threads.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

from llvmlite import ir
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused import compile as compiling
from downslope.engines.fused.affine import Affine, Known, NotSquaresError, Squares, squares, times
from downslope.engines.fused.blocks import I64, Bank, Variable, at, loop
from downslope.engines.fused.calls import KIND_OF
from downslope.engines.fused.columns import Columns, stands_by_columns
from downslope.engines.fused.instructions import POINTER
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.values import Emitter, Value, where
from downslope.engines.fused.vector_basics import sqrt

CROSS = "downslope_cross"
BLOCK = 128
"""Rows whose columns are in the cache at a time."""

STRIDE = BLOCK + 8
"""From a column to the next; of a power of two, all would compete for the same places there."""

TILE = 4
"""Columns that are multiplied with as many others at a time."""


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
                column, turn, out = (
                    column + group.room,
                    turn + 2 * group.features * group.size,
                    out + group.room**2,
                )
        builder.branch(exit_)
        builder.position_at_end(exit_)
        builder.ret_void()
        return groups

    def _place(self, column: Value | int, row: Value | int) -> ir.Value:
        return at(self.emit, self.scratch, "f64", column * STRIDE + row)

    def _load(self, base: ir.Value, place: Value | int, uniform: bool = False) -> Value:
        return self.emit.load(at(self.emit, base, "f64", place), "f64", uniform)

    def _turn(self, group: Group, first_column: int, turn: int) -> None:
        """Add shares of features to columns, as `cross_passes.Turn` has it."""
        emit = self.emit
        zero, features, size = (emit.number(n, "i64") for n in (0, group.features, group.size))
        turned = self.whole.compare("ne", 0)
        aside = group.features * group.size
        # To targets; and if it is more than that, to features, and to targets what these are then.
        spans = (
            (features, size, turn),
            (where(turned, zero, features), features, turn + aside),
            (where(turned, features, size), size, turn + aside),
        )
        for start, stop, place in spans:
            with loop(emit, start, stop) as number:
                column = start + stop - 1 - number  # the last first: those before are as they were
                before = where(column.compare("lt", features), column, features)
                shares = at(emit, self.turns, "f64", column + place)
                with loop(
                    emit, emit.number(0, "i64"), emit.number(BLOCK, "i64"), 4 * emit.lanes
                ) as row:
                    self._add_shares(group, shares, first_column, column, before, row)

    def _add_shares(
        self,
        group: Group,
        shares: ir.Value,
        first_column: int,
        column: Value,
        before: Value,
        row: Value,
    ) -> None:
        """Four vectors of a column, and their shares of the columns before it."""
        emit = self.emit
        rows = [row + emit.lanes * k for k in range(4)]
        sums = [Variable(emit, "f64", False) for _ in rows]
        for made, place in zip(sums, rows, strict=True):
            made.set(self._load(self.scratch, (column + first_column) * STRIDE + place))
        with loop(emit, emit.number(0, "i64"), before) as feature:
            share = self._load(shares, feature * group.size, True)
            for made, place in zip(sums, rows, strict=True):
                other = self._load(self.scratch, (feature + first_column) * STRIDE + place)
                made.set(made.get() + share * other)
        for made, place in zip(sums, rows, strict=True):
            emit.store(made.get(), self._place(column + first_column, place), False)

    def _multiply(self, group: Group, first_column: int, out: int) -> None:
        """Add the products of all pairs of columns to `out`, lane by lane, tile after tile."""
        emit = self.emit
        size = emit.number(group.room, "i64")
        whole = [(a, b) for a in range(TILE) for b in range(TILE)]
        with loop(emit, emit.number(0, "i64"), size, TILE) as left:
            above = [(a, b) for a, b in whole if a <= b]
            self._tile(group, first_column, out, left, left, above)
            with loop(emit, left + TILE, size, TILE) as right:
                self._tile(group, first_column, out, left, right, whole)

    def _tile(
        self,
        group: Group,
        first_column: int,
        out: int,
        left: Value,
        right: Value,
        pairs: list[tuple[int, int]],
    ) -> None:
        emit = self.emit
        sums = {pair: Variable(emit, "f64", False) for pair in pairs}
        for made in sums.values():
            made.set(emit.number(0.0, "f64"))
        bases = [self._place(side + first_column, 0) for side in (left, right)]
        with loop(emit, emit.number(0, "i64"), emit.number(BLOCK, "i64"), emit.lanes) as row:
            a, b = (
                [self._load(base, row + place * STRIDE) for place in range(TILE)] for base in bases
            )
            for i, j in pairs:
                sums[i, j].set(sums[i, j].get() + a[i] * b[j])
        place = (left * group.room + right * TILE + out) * emit.lanes
        for (i, j), made in sums.items():
            number = (i * TILE + j) * emit.lanes
            total = self._load(self.out, place + number) + made.get()
            emit.store(total, at(emit, self.out, "f64", place + number), False)


def _grouped(found: Squares) -> tuple[tuple[Group, ...], list[Known]]:
    """The squares by their features, and all columns in order."""
    members: dict[Any, list[Affine]] = {}
    for weight, number in found.terms:
        if not isinstance(weight, float):  # a sample's own; the root is no number if it is negative
            number = _times(sqrt(weight), number)
            weight = 1.0
        elif not 0 < weight < inf:
            raise NotSquaresError("a weight that is not positive")
        if not number.slopes:
            raise NotSquaresError("the square of what is no parameter's")
        # Constants come first: only the factor's first row has to do with offsets then.
        features = tuple(sorted(dict.fromkeys(map(_identity, number.slopes.values())), key=_varies))
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


def _times(root: Value, number: Affine) -> Affine:
    return number.scaled(lambda known: times(root, known))


def _identity(number: Known) -> Any:
    return number if isinstance(number, float) else (id(number), "value")


def _varies(identity: Any) -> bool:
    return not isinstance(identity, float)
