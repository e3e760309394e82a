"""Picking numbers out of arrays of Values by whole numbers, and putting numbers there.

Indices that are constants are NumPy's own business. An index that is known only when the program
runs is compared with every place: right, and slow where there are many places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.fused.values import Array, Value, where

Indices = Sequence[Array | None]


def _pick(values: Sequence[Value], index: Value) -> Value:
    """values[index], by comparing; a negative index counts from the end."""
    picked = values[0]
    for place, value in enumerate(values[1:], 1):
        here = index.compare("eq", place) | index.compare("eq", place - len(values))
        picked = where(here, value, picked)
    return picked


def gather(call: Any, a: Array, dim: int, index: Array, **_: Any) -> Array:
    """For each element of `index`, the number at that place along `dim`."""
    dim %= max(a.ndim, 1)
    made = np.empty(index.shape, dtype=object)
    for place, number in np.ndenumerate(index):
        line = (*place[:dim], slice(None), *place[dim + 1 :])
        made[place] = _pick(list(np.atleast_1d(a)[line]), number)
    return made


def scatter(
    call: Any, a: Array, dim: int, index: Array, source: Any, add: bool = False, **_: Any
) -> Array:
    """The other way round: `source` put, or added, where `index` says."""
    dim %= max(a.ndim, 1)
    made = a.copy()
    for place, number in np.ndenumerate(index):
        new: Any = source[place] if isinstance(source, np.ndarray) else call.number(source)
        for row in range(a.shape[dim]):
            target = (*place[:dim], row, *place[dim + 1 :])
            old = made[target]
            made[target] = where(number.compare("eq", row), old + new if add else new, old)
    return made


def index(call: Any, a: Array, indices: Indices) -> Array:
    """``a[indices]``, None standing for a whole axis."""
    constants = _constants(indices)
    if constants is not None:
        return np.asarray(a[constants], dtype=object).reshape(call.shape)
    axis, given = _single(indices)
    lines = np.moveaxis(a, axis, 0)
    made = np.empty((*given.shape, *lines.shape[1:]), dtype=object)
    for place, number in np.ndenumerate(given):
        for inner in np.ndindex(lines.shape[1:]):
            made[(*place, *inner)] = _pick(list(lines[(slice(None), *inner)]), number)
    axes = range(given.ndim)
    return np.moveaxis(made, list(axes), [axis + k for k in axes])


def index_put(
    call: Any, a: Array, indices: Indices, values: Array, accumulate: bool = False
) -> Array:
    """`a` with these values put, or added, at ``a[indices]``, one after another."""
    made = a.copy()
    constants = _constants(indices)
    if constants is not None:
        places = np.arange(a.size).reshape(a.shape)[constants]
        spread = np.broadcast_to(values, places.shape)
        for at, new in zip(places.flat, spread.flat, strict=True):
            made.flat[at] = made.flat[at] + new if accumulate else new
        return made
    axis, given = _single(indices)
    if axis:
        raise UnknownOperationError("writing to a later axis by data")
    values = np.broadcast_to(values, (*given.shape, *a.shape[1:]))
    for place, number in np.ndenumerate(given):
        for row in range(a.shape[0]):
            here = number.compare("eq", row) | number.compare("eq", row - a.shape[0])
            for inner in np.ndindex(a.shape[1:]):
                old, new = made[(row, *inner)], values[(*place, *inner)]
                made[(row, *inner)] = where(here, old + new if accumulate else new, old)
    return made


def _constants(indices: Indices) -> tuple[Any, ...] | None:
    """The indices as NumPy takes them, if all are constants."""
    if not all(v.constant is not None for one in indices if one is not None for v in one.flat):
        return None
    made: list[Any] = []
    for one in indices:
        if one is None:
            made.append(slice(None))
        else:
            masks = bool(one.size) and one.flat[0].kind == "i1"
            kind = np.bool_ if masks else np.int64
            made.append(np.array([v.constant for v in one.flat], dtype=kind).reshape(one.shape))
    return tuple(made)


def _single(indices: Indices) -> tuple[int, Array]:
    """The only axis that is indexed, and its index."""
    given = [(axis, one) for axis, one in enumerate(indices) if one is not None]
    if len(given) > 1:
        raise UnknownOperationError("indexing of several axes by data")
    axis, one = given[0]
    if one.size and one.flat[0].kind == "i1":
        raise UnknownOperationError("choosing elements by a condition")
    return axis, one
