"""Whether the samples of a batch are kept apart until their losses are added up.

The numbers of a traced pass over a few samples are followed by what they depend on: a bit for each
sample, and one for the parameters. A sum may join what depends on several samples, and such a sum
may be multiplied by what depends on no sample. Whatever else joins samples couples them, as
``(losses.mean() - 0.5).abs()`` does: far from 0.5, values do not show it.

Numbers that no parameter moves may join samples as they like. They are the same wherever the
parameters are, so that `coupling` has seen whether they matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from downslope.engines.fused.calls import Call, operation_name
from downslope.engines.fused.elementwise import ELEMENTWISE
from downslope.engines.fused.shapes import MAKERS, SHAPES
from downslope.engines.fused.trace import Traced

Bits = NDArray[np.int64]
"""For each number: 1 if a parameter moves it, and 2 << i if it depends on sample i."""

MOVED = 1


class CoupledError(Exception):
    """Samples are coupled, as far as the rules can tell; the message names the operation."""


def check_separable(traced: Traced, parameters: int, constants: int, samples: int) -> None:
    """Go through a pass over a few samples.

    Args:
        traced: its inputs are so many parameters, then constants, then data with a row a sample.
        samples: 2 to 62 of them.

    Raises:
        CoupledError: if samples are coupled.
    """
    known: dict[Node, Any] = {}
    rows = np.int64(2) << np.arange(samples)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            shape, given = tuple(node.meta["val"].shape), len(known)
            if given < parameters + constants:
                known[node] = np.full(shape, MOVED if given < parameters else 0)
            else:
                known[node] = np.broadcast_to(rows.reshape(-1, *[1] * (len(shape) - 1)), shape)
        elif node.op == "get_attr":
            known[node] = np.zeros(tuple(traced.constants[str(node.target)].shape), np.int64)
        elif node.op == "call_function":
            known[node] = _followed(node, known)


def _followed(node: Node, known: dict[Node, Any]) -> Any:
    name = operation_name(node.target).split(".", 1)[1]
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda before: known[before])
    call = _Call(node)
    for rule in (_RULES.get(name.split(".")[0]), SHAPES.get(name), MAKERS.get(name)):
        if rule is not None:
            return rule(call, *args, **kwargs)
    arrays = [a for a in tree_leaves((args, kwargs)) if isinstance(a, np.ndarray)]
    if not isinstance(node.meta.get("val"), torch.Tensor):
        raise CoupledError(name)
    if name not in ELEMENTWISE and name.split(".")[0] not in ELEMENTWISE:
        arrays = [_gathered(a) for a in arrays]
    return call.joined(_union(*arrays), np.True_)


class _Call(Call):
    """A call on bits in place of numbers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        meta = node.meta.get("val")
        self.shape = tuple(meta.shape) if isinstance(meta, torch.Tensor) else ()

    def full(self, number: Any) -> Bits:
        """A constant; what fills it depends on nothing."""
        return np.zeros(self.shape, np.int64)

    def number(self, number: Any) -> Any:
        """The same as one number."""
        return np.int64(0)

    def joined(self, bits: Bits, unlike_sums: Any = np.False_) -> Bits:
        """What depends on all of these; where it is `unlike_sums`, not on several samples."""
        several = ((bits >> 1) & ((bits >> 1) - 1)) != 0
        moved = (bits & MOVED) == MOVED
        if (several & moved & unlike_sums).any():
            raise CoupledError(operation_name(self.node.target).split(".")[1])
        made = np.where(several & ~moved, 0, bits)
        return np.broadcast_to(made, self.shape)


def _union(*arrays: Bits) -> Bits:
    made: Bits = np.zeros((), np.int64)
    for array in arrays:
        made = made | array
    return made


def _gathered(a: Bits, axes: Sequence[int] | None = None, keep: bool = False) -> Bits:
    """What depends on all numbers along these axes (or along all)."""
    along = tuple(d % a.ndim for d in (range(a.ndim) if axes is None else axes))
    gather: Any = np.bitwise_or.reduce
    return np.asarray(gather(a, axis=along, keepdims=keep))


def _knows_samples(a: Any) -> Any:
    return np.asarray(a) >> 1 != 0


def _of(operand: Any) -> Bits:
    """An operand's bits; a plain number depends on nothing."""
    return operand if isinstance(operand, np.ndarray) else np.zeros((), np.int64)


# -- like sums, or like products with what knows no sample -----------------------------------------


def _sum(call: _Call, a: Bits, b: Any = 0, *_: Any, **__: Any) -> Bits:
    return call.joined(_of(a) | _of(b))


def _converted(call: _Call, a: Bits, *_: Any, **__: Any) -> Bits:
    exact = call.node.meta["val"].dtype.is_floating_point
    return call.joined(a, np.bool_(not exact))  # to whole numbers by cutting off


def _product(call: _Call, a: Any, b: Any) -> Bits:
    a, b = _of(a), _of(b)
    return call.joined(a | b, _knows_samples(a) & _knows_samples(b))


def _quotient(call: _Call, a: Any, b: Any, **_: Any) -> Bits:
    return call.joined(_of(a) | _of(b), _knows_samples(_of(b)))


def _where(call: _Call, condition: Bits, a: Any, b: Any) -> Bits:
    return call.joined(condition | _of(a) | _of(b), _knows_samples(condition))


def _total(call: _Call, a: Bits, dims: Any = None, *_: Any, **__: Any) -> Bits:
    return call.joined(_gathered(a, dims).reshape(call.shape))


def _reduced(call: _Call, a: Bits, dims: Any = None, *_: Any, **__: Any) -> Bits:
    return call.joined(_gathered(a, dims).reshape(call.shape), np.True_)


def _extreme(call: _Call, a: Bits, dim: int | None = None, keepdim: bool = False) -> Any:
    made = _gathered(a, None if dim is None else [dim], keep=keepdim)
    call.shape = made.shape
    made = call.joined(made, np.True_)
    return made if dim is None or isinstance(call.node.meta["val"], torch.Tensor) else (made, made)


def _matrix(call: _Call, a: Bits, b: Bits) -> Bits:
    left, right = a[..., :, :, None], b[..., None, :, :]
    both = np.bitwise_or.reduce(left | right, axis=-2)
    unlike = (_knows_samples(left) & _knows_samples(right)).any(-2)
    return call.joined(both, unlike)


def _convolution(call: _Call, image: Bits, weight: Bits, bias: Any, *_: Any) -> Bits:
    images = _gathered(image, range(1, image.ndim))
    weights = np.broadcast_to(_gathered(weight), call.shape[1])
    bits = images[:, None] | weights | _of(bias)
    unlike = _knows_samples(images[:, None]) & _knows_samples(weights)
    wider = (...,) + (None,) * (len(call.shape) - 2)
    return call.joined(bits[wider], unlike[wider])


# -- indices ---------------------------------------------------------------------------------------


def _gather(call: _Call, a: Bits, dim: int, index: Bits, **_: Any) -> Bits:
    line = _gathered(a, [dim], keep=True) if a.ndim else a
    return call.joined(line[tuple(map(slice, index.shape))] | index, np.True_)


def _index(call: _Call, a: Bits, indices: Sequence[Any]) -> Bits:
    axes = [axis for axis, one in enumerate(indices) if one is not None]
    given = [indices[axis] for axis in axes]
    nodes = cast("Sequence[Node]", call.node.args[1])
    kinds = [nodes[axis].meta["val"].dtype for axis in axes]
    conditions = any(kind in (torch.bool, torch.uint8) for kind in kinds)
    if axes != list(range(axes[0], axes[-1] + 1)) or (conditions and len(axes) > 1):
        return call.joined(_union(*map(_gathered, (a, *given))), np.True_)
    index = _gathered(given[0]) if conditions else _union(*given)
    first, count = axes[0], given[0].ndim if conditions else len(axes)
    after = a.shape[first + count :]
    inner = call.shape[first : len(call.shape) - len(after)]
    line = _gathered(a, range(first, first + count))
    line = line.reshape((*a.shape[:first], *[1] * len(inner), *after))
    return call.joined(line | index.reshape((*index.shape, *[1] * len(after))), np.True_)


_RULES: dict[str, Callable[..., Any]] = {
    "add": _sum,
    "sub": _sum,
    "neg": _sum,
    "convert_element_type": _converted,
    "_to_copy": _converted,
    "copy": lambda call, a, b, *_: np.broadcast_to(_of(b), call.shape),
    "mul": _product,
    "div": _quotient,
    "where": _where,
    "sum": _total,
    "mm": _matrix,
    "bmm": _matrix,
    "convolution": _convolution,
    **dict.fromkeys(("amax", "amin", "any", "prod", "var"), _reduced),
    **dict.fromkeys(("argmax", "argmin", "max", "min"), _extreme),
    "gather": _gather,
    "index": _index,
    "getitem": lambda call, made, place: made[place],
}
