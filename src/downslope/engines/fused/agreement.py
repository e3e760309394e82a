"""Whether a traced graph computes what it should.

A trace sees torch's operations alone. What code reads off a tensor in another way (as a NumPy
array, say) it takes for a constant. So a graph is tried with other numbers than those it was traced
with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node, map_arg
from torch.utils._pytree import tree_leaves

from downslope.engines.fused.trace import Traced

_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-3}


def agrees(traced: Traced, function: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    """Whether graph and function give the same for these arguments, within rounding."""
    with torch.no_grad():
        both = _run(traced, tree_leaves(arguments)), function(*arguments)
    # All gradients together: one of them may be zero but for rounding.
    gradients = [torch.cat([t.flatten() for t in (made[-1] * 0, *made[:-1])]) for made in both]
    return _near(*gradients) and _near(*(made[-1] for made in both))


def is_derivative(traced: Traced, parameters: int, arguments: Sequence[Any]) -> bool:
    """Whether the outputs before the last, a square function of the first inputs, are its
    derivatives by these. It need not be so: something may be detached, a hook change gradients.

    A square function's difference between two opposite points is exactly what the derivative in
    between says, so nothing but rounding in float64 stands between the two.

    Args:
        parameters: how many inputs come first.
        arguments: at which numbers; those that are floating-point are taken as float64.
    """
    inputs = [t.double() if t.is_floating_point() else t for t in tree_leaves(arguments)]
    own, rest = inputs[:parameters], inputs[parameters:]
    generator = torch.Generator().manual_seed(0)
    gradients = [g.double() for g in _run(traced, inputs)[:-1]]
    for _ in range(2):
        ways = [_noise(p, generator) * (p.abs() + 0.1) for p in own]
        ends = [
            _run(traced, [*(p + side * w for p, w in zip(own, ways, strict=True)), *rest])[-1]
            for side in (1, -1)
        ]
        slope = sum((g * w).sum() for g, w in zip(gradients, ways, strict=True))
        both = ends[0].abs() + ends[1].abs()
        if not (slope - (ends[0] - ends[1]) / 2).abs() <= 1e-10 * both:
            return False
    return True


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


def moved(values: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Other numbers near these; positive ones stay positive."""
    made = []
    for value in values:
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
        made.append(value * (1 + 0.2 * noise.to(value)) + (value == 0) * noise.to(value))
    return made


def _run(traced: Traced, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The graph's outputs, one operation of torch after another."""
    given = iter(inputs)
    known: dict[Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(given)
        elif node.op == "get_attr":
            known[node] = traced.constants[str(node.target)]
        elif node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: known[n])
            known[node] = node.target(*args, **kwargs)
    output = next(iter(reversed(traced.graph.nodes)))
    return list(map_arg(output.args[0], lambda n: known[n]))


def _near(found: Tensor, wanted: Tensor) -> bool:
    finite = torch.isfinite(wanted)
    if not torch.equal(finite, torch.isfinite(found)):
        return False
    off = ((found - wanted)[finite]).norm()
    return bool(off <= _TOLERANCES.get(wanted.dtype, 1e-3) * wanted[finite].norm() + 1e-30)
