"""Operations on each element by itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from downslope.engines.fused import vector_math as vm
from downslope.engines.fused import whole_numbers as whole
from downslope.engines.fused.calls import Call, filled
from downslope.engines.fused.instructions import FLOATS
from downslope.engines.fused.values import Array, Emitter, Value, where

Each = Callable[..., Value]


def _each(function: Each, converts: bool = True) -> Callable[..., Array]:
    """An operation on the elements of arrays and plain numbers that are broadcast together.

    `converts`: operands of the result's own dtype, as in arithmetic (not in comparisons).
    """

    def apply(call: Call, *args: Any) -> Array:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        kinds = [a.flat[0].kind for a in arrays if a.size]
        kind = call.kind if converts else max(kinds, key=_rank)
        operands = [as_kind(call.emit, a, kind) for a in args]
        made = np.frompyfunc(function, len(args), 1)(*operands)
        return made if isinstance(made, np.ndarray) else filled((), [made])

    return apply


def _rank(kind: str) -> int:
    return ("i1", "i8", "i32", "i64", "f32", "f64").index(kind)


def as_kind(emit: Emitter, operand: Any, kind: str) -> Array:
    """An array, or a plain number, in a kind."""
    if not isinstance(operand, np.ndarray):
        return filled((), [emit.number(operand, kind)])
    if not operand.size or all(v.kind == kind for v in operand.flat):
        return operand
    return filled(operand.shape, [v.to(kind) for v in operand.flat])


def _signbit(a: Value) -> Value:
    return a.bits().compare("lt", 0)


def _either(of_floats: Each, of_whole: Each) -> Each:
    return lambda *given: (of_floats if given[0].kind in FLOATS else of_whole)(*given)


def _shrink_backward(gradient: Value, x: Value, bound: Value) -> Value:
    inside = x.compare("ge", -bound) & x.compare("le", bound)
    return where(inside, gradient.emit.number(0.0, gradient.kind), gradient)


def _where(call: Call, condition: Any, a: Any, b: Any) -> Array:
    a, b = (as_kind(call.emit, operand, call.kind) for operand in (a, b))
    return np.asarray(np.frompyfunc(where, 3, 1)(condition, a, b), dtype=object)


def _convert(call: Call, a: Array, *_: Any, **__: Any) -> Array:
    return as_kind(call.emit, a, call.kind)


UNARY: dict[str, Each] = {
    "abs": _either(vm.absolute, whole.absolute),
    "acos": vm.acos,
    "acosh": vm.acosh,
    "asin": vm.asin,
    "asinh": vm.asinh,
    "atan": vm.atan,
    "atanh": vm.atanh,
    "ceil": vm.ceil,
    "cos": vm.cos,
    "cosh": vm.cosh,
    "erf": vm.erf,
    "erfc": vm.erfc,
    "exp": vm.exp,
    "exp2": vm.exp2,
    "expm1": vm.expm1,
    "floor": vm.floor,
    "log": vm.log,
    "log10": vm.log10,
    "log1p": vm.log1p,
    "log2": vm.log2,
    "neg": operator.neg,
    "reciprocal": lambda a: 1.0 / a,
    "round": vm.round,
    "rsqrt": vm.rsqrt,
    "sigmoid": vm.sigmoid,
    "sign": _either(vm.sign, whole.sign),
    "sin": vm.sin,
    "sinh": vm.sinh,
    "sqrt": vm.sqrt,
    "tan": vm.tan,
    "tanh": vm.tanh,
    "trunc": vm.trunc,
}
BINARY: dict[str, Each] = {
    "add": operator.add,
    "atan2": vm.atan2,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "copysign": vm.copysign,
    "div": _either(operator.truediv, whole.quotient),
    "fmod": _either(vm.fmod, whole.fmod),
    "maximum": vm.maximum,
    "minimum": vm.minimum,
    "mul": operator.mul,
    "pow": vm.power,
    "remainder": _either(vm.remainder, whole.remainder),
    "sub": operator.sub,
}
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")


def _compare(how: str) -> Callable[..., Array]:
    return _each(lambda a, b: a.compare(how, b), converts=False)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: _each(function) for name, function in UNARY.items()},
    **{name: _each(function) for name, function in BINARY.items()},
    **{name: _compare(name) for name in COMPARISONS},
    "bitwise_not": lambda call, a: np.asarray(np.frompyfunc(operator.invert, 1, 1)(a), object),
    "convert_element_type": _convert,
    "hardshrink_backward": _each(_shrink_backward),
    "signbit": _each(_either(_signbit, whole.signbit), converts=False),
    "softshrink_backward": _each(_shrink_backward),
    "where": _where,
    "_to_copy": _convert,
}
"""By name, without torch's namespace."""
