"""Products of matrices, and convolutions, over arrays of Values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from downslope.engines.fused import loops
from downslope.engines.fused.instructions import FLOATS
from downslope.engines.fused.slots import held, settled
from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.fused.values import Array, Emitter, Sum, Value, added

LAZY = 4
"""Sums of so few products are left to whoever takes them: the gradient of a weight is a sum over
the samples that are worked on together, and goes straight into its accumulator."""

LOOPED = 256
"""Multiplications from which on a product is a loop of the program, not a straight line."""

_ROWS, _COLUMNS = 4, 4
"""A block of the result that is kept in registers."""


def matrix(emit: Emitter, a: Array, b: Array) -> Array:
    """A (n, k) times b (k, m), each element summed in the order of k."""
    n, k = a.shape
    m = b.shape[1]
    if any(v.kind not in FLOATS for v in (*a.flat, *b.flat)):
        raise UnknownOperationError("a product of matrices of whole numbers")
    made = np.empty((n, m), dtype=object)
    if k <= LAZY:
        for i, j in np.ndindex(n, m):
            made[i, j] = Sum([(a[i, s], b[s, j]) for s in range(k)])
        return made
    if emit.workspace is not None and n * k * m > LOOPED:
        return loops.matrix(emit.workspace, a, b)
    for top in range(0, n, _ROWS):
        for left in range(0, m, _COLUMNS):
            emit.cut()
            _block(made, a, b, range(n)[top : top + _ROWS], range(m)[left : left + _COLUMNS])
    return made


def _block(made: Array, a: Array, b: Array, rows: range, columns: range) -> None:
    """Some elements at a time, so that each number that is loaded serves several of them."""
    for s in range(a.shape[1]):
        left = {i: held(a[i, s]) for i in rows}
        right = {j: held(b[s, j]) for j in columns}
        for i, j in product(rows, columns):
            pair = (left[i], right[j])
            made[i, j] = settled(Sum([pair])) if s == 0 else added(made[i, j], [pair])


def convolution(
    call: Any,
    image: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    """Of (samples, channels, *places) with (outputs, channels / groups, *kernel)."""
    _refuse_transposed(transposed)
    made = np.empty(call.shape, dtype=object)
    pairs = _pairs(image.shape, weight.shape, call.shape, stride, padding, dilation, groups)
    terms: dict[Any, list[tuple[Value, Value | None]]] = {}
    for out, seen, tap in pairs:
        terms.setdefault(out, []).append((image[seen], weight[tap]))
    for place in np.ndindex(call.shape):
        start: list[Any] = [] if bias is None else [(bias[place[1]], None)]
        # Where a kernel sees nothing but padding, there is no product.
        made[place] = settled(Sum([*start, *terms.get(place, [])] or [(call.number(0), None)]))
    return made


def convolution_backward(
    call: Any,
    gradient: Array,
    image: Array,
    weight: Array,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> list[Array | None]:
    """Gradients of image, weight and bias, as far as they are wanted."""
    _refuse_transposed(transposed)
    pairs = list(
        _pairs(image.shape, weight.shape, gradient.shape, stride, padding, dilation, groups)
    )
    zero = call.emit.number(0, gradient.flat[0].kind)

    def collected(shape: tuple[int, ...], terms: Any) -> Array:
        lists: dict[Any, list[tuple[Value, Value | None]]] = {}
        for place, term in terms:
            lists.setdefault(place, []).append(term)
        made = np.empty(shape, dtype=object)
        for place in np.ndindex(shape):
            made[place] = Sum(lists[place]) if place in lists else zero
        return made

    of_image = collected(image.shape, ((s, (gradient[o], weight[t])) for o, s, t in pairs))
    of_weight = collected(weight.shape, ((t, (gradient[o], image[s])) for o, s, t in pairs))
    channels = range(weight.shape[0])
    of_bias = np.empty(weight.shape[0], dtype=object)
    of_bias[:] = [Sum([(g, None) for g in gradient[:, c].flat]) for c in channels]
    made = (of_image, of_weight, of_bias)
    return [m if w else None for m, w in zip(made, wanted, strict=True)]


def _refuse_transposed(transposed: bool) -> None:
    if transposed:
        raise UnknownOperationError("transposed convolution")


def _pairs(
    image: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """Which element of the image and which of the weight meet in which element of the result."""
    outputs, per_group = weight[0] // groups, weight[1]
    for place in np.ndindex(*out):
        sample, channel, *at = place
        group = channel // outputs
        for tap in np.ndindex(*weight[1:]):
            seen = [
                o * s - p + k * d
                for o, s, p, k, d in zip(at, stride, padding, tap[1:], dilation, strict=True)
            ]
            if all(0 <= q < size for q, size in zip(seen, image[2:], strict=True)):
                yield place, (sample, group * per_group + tap[0], *seen), (channel, *tap)
