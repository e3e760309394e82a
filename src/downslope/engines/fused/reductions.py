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
from downslope.engines.fused.values import Array, Sum, Value


def _reduced(a: Array, dims: Any, shape: Sequence[int]) -> tuple[Array, tuple[int, ...]]:
    """The array with the reduced axes last, as one; and the shape of the rest."""
    dims = range(a.ndim) if dims is None else [d % a.ndim for d in dims]
    kept = [d for d in range(a.ndim) if d not in dims]
    moved = a.transpose([*kept, *dims])
    rest = tuple(a.shape[d] for d in kept)
    return moved.reshape(int(np.prod(rest)), -1), rest


def _reduce(function: Callable[[list[Value]], Value]) -> Callable[..., Array]:
    def apply(call: Call, a: Array, dims: Any = None, *_: Any, **__: Any) -> Array:
        rows, _rest = _reduced(as_kind(call.emit, a, call.kind), dims, a.shape)
        return filled(call.shape, [function(list(row)) for row in rows])

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
    "prod": _reduce(_fold(operator.mul)),
    "scatter.src": indexing.scatter,
    "scatter.value": indexing.scatter,
    "scatter_add": lambda call, a, dim, index, source: indexing.scatter(
        call, a, dim, index, source, add=True
    ),
    "sum": _reduce(_total),
    "var": _variance,
}
"""Other operations."""
