"""Reductions, products of matrices and indices, by torch's names."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from downslope.engines.fused import indexing, products
from downslope.engines.fused import vector_math as vm
from downslope.engines.fused.calls import Call, filled
from downslope.engines.fused.elementwise import Each, as_kind
from downslope.engines.fused.instructions import FLOATS
from downslope.engines.fused.slots import held
from downslope.engines.fused.values import Array, Sum, Value, where


def _reduced(a: Array, dims: Any, shape: Sequence[int]) -> tuple[Array, tuple[int, ...]]:
    """The array with the reduced axes last, as one; and the shape of the rest."""
    dims = range(a.ndim) if dims is None else [d % a.ndim for d in dims]
    kept = [d for d in range(a.ndim) if d not in dims]
    moved = a.transpose([*kept, *dims])
    rest = tuple(a.shape[d] for d in kept)
    return moved.reshape(int(np.prod(rest)), -1), rest


def _reduce(function: Callable[[list[Value]], Value], empty: int = 0) -> Callable[..., Array]:
    def apply(call: Call, a: Array, dims: Any = None, *_: Any, **__: Any) -> Array:
        rows, _rest = _reduced(as_kind(call.emit, a, call.kind), dims, a.shape)
        made = [function(list(row)) if len(row) else call.number(empty) for row in rows]
        return filled(call.shape, made)

    return apply


def _total(values: list[Value]) -> Value:
    if values[0].kind not in FLOATS:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total
    terms: list[Any] = []
    for value in values:
        terms += value.terms if isinstance(value, Sum) else [(value, None)]
    return Sum(terms)


def _fold(function: Each) -> Callable[[list[Value]], Value]:
    def fold(values: list[Value]) -> Value:
        made = values[0]
        for value in values[1:]:
            made = function(made, value)
        return made

    return fold


def _extreme(how: str) -> Callable[..., tuple[Array, Array]]:
    """The largest (smallest) along a dimension, or of all, and its first place; NaN is both."""

    def found(
        call: Call, a: Array, dim: int | None = None, keepdim: bool = False
    ) -> tuple[Array, Array]:
        rows, rest = _reduced(a, None if dim is None else [dim], a.shape)
        best, places = [], []
        for row in rows:
            value, place = held(row[0]), call.emit.number(0, "i64")
            for k, other in enumerate(map(held, row[1:]), 1):
                ahead = other.compare(how, value)
                if value.kind in FLOATS:
                    ahead = ahead | other.compare("ne", other) & value.compare("eq", value)
                value = where(ahead, other, value)
                place = where(ahead, call.emit.number(k, "i64"), place)
            best.append(value)
            places.append(place)
        if keepdim:
            along = range(a.ndim) if dim is None else [dim % a.ndim]
            rest = tuple(1 if d in along else length for d, length in enumerate(a.shape))
        return filled(rest, best), filled(rest, places)

    return found


def _variance(call: Call, a: Array, dims: Any, correction: float | None = 1.0, **_: Any) -> Array:
    rows, _rest = _reduced(a, dims, a.shape)
    count = rows.shape[1]
    made = []
    for row in rows:
        mean = _total(list(row)) / float(count)
        away = [value - mean for value in row]
        squares = _total([d * d for d in away])
        made.append(squares / float(max(count - (1.0 if correction is None else correction), 0.0)))
    return filled(call.shape, made)


OTHERS: dict[str, Callable[..., Any]] = {
    "amax": _reduce(_fold(vm.maximum)),
    "argmax": lambda call, a, *how: _extreme("gt")(call, a, *how)[1],
    "argmin": lambda call, a, *how: _extreme("lt")(call, a, *how)[1],
    "max": lambda call, a: _extreme("gt")(call, a)[0],
    "max.dim": _extreme("gt"),
    "min": lambda call, a: _extreme("lt")(call, a)[0],
    "min.dim": _extreme("lt"),
    "amin": _reduce(_fold(vm.minimum)),
    "any": _reduce(_fold(operator.or_)),
    "bmm": lambda call, a, b: np.stack(
        [products.matrix(call.emit, x, y) for x, y in zip(a, b, strict=True)]
    ),
    "convolution": products.convolution,
    "convolution_backward": products.convolution_backward,
    "gather": indexing.gather,
    "index.Tensor": indexing.index,
    "index_put": indexing.index_put,
    "mm": lambda call, a, b: products.matrix(call.emit, a, b),
    "prod": _reduce(_fold(operator.mul), empty=1),
    "scatter.src": indexing.scatter,
    "scatter.value": indexing.scatter,
    "scatter_add": lambda call, a, dim, index, source: indexing.scatter(
        call, a, dim, index, source, add=True
    ),
    "sum": _reduce(_total),
    "var": _variance,
}
"""Other operations."""
