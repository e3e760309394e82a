"""Views and their like, all NumPy's own, and tensors made of one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from downslope.engines.fused.calls import Call, filled, operation_name
from downslope.engines.fused.elementwise import as_kind
from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.fused.values import Array


def _broadcast_in_dim(call: Call, a: Array, shape: Sequence[int], dims: Sequence[int]) -> Array:
    widened = [1] * len(shape)
    for place, dim in enumerate(dims):
        widened[dim] = a.shape[place]
    return np.broadcast_to(a.reshape(widened), tuple(shape))


def _reshape(call: Call, a: Array, *_: Any) -> Array:
    return a.reshape(call.shape)


def _places(call: Call, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Any:
    """Which elements of the call's first tensor, counted row by row, are those of such a view."""
    first = call.node.args[0]
    assert isinstance(first, Node)
    given: Tensor = first.meta["val"]
    memory = _strided(given.shape, given.stride(), 0).reshape(-1)
    wanted = _strided(size, stride, offset or 0)
    element = np.full(max(memory.max(initial=0), wanted.max(initial=0)) + 1, -1)
    element[memory] = np.arange(len(memory))
    places = element[wanted]
    once = len(np.unique(memory)) == len(memory)
    # Without an offset of its own, a view begins where the other begins.
    known = offset is None or _starts_its_memory(first)
    if not (once and known and (places >= 0).all()):
        raise UnknownOperationError("as_strided of a part of a tensor")
    return places


def _starts_its_memory(node: Node) -> bool:
    """Whether it is no view, or one that begins where its tensor begins."""
    before = node.args[0] if node.args else None
    if node.op != "call_function" or not isinstance(before, Node):
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is not None and all(made.alias_info is None for made in schema.returns):
        return True
    name = operation_name(node.target).split(".", 1)[-1]
    same = node.args[3:] in ((), (None,), (0,)) if name == "as_strided" else name in _VIEWS
    return same and _starts_its_memory(before)


_VIEWS = (
    *("alias", "broadcast_in_dim", "collapse_view", "detach", "expand", "permute", "reshape"),
    *("split_dim", "squeeze", "squeeze.dim", "squeeze.dims", "transpose", "unsqueeze", "view"),
    "view_of",
)


def _strided(size: Sequence[int], stride: Sequence[int], offset: int) -> Any:
    """Where in memory the elements of a tensor are."""
    places = np.zeros((), dtype=np.int64) + offset
    for length, step in zip(size, stride, strict=True):
        places = places[..., None] + np.arange(length) * step
    return places


def _as_strided(
    call: Call, a: Array, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Array:
    return a.reshape(-1)[_places(call, size, stride, offset)]


def _as_strided_scatter(
    call: Call,
    a: Array,
    b: Array,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> Array:
    return _put(a.reshape(-1), _places(call, size, stride, offset), b).reshape(a.shape)


def _slice(
    call: Call, a: Array, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Array:  # fmt: skip
    return a[(slice(None),) * (dim % a.ndim) + (slice(start, end, step),)]


def _slice_in_dims(
    call: Call, a: Array, starts: Sequence[int], ends: Sequence[int], steps: Any = None
) -> Array:
    steps = steps or [1] * a.ndim
    return a[tuple(slice(*each) for each in zip(starts, ends, steps, strict=True))]


def _select(call: Call, a: Array, dim: int, index: int) -> Any:
    return a.take(index, axis=dim)


def _put(a: Array, place: Any, b: Array) -> Array:
    made = a.copy()
    made[place] = b if b.ndim else b.item()
    return made


def _select_scatter(call: Call, a: Array, b: Array, dim: int, index: int) -> Array:
    return _put(a, (slice(None),) * (dim % a.ndim) + (index,), b)


def _slice_scatter(
    call: Call, a: Array, b: Array, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Array:  # fmt: skip
    return _put(a, (slice(None),) * (dim % a.ndim) + (slice(start, end, step),), b)


def _diagonal_scatter(
    call: Call, a: Array, b: Array, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Array:
    places = np.arange(a.size).reshape(a.shape).diagonal(offset, dim1, dim2)
    return _put(a.reshape(-1), places, b).reshape(a.shape)


def _backward(scatter: Callable[..., Array]) -> Callable[..., Array]:
    """The gradient of a view's tensor: zeros, but for the view."""
    return lambda call, gradient, sizes, *view: scatter(call, call.full(0), gradient, *view)


def _unfold(call: Call, a: Array, dim: int, size: int, step: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(a, size, axis=dim)
    return windows[(slice(None),) * (dim % a.ndim) + (slice(None, None, step),)]


def _cat(call: Call, arrays: Sequence[Array], dim: int = 0) -> Array:
    # Empty tensors of one dimension may stand beside any others.
    return np.concatenate([a for a in arrays if a.size], axis=dim)


def _pad(call: Call, a: Array, padding: Sequence[int], value: float = 0.0) -> Array:
    pairs = [(0, 0)] * (a.ndim - len(padding) // 2)
    pairs += list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    fill: Any = call.number(value or 0.0)
    kept = tuple(
        slice(max(-before, 0), length - max(-after, 0))
        for length, (before, after) in zip(a.shape, pairs, strict=True)
    )
    wider = [(max(before, 0), max(after, 0)) for before, after in pairs]
    return np.pad(a[kept], wider, constant_values=fill)


SHAPES: dict[str, Callable[..., Any]] = {
    "alias": lambda call, a: a,
    "as_strided": _as_strided,
    "as_strided_scatter": _as_strided_scatter,
    "broadcast_in_dim": _broadcast_in_dim,
    "cat": _cat,
    "clone": lambda call, a, **_: a,
    "collapse": _reshape,
    "collapse_view": _reshape,
    "constant_pad_nd": _pad,
    "copy": lambda call, a, b, *_: np.broadcast_to(as_kind(call.emit, b, call.kind), a.shape),
    "detach": lambda call, a: a,
    "diagonal": lambda call, a, *view: a.diagonal(*view),
    "diagonal_backward": _backward(_diagonal_scatter),
    "diagonal_scatter": _diagonal_scatter,
    "expand": lambda call, a, size, **_: np.broadcast_to(a, call.shape),
    "flip": lambda call, a, dims: np.flip(a, tuple(dims)),
    "permute": lambda call, a, dims: a.transpose(tuple(dims)),
    "reshape": _reshape,
    "rev": lambda call, a, dims: np.flip(a, tuple(dims)),
    "select.int": _select,
    "select_backward": _backward(_select_scatter),
    "select_scatter": _select_scatter,
    "slice_backward": _backward(_slice_scatter),
    "slice_scatter": _slice_scatter,
    "slice": _slice_in_dims,
    "slice.Tensor": _slice,
    "split_dim": _reshape,
    "split_with_sizes": lambda call, a, sizes, dim=0: np.split(a, np.cumsum(sizes)[:-1], axis=dim),
    "squeeze": _reshape,
    "squeeze.dim": _reshape,
    "squeeze.dims": _reshape,
    "transpose": lambda call, a, dims: a.transpose(tuple(dims)),
    "unfold": _unfold,
    "unsqueeze": _reshape,
    "view": _reshape,
    "view_of": lambda call, a: a,
}


def _full(call: Call, *args: Any, **_: Any) -> Array:
    return call.full(args[1])


def _iota(call: Call, length: int, *, start: int = 0, step: int = 1, **_: Any) -> Array:
    return filled((length,), [call.number(start + i * step) for i in range(length)])


MAKERS: dict[str, Callable[..., Any]] = {
    "empty": lambda call, *_, **__: call.full(0),
    "empty_like": lambda call, *_, **__: call.full(0),
    "empty.memory_format": lambda call, *_, **__: call.full(0),
    "empty_permuted": lambda call, *_, **__: call.full(0),
    "empty_strided": lambda call, *_, **__: call.full(0),
    "full": _full,
    "full_like": _full,
    "iota": _iota,
    "scalar_tensor": lambda call, number, **_: call.full(number),
}
