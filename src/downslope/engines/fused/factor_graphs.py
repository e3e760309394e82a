"""The sum of squares of a factor as graphs, and the factor as the rows that these take.

A factor R of columns [features | targets] stands for Σ (R [θ - origin; 1])². Parameters are counted
from an origin near the optimum, so that what is squared is not the small difference of large
numbers. A small factor is made one row, and the zeros of its triangle are left out of the program;
a large one's rows are rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2, sqrt

import torch
from torch import Tensor
from torch.nn.functional import pad

from downslope.data import Rows
from downslope.engines.fused.cross_products import Group
from downslope.engines.fused.graphs import Source
from downslope.engines.fused.sizes import block_of
from downslope.engines.fused.trace import Traced, trace

_ONE_ROW = 3000
"""Multiplications of a pass, up to which a factor is one row; they are written out one by one."""

_EVEN = 4
"""Rows that are worked on together; factors have a multiple of them."""


def is_one_row(groups: Sequence[Group]) -> bool:
    """Whether factors for these groups are made one row."""
    return sum(group.features * group.size for group in groups) <= _ONE_ROW


def factor_rows(
    groups: Sequence[Group],
    triangles: Sequence[Tensor],
    origins: Sequence[Tensor],
    count: int,
    dtype: torch.dtype,
) -> Rows:
    """The rows for `factor_source`: factors in place of x, origins in place of y.

    Args:
        triangles: a factor for each group, (features + 1, size).
        origins: (features, targets) each.
        count: what the sum of squares is divided by.

    The last column is about the number of squares in a mean, a power of two. The sum is multiplied
    and divided by it, which changes nothing unless it is too large: then it is infinite, as it
    would be for the rows that the factor stands for.
    """
    pairs = zip(groups, triangles, strict=True)
    scaled = [triangle * sqrt(group.weight / count) for group, triangle in pairs]
    if is_one_row(groups):
        factor = torch.cat([triangle.reshape(-1) for triangle in scaled])[None]
    else:
        height = -(-max(map(len, scaled)) // _EVEN) * _EVEN
        factor = torch.cat([pad(t, (0, 0, 0, height - len(t))) for t in scaled], 1)
    squares = 2.0 ** round(log2(count / min(group.weight for group in groups)))
    factor = torch.cat([factor, torch.full((len(factor), 1), squares)], 1)
    origin = torch.cat([origin.reshape(-1) for origin in origins])
    return Rows(factor.to(dtype), origin.to(dtype).expand(len(factor), -1))


def factor_source(
    groups: Sequence[Group], source: Source, values: list[Tensor], most: int
) -> Source:
    """The graphs.

    Args:
        source: the problem's own.
        values: some parameters and constants, to trace with.
        most: samples worked on together, at most.
    """
    shapes = list(source.layout.shapes.values())
    tables, back = _tables(groups, source.layout.size)
    one = is_one_row(groups)
    lengths = [
        sum(group.size * (group.features + 1 if one else 1) for group in groups) + 1,
        sum(group.features * len(group.targets) for group in groups),
    ]

    def passed(values: list[Tensor], data: list[Tensor]) -> list[Tensor]:
        rows, origins = data
        flat = _joined([value.reshape(-1) for value in values[: len(shapes)]])
        losses, made, column, place = [], [], 0, 0
        for group, table in zip(groups, tables, strict=True):
            count = group.features * len(group.targets)
            origin = origins[:1, place : place + count].reshape(group.features, -1)
            of = _of_triangle if one else _of_rows
            loss, gradient = of(group, rows, column, table.sums(flat) - origin)
            losses.append(loss)
            made.append(gradient.reshape(-1))
            column += group.size * (group.features + 1 if one else 1)
            place += count
        gradients = back.sums(_joined(made)).split([shape.numel() for shape in shapes])
        pairs = zip(gradients, shapes, strict=True)
        squares = rows[0, column]
        loss = sum(losses[1:], losses[0]) * squares / squares
        return [*(gradient.reshape(shape) for gradient, shape in pairs), loss]

    def traced(samples: int) -> Traced:
        data = [values[0].new_zeros(samples, length) for length in lengths]
        return trace(passed, (list(values), data))

    train = {1: traced(1)}
    block = 1 if one else block_of(train[1], source.layout, most)
    if block > 1:
        train[block] = traced(block)
    return replace(
        source, mean=False, train=train, evaluate=train[1].last_output(), block=block, same=True
    )


# Slices are taken of the rows as they are, never of slices: of those torch keeps no shape.


def _of_rows(group: Group, rows: Tensor, start: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squares and gradient, (features, targets), of rows of a group's factor.

    Args:
        start: the group's first column in `rows`.
        numbers: what features are multiplied by, (features, targets).
    """
    features = rows[:, start : start + group.features]
    left = features @ numbers + rows[:, start + group.features : start + group.size]
    return (left * left).sum(), features.T @ (2.0 * left)


def _of_triangle(group: Group, rows: Tensor, start: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a whole factor in a row, without most of the zeros below its diagonal: some rows
    at a time, so that a number that is loaded serves several of them."""
    count, size, flat = group.features, group.size, rows[0]

    def part(row: int, column: int, height: int, width: int) -> Tensor:
        places = [
            [start + i * size + j for j in range(column, column + width)]
            for i in range(row, row + height)
        ]
        return flat[torch.tensor(places)]

    parts = [(i, min(_EVEN, count - i)) for i in range(0, count, _EVEN)]
    left = torch.cat([part(i, i, n, count - i) @ numbers[i:] for i, n in parts])
    left = left + part(0, count, count, size - count)
    twice = 2.0 * left
    made = [part(0, i, i + n, n).T @ twice[: i + n] for i, n in parts]
    rest = part(count, count, 1, size - count)
    return (left * left).sum() + (rest * rest).sum(), torch.cat(made)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False)
class _Table:
    """Which numbers are added up: (terms, ...), places among so many; one more stands for zero."""

    places: Tensor
    fills: bool

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], count: int, shape: Sequence[int]) -> _Table:
        """For lists of places among `count`, one for each element of `shape`."""
        most = max(map(len, lists))
        rows = [[*one, *[count] * (most - len(one))] for one in lists]
        fills = any(len(one) < most for one in lists)
        return cls(torch.tensor(rows).T.reshape(most, *shape), fills)

    def sums(self, numbers: Tensor) -> Tensor:
        """The sums of these numbers, of the table's shape without its first axis."""
        if self.fills:
            numbers = torch.cat([numbers, numbers.new_zeros(1)])
        if len(self.places) == 1:
            return numbers[self.places[0]]
        return numbers[self.places].sum(0)


def _tables(groups: Sequence[Group], size: int) -> tuple[list[_Table], _Table]:
    """From parameters to what multiplies the features, (features, targets) for each group; and from
    the gradients by that to those by parameters."""
    tables: list[_Table] = []
    back: list[list[int]] = [[] for _ in range(size)]
    start = 0
    for group in groups:
        wanted: list[list[int]] = [[] for _ in range(len(group.targets) * group.features)]
        for target, pairs in enumerate(group.targets):
            for parameter, feature in pairs:
                place = feature * len(group.targets) + target
                wanted[place].append(parameter)
                back[parameter].append(start + place)
        tables.append(_Table.of(wanted, size, (group.features, len(group.targets))))
        start += len(wanted)
    return tables, _Table.of(back, start, (size,))
