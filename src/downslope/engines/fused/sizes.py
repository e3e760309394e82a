"""How large traced graphs are: in operations, and in instructions of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from downslope.engines.fused.calls import operation_name
from downslope.engines.fused.products import LOOPED
from downslope.engines.fused.trace import Traced
from downslope.engines.layout import Layout

LONGEST = 25_000
"""Instructions for one sample, about, above which compiling would take longer than it saves."""

_LONG = 15_000
"""The same for samples that are worked on together."""

_SHARE_OF_SUMS = 0.1


def block_of(single: Traced, layout: Layout, most: int) -> int:
    """How many samples to work on together.

    Where much of the work goes into sums of gradients, a sum is loaded and stored once for
    several samples; elsewhere a longer program would gain nothing.
    """
    sums = layout.size / max(operations(single), 1)
    return most if sums > _SHARE_OF_SUMS and most * length(single) <= _LONG else 1


_DEAR = {
    **dict.fromkeys(("exp", "expm1", "log", "log1p", "sigmoid", "tanh", "exp2", "log2"), 20),
    **dict.fromkeys(("erf", "erfc", "sin", "cos", "tan", "pow", "atan", "asin", "acos"), 35),
    **dict.fromkeys(("div", "sqrt", "rsqrt", "reciprocal"), 6),
}


def operations(traced: Traced) -> int:
    """How many elementary operations it takes, dear ones counted as several."""
    return sum(_size(node) for node in traced.graph.nodes)


def length(traced: Traced) -> int:
    """About how many instructions a graph becomes: large products are loops."""
    return sum(_length(node) for node in traced.graph.nodes)


def _length(node: Any) -> int:
    if not _is_product(node):
        return _size(node)
    operand = node.args[0].meta["val"].numel()
    return min(_size(node), LOOPED + 2 * (operand + node.meta["val"].numel() // 4))


def _is_product(node: Any) -> bool:
    return node.op == "call_function" and operation_name(node.target) == "aten.mm"


def _size(node: Any) -> int:
    """Elementary operations of a node: the numbers it makes, times what each takes."""
    meta = node.meta.get("val")
    if node.op != "call_function" or not isinstance(meta, Tensor):
        return 0
    name = operation_name(node.target).split(".")[1]
    if name in ("mm", "bmm"):
        return meta.numel() * int(node.args[0].meta["val"].shape[-1])
    if name == "convolution":
        return meta.numel() * int(np.prod(node.args[1].meta["val"].shape[1:]))
    if name == "index" and all(i is not None and i.op == "get_attr" for i in node.args[1]):
        return 0  # found when compiling
    if name in ("gather", "scatter", "index", "index_put", "scatter_add"):
        return meta.numel() * int(node.args[0].meta["val"].shape[0])
    free = ("view", "broadcast", "transpose", "reshape", "collapse", "split", "expand", "squeeze")
    return 0 if any(part in name for part in free) else meta.numel() * _DEAR.get(name, 1)
