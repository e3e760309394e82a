"""How many quarter turns an angle has, and what is left of it: exact for the largest ones, too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from downslope.engines.fused import coefficients
from downslope.engines.fused.blocks import Variable, any_lane, at, gathered, when
from downslope.engines.fused.values import Emitter, Value, fma, where
from downslope.engines.fused.vector_basics import FORMATS, round, rounded

# From here on, π/2 in three pieces would not be precise enough.
FAR_EXPONENT = {"f32": 17, "f64": 27}
_PIECES = 4
_NUMPY: dict[str, Callable[[float], Any]] = {"f32": np.float32, "f64": np.float64}


def quarter_turns(size: Value) -> tuple[Value, Value]:
    """The n (its last two bits) and r such that size = n π/2 + r, |r| ≤ π/4.

    Cody and Waite's reduction: n times the first piece of π/2 is taken away exactly, so that what
    is left is rounded relative to itself. Numbers from 2^FAR_EXPONENT on take another way, which is
    skipped where no lane needs it.
    """
    emit, kind = size.emit, size.kind
    magic = FORMATS[kind].magic
    shifted = size * (2 / math.pi) + magic
    n, near = shifted - magic, size
    for piece in coefficients.HALF_PI[kind][:3]:
        near = n * -piece + near
    far = size.compare("ge", 2.0 ** FAR_EXPONENT[kind]) & size.compare("lt", math.inf)
    bits = shifted.bits()
    turns, rest = (Variable(emit, value.kind, value.uniform) for value in (bits, near))
    turns.set(bits)
    rest.set(near)
    with when(emit, any_lane(far)):
        both = emit.builder.call(_far_function(emit, kind, size.uniform), [size.ir])
        made = [emit.wrap(emit.builder.extract_value(both, place)) for place in (0, 1)]
        turns.set(where(far, made[0], bits))
        rest.set(where(far, made[1], near))
    return turns.get(), rest.get()


def _far_function(emit: Emitter, kind: str, uniform: bool) -> ir.Function:
    """A function of the module that does the work for large numbers; made when first needed."""
    name = f"far_quarter_turns.{kind}" + ("" if uniform else f".{emit.lanes}")
    known = emit.module.globals.get(name)
    if known is not None:
        return known
    number = emit.type_of(kind, uniform)
    integer = emit.type_of({"f32": "i32", "f64": "i64"}[kind], uniform)
    made = ir.Function(
        emit.module, ir.FunctionType(ir.LiteralStructType([integer, number]), [number]), name
    )
    made.linkage = "internal"
    made.attributes.add("noinline")
    inner = Emitter(ir.IRBuilder(made.append_basic_block("entry")), emit.lanes)
    n, r = _far_quarter_turns(inner.wrap(made.args[0]))
    both = inner.builder.insert_value(ir.Constant(made.return_value.type, ir.Undefined), n.ir, 0)
    inner.builder.ret(inner.builder.insert_value(both, r.ir, 1))
    return made


def _far_quarter_turns(size: Value) -> tuple[Value, Value]:
    """The same for large numbers, by Payne and Hanek's reduction in floating point.

    size = m 2^(E − digits) with an integer m, and m T with T = 2^(E − digits) · 2/π mod 4 has the
    same fraction and the same last two bits as size · 2/π. T comes from a table, as a sum of four
    numbers; the products, and their sum, are exact.
    """
    emit, kind, form = size.emit, size.kind, FORMATS[size.kind]
    bits = size.bits()
    fraction = bits & ((1 << form.digits) - 1)
    m = (fraction | ((form.bias + form.digits) << form.digits)).bits()
    row = (bits >> form.digits) - (form.bias + FAR_EXPONENT[kind])
    last = form.bias - FAR_EXPONENT[kind]
    row = where(row.compare("lt", 0) | row.compare("gt", last), row.emit.number(0, row.kind), row)
    table = _table(emit, kind)
    terms: list[Value] = []
    for place in range(_PIECES):
        piece = _entry(table, kind, row.to("i64") * _PIECES + place)
        high = rounded(m * piece)
        terms += [high, fma(m, piece, -high)]
    terms[0] = round(terms[0] * 0.25) * -4.0 + terms[0]
    terms = _distilled(terms)
    n = round(terms[0])
    terms[0] = terms[0] - n
    first, second, *_ = _distilled(_distilled(terms))
    pi_first, pi_second = (emit.number(p, kind) for p in coefficients.HALF_PI[kind][:2])
    r = rounded(first * pi_first)
    rest = second * pi_first + (first * pi_second + fma(first, pi_first, -r))
    return (n + form.magic).bits(), r + rest


def _entry(table: ir.Value, kind: str, place: Value) -> Value:
    """The number at a place of a table, or at a place a lane."""
    emit = place.emit
    if place.uniform:
        return emit.load(at(emit, table, kind, place), kind, True)
    return gathered(emit, table, kind, place)


def _distilled(terms: list[Value]) -> list[Value]:
    """Other numbers with the very same sum, the first of them nearly all of it (VecSum).

    Ogita, Rump and Oishi, Accurate sum and dot product, 2005.
    """
    made = list(terms)
    for place in range(len(made) - 1, 0, -1):
        a, b = made[place - 1], made[place]
        total = a + b
        shadow = total - a
        made[place - 1], made[place] = total, (a - (total - shadow)) + (b - shadow)
    return made


def _table(emit: Emitter, kind: str) -> ir.Value:
    """T of each exponent from FAR_EXPONENT on, in `_PIECES` numbers; a constant of the module."""
    name = f"two_over_pi.{kind}"
    known = emit.module.globals.get(name)
    if known is None:
        form = FORMATS[kind]
        numbers: list[float] = []
        for exponent in range(FAR_EXPONENT[kind], form.bias + 1):
            numbers += _pieces(exponent - form.digits, kind)
        element = {"f32": ir.FloatType(), "f64": ir.DoubleType()}[kind]
        array = ir.ArrayType(element, len(numbers))
        known = ir.GlobalVariable(emit.module, array, name)
        known.linkage, known.global_constant = "internal", True
        known.initializer = ir.Constant(array, numbers)
    return known


def _pieces(exponent: int, kind: str) -> list[float]:
    """2^exponent · 2/π mod 4 as a sum of `_PIECES` numbers, each as near as it can be."""
    one = 1 << 2 * coefficients.TWO_OVER_PI.bit_length()  # a common denominator
    left = (one << exponent if exponent > 0 else one >> -exponent) * coefficients.TWO_OVER_PI
    left = (left >> coefficients.TWO_OVER_PI.bit_length()) % (4 * one)
    made: list[float] = []
    for _ in range(_PIECES):
        made.append(float(_NUMPY[kind](left / one)))
        numerator, denominator = made[-1].as_integer_ratio()
        left -= numerator * (one // denominator)
    return made
