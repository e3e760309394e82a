"""Remainders of divisions, as vector instructions; exact, however large the quotient."""

from __future__ import annotations

import math

from downslope.engines.fused.blocks import Variable, any_lane
from downslope.engines.fused.values import Value, fma, where
from downslope.engines.fused.vector_basics import FORMATS, absolute, copysign, round, rounded


def _less_multiple(r: Value, d: Value) -> Value:
    """What is left of r without some multiple of d, exactly: less than d, or much less than r.

    The nearest float q to r/d leaves a remainder that is a float again, so that one fused
    multiply-add gives it without rounding. (q must not overflow, hence multiples of d.)
    """
    form, size = FORMATS[r.kind], absolute(r)
    for _ in range(2):
        larger = rounded(d * 2.0 ** (form.bias - form.digits - 4))
        d = where(larger.compare("le", size), larger, d)
    return fma(-round(r / d), d, r)


def fmod(x: Value, y: Value) -> Value:
    """What is left of x without the multiples of y; it has x's sign, as in C.

    Quotients beyond 2²⁴ (or 2⁵³) take further rounds, which are skipped where no lane needs them.
    """
    x, y = rounded(x), rounded(y)
    emit, builder = x.emit, x.emit.builder
    size, d = absolute(x), absolute(y)
    first = _less_multiple(size, d)
    left = Variable(emit, x.kind, first.uniform)
    left.set(first)
    head = builder.append_basic_block("remainder")
    body = builder.append_basic_block("reduce")
    end = builder.append_basic_block("reduced")
    builder.branch(head)
    builder.position_at_end(head)
    r = left.get()
    unfinished = absolute(r).compare("ge", d)
    builder.cbranch(any_lane(unfinished).ir, body, end)
    builder.position_at_end(body)
    left.set(where(unfinished, _less_multiple(r, d), r))
    builder.branch(head)
    builder.position_at_end(end)
    r = where(r.compare("lt", 0.0), r + d, r)
    r = where(d.compare("eq", math.inf) & size.compare("lt", math.inf), size, r)
    return copysign(r, x)


def remainder(x: Value, y: Value) -> Value:
    """What is left of x without the multiples of y; it has y's sign, as in Python."""
    y = rounded(y)
    r = fmod(x, y)
    other_sign = (r.bits() ^ y.bits()).compare("lt", 0)
    return where(other_sign & r.compare("ne", 0.0), r + y, r)
