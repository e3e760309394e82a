"""Torch functions as short graphs of elementary operations.

Everything is decomposed as far as torch knows how: what is left are sums, products, comparisons,
elementary functions, products of matrices and views, some sixty operations in all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from downslope.engines.program import tracing


class UnknownOperationError(Exception):
    """The graph holds an operation that is not known here; the message names it."""


class NotFusedError(Exception):
    """There can be no compiled program; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A graph of elementary operations.

    Attributes:
        graph: its placeholders are the inputs, in order; its output a list of tensors.
        constants: tensors that it holds, by the name that its nodes use.
        text: what it computes, the same for the same program in every process.
    """

    graph: Graph
    constants: dict[str, Tensor]
    text: str

    def last_output(self) -> Traced:
        """The same for the last output alone."""
        graph = Graph()
        copied: dict[Node, Node] = {}
        made = graph.graph_copy(self.graph, copied)
        assert isinstance(made, list | tuple)
        graph.output([made[-1]])
        graph.eliminate_dead_code()
        used = {str(n.target) for n in graph.nodes if n.op == "get_attr"}
        constants = {name: value for name, value in self.constants.items() if name in used}
        return Traced(graph, constants, _text(graph, constants))


def trace(function: Callable[..., Any], arguments: Sequence[Any]) -> Traced:
    """`function` for arguments of these shapes; it must return a list of tensors.

    Raises:
        Exception: whatever torch raises where Python code asks for values.
    """
    module = _taken_apart(function, arguments)
    graph: Graph = module.graph
    _merge(graph)
    graph.eliminate_dead_code()
    constants = {
        str(node.target): getattr(module, str(node.target))
        for node in graph.nodes
        if node.op == "get_attr"
    }
    return Traced(graph, constants, _text(graph, constants))


def _taken_apart(function: Callable[..., Any], arguments: Sequence[Any]) -> GraphModule:
    """The function's graph. What is written in place becomes a new tensor, as far as may be.

    Some of torch's own ways of taking an operation apart write in place. They are met by doing one
    thing after the other: first no more writing, then taking apart, then no more writing again.
    """
    module = _made(functionalize(function, remove="mutations"), arguments, _decompositions())
    if any(map(_writes, module.graph.nodes)):
        whole = _made(functionalize(function, remove="mutations"), arguments, {})
        module = _made(whole, arguments, _decompositions())
    if any(map(_writes, module.graph.nodes)):
        again = functionalize(_in_aten(module), remove="mutations")
        with suppress(RuntimeError):  # for views of `prims`; who lowers the graph will complain
            module = _made(again, arguments, _decompositions())
    return module


def _made(
    function: Callable[..., Any], arguments: Sequence[Any], decompositions: dict[Any, Any]
) -> GraphModule:
    with tracing():
        made: GraphModule = make_fx(function, decomposition_table=decompositions)(*arguments)
    return made


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _in_aten(module: GraphModule) -> GraphModule:
    """With the one way to write in place that `functionalize` knows."""
    for node in module.graph.nodes:
        if node.target is torch.ops.prims.copy_to.default:
            node.target = torch.ops.aten.copy_.default
    module.recompile()
    return module


_KEPT = (
    "constant_pad_nd",
    "diagonal",
    "diagonal_backward",
    "diagonal_scatter",
    "select_backward",
    "select_scatter",
    "slice.Tensor",
    "slice_backward",
    "slice_scatter",
    "unfold",
)
"""What torch would take apart into positions in memory, or write in place."""


def _decompositions() -> Any:
    from torch._decomp import decomposition_table

    names = {name if "." in name else f"{name}.default" for name in _KEPT}
    table = {of: way for of, way in decomposition_table.items() if f"{of}"[5:] not in names}
    own = torch.ops.aten
    return {
        **table,
        own._trilinear.default: _trilinear,
        own.hardsigmoid_backward.default: _hardsigmoid_backward,
    }


_SIXTH = float(torch.tensor(1 / 6))
"""What torch multiplies the gradient of hardsigmoid by, in every precision."""


def _hardsigmoid_backward(gradient: Tensor, x: Tensor) -> Tensor:
    return torch.where((x > -3) & (x < 3), gradient * _SIXTH, torch.zeros_like(gradient))


def _trilinear(
    a: Tensor, b: Tensor, c: Tensor, of_a: Sequence[int], of_b: Sequence[int], of_c: Sequence[int],
    summed: Sequence[int], *_: Any,
) -> Tensor:  # fmt: skip
    for dim in sorted(of_a):
        a = a.unsqueeze(dim)
    for dim in sorted(of_b):
        b = b.unsqueeze(dim)
    for dim in sorted(of_c):
        c = c.unsqueeze(dim)
    return (a * b * c).sum(list(summed))


def _merge(graph: Graph) -> None:
    """Compute once what is written twice: backward passes repeat much of the forward pass."""
    known: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        if key in known:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)
        else:
            known[key] = node


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    # 1, 1.0 and True are equal in Python, and different numbers here.
    return value if isinstance(value, Node) else (type(value).__name__, str(value))


def _text(graph: Graph, constants: dict[str, Tensor]) -> str:
    names: dict[Node, str] = {}
    lines = []
    for number, node in enumerate(graph.nodes):
        names[node] = f"%{number}"
        meta = node.meta.get("val")
        shape = f"{meta.dtype}{tuple(meta.shape)}" if isinstance(meta, Tensor) else ""
        target = str(node.target) if node.op in ("call_function", "get_attr") else ""
        told = torch.fx.map_arg((node.args, node.kwargs), lambda n: _Name(names[n]))
        lines.append(f"{node.op} {target} {told} {shape}")
    for name, value in constants.items():
        digest = hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
        lines.append(f"{name} {value.dtype}{tuple(value.shape)} {digest}")
    return "\n".join(lines)


class _Name(str):
    def __repr__(self) -> str:
        return str(self)
