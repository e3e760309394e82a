"""Passes over the rows of a least-squares problem, for the cross products of its columns.

Sums are gathered in parts that depend on the number of rows alone, and added up in order, so that
they are the same to the bit on any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from downslope.data import Rows, tensors
from downslope.engines.fused import compile as compiling
from downslope.engines.fused.columns import as_matrix
from downslope.engines.fused.cross_products import BLOCK, CROSS, STRIDE, TILE, Form, Group

_PARTS, _PART = 64, 256 * BLOCK
"""Parts of the rows at most, and rows of a part at least."""


@dataclass(frozen=True)
class Turn:
    """How a group's columns are turned before they are multiplied with each other.

    Attributes:
        origin: (features, targets), how much of the features is added to the targets first.
        features: an upper triangle with ones on its diagonal, by which they are multiplied then.
        targets: (features, targets), how much of them, so turned, is added to the targets.
    """

    origin: Tensor
    features: Tensor
    targets: Tensor

    @classmethod
    def none(cls, group: Group) -> Turn:
        """The columns as they are."""
        nothing = torch.zeros(group.features, len(group.targets), dtype=torch.float64)
        return cls(nothing, torch.eye(group.features, dtype=torch.float64), nothing)

    def shares(self) -> Tensor:
        """All of it in the order in which the program reads it."""
        first = torch.cat([torch.zeros_like(self.features), self.origin], 1)
        return torch.cat(
            [first.reshape(-1), torch.cat([self.features, self.targets], 1).reshape(-1)]
        )


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

    def __call__(self, turns: Sequence[Turn]) -> list[Tensor]:
        """The cross products of each group's columns, turned; (size, size).

        Where all that is done is to add an origin it takes two thirds of the time.
        """
        whole = any(bool(t.features.triu(1).any() or t.targets.any()) for t in turns)
        joined = torch.cat([turn.shares() for turn in turns])
        each = max(-(-self.count // (_PARTS * BLOCK)) * BLOCK, _PART)
        starts = range(0, self.count, each)
        sizes = [group.room**2 * self.form.lanes for group in self.groups]

        def part(first: int) -> Tensor:
            last = min(first + each, self.count)
            return self._part(joined, whole, first, last, sum(sizes))

        threads = min(torch.get_num_threads(), len(starts))
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        with ThreadPoolExecutor(threads) as pool:
            for made in pool.map(part, starts) if threads > 1 else map(part, starts):
                total += made
        pairs = zip(self.groups, total.split(sizes), strict=True)
        return [_matrix(group, made) for group, made in pairs]

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


def _matrix(group: Group, tiles: Tensor) -> Tensor:
    """Sums of products, tile by tile and lane by lane, as a matrix."""
    count = group.room // TILE
    summed = tiles.reshape(count, count, TILE, TILE, -1).sum(-1)
    upper = summed.transpose(1, 2).reshape(group.room, group.room).triu()
    return (upper + upper.triu(1).T)[: group.size, : group.size]
