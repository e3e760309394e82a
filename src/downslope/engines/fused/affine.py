"""A loss as squares of numbers that are affine in the parameters, where it is that.

The traced loss of one sample is interpreted once more, over numbers of the form::

    constant + slope_1 · parameter_1 + slope_2 · parameter_2 + …

whose constant and slopes are Values that know no parameter. An operation on such numbers either
has a rule below or the loss is not one of these: nothing is tried out at points, so the answer is
exact. Whatever depends on the data alone may be anything, such as ``w * x**2 + b * torch.sin(x)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from downslope.engines.fused.calls import Call, operation_name
from downslope.engines.fused.lower import Interpreter
from downslope.engines.fused.shapes import SHAPES
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.values import Array, Emitter, Value

Known = Value | float
"""A number that does not depend on parameters; a float where it is the same for all rows."""


class NotSquaresError(Exception):
    """The loss is no sum of squares of affine numbers, as far as the rules can tell."""


@dataclass(frozen=True, eq=False)
class Affine:
    """constant + Σ slope · parameter.

    Attributes:
        slopes: by the parameter's place among all of them.
    """

    constant: Known
    slopes: dict[int, Known] = field(default_factory=dict)

    def scaled(self, by: Callable[[Known], Known]) -> Affine:
        """`by` of the constant and of every slope."""
        return Affine(by(self.constant), {place: by(s) for place, s in self.slopes.items()})


@dataclass(frozen=True, eq=False)
class Squares:
    """Σ weight · number², each number affine."""

    terms: tuple[tuple[Known, Affine], ...]


Number = Affine | Squares


def squares(
    traced: Traced, shapes: Sequence[tuple[int, ...]], others: Sequence[Array | None], emit: Emitter
) -> Squares:
    """The loss that `traced` gives, as squares; what they are made of is written to `emit`.

    Args:
        shapes: of the parameters, its first inputs.
        others: the other inputs; None for one that must not matter.

    Raises:
        NotSquaresError: if it is none, or cannot be seen to be.
    """
    known = Interpreter(traced, emit, [*([None] * len(shapes)), *others])
    moving: dict[Node, Array] = {}
    places = [node for node in traced.graph.nodes if node.op == "placeholder"]
    start = 0
    for node, shape in zip(places, shapes, strict=False):
        numbers = [Affine(0.0, {start + i: 1.0}) for i in range(prod(shape))]
        moving[node] = _array(numbers, shape)
        start += prod(shape)
    for node in traced.graph.nodes:
        if node.op == "output":
            return _whole(moving, node)
        if node.op == "placeholder":
            continue
        before = node.all_input_nodes
        if not all(n in known.known or n in moving for n in before):
            continue  # and so whatever needs it; the output says whether that matters
        if any(n in moving for n in before):
            moving[node] = _evaluated(node, known, moving)
        else:
            known.known[node] = known.evaluate(node)
            emit.cut()
    raise AssertionError("a graph has an output")


def _whole(moving: dict[Node, Array], output: Node) -> Squares:
    (loss,) = output.all_input_nodes
    if loss not in moving:
        raise NotSquaresError("it depends on what may differ from run to run, or on no parameter")
    made = moving[loss].item()
    if not isinstance(made, Squares):
        raise NotSquaresError("no square")
    return made


def _evaluated(node: Node, known: Interpreter, moving: dict[Node, Array]) -> Array:
    name = operation_name(node.target).split(".", 1)[1]
    rule = SHAPES.get(name) if name in _VIEWS else _RULES.get(name.split(".")[0])
    if rule is None:
        raise NotSquaresError(f"{name} of parameters")

    def found(before: Node) -> Any:
        return moving[before] if before in moving else _lifted(known.known[before])

    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), found)
    made: Array = rule(Call(known.emit, node), *args, **kwargs)
    return made


def _array(numbers: Sequence[Any], shape: Sequence[int]) -> Array:
    made = np.empty(len(numbers), dtype=object)
    made[:] = numbers
    return made.reshape(tuple(shape))


def _lifted(values: Any) -> Any:
    """Known numbers as affine ones without slopes."""
    if isinstance(values, np.ndarray):
        return _array([Affine(value) for value in values.flat], values.shape)
    return Affine(float(values)) if isinstance(values, int | float) else values


# -- arithmetic ----------------------------------------------------------------------------------


def plus(a: Known, b: Known) -> Known:
    """A + b; nothing is written where one of them is 0."""
    if isinstance(a, float):
        return b if a == 0 else b + a
    return a if isinstance(b, float) and b == 0 else a + b


def times(a: Known, b: Known) -> Known:
    """A · b; nothing is written where one of them is 1."""
    if isinstance(a, float):
        return b if a == 1 else b * a
    return a if isinstance(b, float) and b == 1 else a * b


def _add(a: Number, b: Number) -> Number:
    return _total([a, b])


def _total(numbers: Sequence[Number]) -> Number:
    terms = [term for n in numbers if isinstance(n, Squares) for term in n.terms]
    constant: Known = 0.0
    slopes: dict[int, Known] = {}
    for number in numbers:
        if isinstance(number, Affine):
            constant = plus(constant, number.constant)
            for place, slope in number.slopes.items():
                slopes[place] = plus(slopes[place], slope) if place in slopes else slope
    if not terms:
        return Affine(constant, slopes)
    if slopes or not (isinstance(constant, float) and constant == 0):
        raise NotSquaresError("a sum of squares and something else")
    return Squares(tuple(terms))


def _negative(a: Number) -> Number:
    return _multiply(a, Affine(-1.0))


def _subtract(a: Number, b: Number) -> Number:
    return _add(a, _negative(b))


def _multiply(a: Number, b: Number) -> Number:
    if a is b and isinstance(a, Affine) and a.slopes:
        return Squares(((1.0, a),))
    if isinstance(b, Affine) and not b.slopes:
        return _by(a, lambda number: times(number, b.constant))
    if isinstance(a, Affine) and not a.slopes:
        return _by(b, lambda number: times(number, a.constant))
    raise NotSquaresError("a product of parameters")


def _divide(a: Number, b: Number) -> Number:
    if isinstance(b, Squares) or b.slopes:
        raise NotSquaresError("a quotient of parameters")
    divisor = b.constant
    return _by(a, lambda number: times(number, 1.0) if divisor == 1 else number / divisor)


def _by(a: Number, change: Callable[[Known], Known]) -> Number:
    if isinstance(a, Affine):
        return a.scaled(change)
    return Squares(tuple((change(weight), number) for weight, number in a.terms))


def _each(function: Callable[..., Number]) -> Callable[..., Array]:
    def apply(call: Call, *args: Any) -> Array:
        operands = [a if isinstance(a, np.ndarray) else _array([_lifted(a)], ()) for a in args]
        made = np.frompyfunc(function, len(args), 1)(*operands)
        return made if isinstance(made, np.ndarray) else _array([made], ())

    return apply


def _sum(call: Call, a: Array, dims: Any = None, *_: Any) -> Array:
    dims = range(a.ndim) if dims is None else [d % a.ndim for d in dims]
    kept = [d for d in range(a.ndim) if d not in dims]
    rows = a.transpose([*kept, *dims]).reshape(prod(call.shape), -1)
    return _array([_total(list(row)) for row in rows], call.shape)


def _matrix(call: Call, a: Array, b: Array) -> Array:
    pairs = [(row, column) for row in a for column in b.T]
    return _array([_total([*map(_multiply, row, column)]) for row, column in pairs], call.shape)


_RULES: dict[str, Callable[..., Array]] = {
    "add": _each(_add),
    "sub": _each(_subtract),
    "mul": _each(_multiply),
    "div": _each(_divide),
    "neg": _each(_negative),
    "sum": _sum,
    "mm": _matrix,
    "getitem": lambda call, made, place: made[place],
}
_VIEWS = (
    *("alias", "as_strided", "broadcast_in_dim", "cat", "clone", "collapse", "collapse_view"),
    *("detach", "expand", "flip", "permute", "reshape", "rev", "select.int", "slice"),
    *("slice.Tensor", "split_dim", "split_with_sizes", "squeeze", "squeeze.dim", "squeeze.dims"),
    *("transpose", "unsqueeze", "view", "view_of"),
)
"""Operations that only put numbers elsewhere."""
