"""An interpreter of traced graphs whose numbers are `Value`s: running it writes a program.

A tensor is a NumPy array of Values, so every view is NumPy's, and an operation is a line or two in
one of the tables of `elementwise`, `shapes` and `indexing`. One that is in none of them is named in
an `UnknownOperationError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from downslope.engines.fused.calls import GETITEM, Call, filled, kind_of, operation_name
from downslope.engines.fused.elementwise import BINARY, COMPARISONS, ELEMENTWISE
from downslope.engines.fused.reductions import OTHERS
from downslope.engines.fused.shapes import MAKERS, SHAPES
from downslope.engines.fused.slots import held
from downslope.engines.fused.trace import Traced, UnknownOperationError
from downslope.engines.fused.values import Array, Emitter, Value


def interpret(traced: Traced, inputs: Sequence[Array], emit: Emitter) -> list[Array]:
    """The outputs of the graph for these inputs, as instructions of `emit`'s program."""
    return Interpreter(traced, emit, inputs).outputs()


class Interpreter:
    """A graph being interpreted; `known` holds the arrays of nodes that were met.

    Args:
        inputs: for the placeholders in order; None for those that come later.
    """

    def __init__(self, traced: Traced, emit: Emitter, inputs: Sequence[Array | None]) -> None:
        self.traced, self.emit = traced, emit
        places = [node for node in traced.graph.nodes if node.op == "placeholder"]
        pairs = zip(places, inputs, strict=False)
        self.known: dict[Node, Any] = {node: given for node, given in pairs if given is not None}

    def advance(self) -> None:
        """Evaluate all that can be from what is known; numbers, so that any block may use them."""
        for node in self.traced.graph.nodes:
            ready = node.op in ("call_function", "get_attr") and node not in self.known
            if ready and all(before in self.known for before in node.all_input_nodes):
                self.known[node] = _settled(self.evaluate(node))

    def outputs(self, count: int | None = None) -> list[Array]:
        """The (first) outputs, from what they need."""
        output = next(iter(reversed(self.traced.graph.nodes)))
        wanted = _flat(output.args[0])[:count]
        needed = _before([node for node in wanted if isinstance(node, Node)], self.known)
        for node in self.traced.graph.nodes:
            if node in needed:
                self.known[node] = self.evaluate(node)
                self.emit.cut()
        return [self.known[w] if isinstance(w, Node) else w for w in wanted]

    def evaluate(self, node: Node) -> Any:
        """One node, from those before it."""
        if node.op == "get_attr":
            return self.constant(self.traced.constants[str(node.target)])
        take = OPERATIONS.get(operation_name(node.target))
        if take is None:
            raise UnknownOperationError(operation_name(node.target))
        args = torch.fx.map_arg(node.args, lambda n: self.known[n])
        kwargs = torch.fx.map_arg(node.kwargs, lambda n: self.known[n])
        made = take(Call(self.emit, node), *args, **kwargs)
        return filled((), [made]) if isinstance(made, Value) else made

    def constant(self, tensor: Tensor) -> Array:
        """A tensor's numbers as constants."""
        kind = kind_of(tensor.dtype)
        return filled(tensor.shape, [self.emit.number(v, kind) for v in tensor.flatten().tolist()])


def _before(wanted: Sequence[Node], known: Any) -> set[Node]:
    """The nodes that `wanted` need, themselves included, without those that are known."""
    found: set[Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in known:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _settled(made: Any) -> Any:
    if isinstance(made, np.ndarray):
        return filled(made.shape, [held(v) for v in made.flat])
    return made


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [v for one in value for v in _flat(one)]
    return [value]


_TABLE = {
    **ELEMENTWISE,
    **SHAPES,
    **MAKERS,
    **OTHERS,
}
_SUFFIXES = {
    "where": ("self",),
    "any": ("dims", "dim"),
    **{name: ("Tensor", "Scalar") for name in (*BINARY, *COMPARISONS)},
    "pow": ("Tensor_Tensor", "Tensor_Scalar", "Scalar"),
}

OPERATIONS: dict[str, Callable[..., Any]] = {
    GETITEM: lambda call, made, place: made[place],
    **{f"{space}.{name}": take for name, take in _TABLE.items() for space in ("prims", "aten")},
    **{
        f"aten.{name}.{suffix}": _TABLE[name]
        for name, suffixes in _SUFFIXES.items()
        for suffix in suffixes
    },
}
"""Every operation that is known, by torch's name for it."""
