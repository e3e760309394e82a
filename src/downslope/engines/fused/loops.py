"""Products of matrices that would be too long as straight lines: loops over numbers in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from downslope.engines.fused.blocks import Bank, Variable, integer, loop
from downslope.engines.fused.instructions import SIZES
from downslope.engines.fused.slots import Slot, held
from downslope.engines.fused.values import Array, Emitter, Sum, Value, added, fma, where

_TOGETHER = 4
"""Columns of the result worked on together: a number that is loaded serves so many."""

_DEPTH = 8
"""Products of an element to a turn of the loop."""


class Workspace:
    """Memory of a thread for intermediate results, handed out from its start.

    Attributes:
        size: bytes that were handed out.
    """

    def __init__(self, emit: Emitter, base: ir.Value, offset: int) -> None:
        self.emit, self.base, self.size = emit, base, offset

    def bank(self, kind: str, uniform: bool, count: int) -> Bank:
        """Room for so many numbers."""
        where_ = self.emit.builder.gep(
            self.base, [ir.Constant(ir.IntType(64), self.size)], source_etype=ir.IntType(8)
        )
        bytes_ = count * SIZES[kind] * (1 if uniform else self.emit.lanes)
        self.size += -(-bytes_ // 64) * 64
        return Bank(self.emit, kind, uniform, count, where_)


@dataclass(frozen=True)
class Grid:
    """A matrix in memory: element (i, j) is at place start + i × down + j × across of a bank."""

    bank: Bank
    start: int
    down: int
    across: int

    def get(self, i: int | Value, j: int | Value) -> Value:
        """An element, loaded."""
        emit = self.bank.emit
        place = integer(emit, self.start)
        for index, step in ((i, self.down), (j, self.across)):
            place = place + (integer(emit, index) if isinstance(index, int) else index) * step
        return self.bank.get(place)


def in_memory(workspace: Workspace, a: Array, mask: Value | None = None) -> Grid:
    """A matrix (n, m) in memory: where it is, if it lies evenly there, else a copy."""
    if mask is None and (found := _evenly(a)) is not None:
        return found
    n, m = a.shape
    uniform = mask is None and all(v.uniform for v in a.flat)
    bank = workspace.bank(a.flat[0].kind, uniform, n * m)
    zero = workspace.emit.number(0.0, a.flat[0].kind)
    for place, value in enumerate(a.flat):
        bank.set(place, value if mask is None else where(mask, value, zero))
        workspace.emit.cut()
    return Grid(bank, 0, m, 1)


def _evenly(a: Array) -> Grid | None:
    """Where the matrix is in memory, if its elements are numbers of one bank at even distances."""
    corner = a[0, 0]
    if not isinstance(corner, Slot) or corner.home is None:
        return None
    places = np.full(a.shape, -1, dtype=np.int64)
    for index, value in np.ndenumerate(a):
        if not isinstance(value, Slot) or value.home is None or value.home[0] is not corner.home[0]:
            return None
        places[index] = value.home[1]
    start = int(places[0, 0])
    down = int(places[:2, 0].max()) - start
    across = int(places[0, :2].max()) - start
    even = start + down * np.arange(a.shape[0])[:, None] + across * np.arange(a.shape[1])
    return Grid(corner.home[0], start, down, across) if (places == even).all() else None


def matrix(workspace: Workspace, a: Array, b: Array) -> Array:
    """A (n, k) times b (k, m), each element summed in the order of k; the result is in memory."""
    (n, k), m = a.shape, b.shape[1]
    emit = workspace.emit
    left, right = in_memory(workspace, a), in_memory(workspace, b)
    made = workspace.bank(a.flat[0].kind, left.bank.uniform and right.bank.uniform, n * m)

    def columns(first: Value, count: int) -> None:
        sums = [[Variable(emit, made.kind, made.uniform) for _ in range(count)] for _ in range(n)]

        def products(s: int | Value, start: bool) -> None:
            rows = [left.get(i, s) for i in range(n)]
            for j in range(count):
                number = right.get(s, first + j)
                for i in range(n):
                    pair = (rows[i], number)
                    old = sums[i][j]
                    old.set(held(Sum([pair])) if start else fma(*pair, old.get()))

        products(0, True)
        whole = 1 + (k - 1) // _DEPTH * _DEPTH
        with loop(emit, integer(emit, 1), integer(emit, whole), _DEPTH) as s:
            for step in range(_DEPTH):
                products(s + step, False)
        for last in range(whole, k):
            products(last, False)
        for i in range(n):
            for j in range(count):
                made.set(first + (i * m + j), sums[i][j].get())

    rest = m % _TOGETHER
    with loop(emit, integer(emit, 0), integer(emit, m - rest), _TOGETHER) as first:
        columns(first, _TOGETHER)
    if rest:
        columns(integer(emit, m - rest), rest)
    return made.array((n, m))


def add_outer(
    workspace: Workspace, bank: Bank, start: int, gradient: Array, mask: Value | None
) -> bool:
    """Add a matrix of sums of products to a bank, if it is the product of two thin matrices.

    Element (i, j) must be the sum over t of a[i, t] × b[t, j], as `products.matrix` leaves it.

    Returns:
        Whether it was; otherwise nothing is emitted.
    """
    found = _factors(gradient)
    if found is None:
        return False
    emit, (n, m), terms = workspace.emit, gradient.shape, found[0].shape[1]
    left, right = in_memory(workspace, found[0], mask), in_memory(workspace, found[1])

    def element(row: list[Value], place: Value, j: int | Value) -> None:
        pairs = [(row[t], right.get(t, j)) for t in range(terms)]
        bank.set(place, added(bank.get(place), pairs))

    with loop(emit, integer(emit, 0), integer(emit, n)) as i:
        row = [left.get(i, t) for t in range(terms)]
        base = i * m + start
        whole = m // _DEPTH * _DEPTH
        with loop(emit, integer(emit, 0), integer(emit, whole), _DEPTH) as j:
            for step in range(_DEPTH):
                element(row, base + j + step, j + step)
        for rest in range(whole, m):
            element(row, base + rest, rest)
    return True


def _factors(gradient: Array) -> tuple[Array, Array] | None:
    """The thin matrices (n, t) and (t, m) that a matrix of sums is the product of."""
    first = gradient[0, 0]
    if not isinstance(first, Sum) or any(right is None for _, right in first.terms):
        return None
    (n, m), terms = gradient.shape, len(first.terms)
    for rows, columns in ((0, 1), (1, 0)):  # which of a pair belongs to the row
        left, right = np.empty((n, terms), dtype=object), np.empty((terms, m), dtype=object)
        for i in range(n):
            left[i] = [t[rows] for t in _terms(gradient[i, 0], terms)]
        for j in range(m):
            right[:, j] = [t[columns] for t in _terms(gradient[0, j], terms)]
        if all(
            isinstance(value, Sum)
            and len(value.terms) == terms
            and all(
                t[rows] is left[i, s] and t[columns] is right[s, j]
                for s, t in enumerate(value.terms)
            )
            for (i, j), value in np.ndenumerate(gradient)
        ):
            return left, right
    return None


def _terms(value: Any, count: int) -> Any:
    own = value.terms if isinstance(value, Sum) else ()
    return own if len(own) == count else [(None, None)] * count
