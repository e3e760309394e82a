"""log, what follows from it, and powers, as vector instructions."""

from __future__ import annotations

import math

from downslope.engines.fused import coefficients
from downslope.engines.fused.values import Value, fma, where
from downslope.engines.fused.vector_basics import (
    FORMATS,
    absolute,
    copysign,
    polynomial,
    rounded,
    sqrt,
    trunc,
)
from downslope.engines.fused.vector_exponentials import EXP_ENDS, LN_2, LOG2_E, exp

LOG10_E = 0.4342944819032518


def _split(x: Value) -> tuple[Value, Value]:
    """The e and f such that x = 2ᵉ (1 + f), |f| ≤ 1/3, for positive x; e is a float as well."""
    form = FORMATS[x.kind]
    tiny = x.compare("lt", form.smallest)
    bits = where(tiny, rounded(x * 2.0 ** (form.digits + 2)), x).bits()
    e = _exponent(bits, x.kind)
    f = (bits - (e << form.digits)).bits() - 1.0
    zero = x.emit.number(0.0, x.kind)
    return e.to(x.kind) + where(tiny, zero - (form.digits + 2.0), zero), f


def _exponent(bits: Value, kind: str) -> Value:
    """The e such that a positive float is 2ᵉ m, 2/3 ≤ m < 4/3."""
    two_thirds = bits.emit.number(2 / 3, kind).bits()
    return (bits - two_thirds) >> FORMATS[kind].digits


def _log_polynomial(f: Value) -> Value:
    """log(1 + f) for |f| ≤ 1/3: f − f²/2 + f³ P(f)."""
    return (f * f) * (polynomial(f, coefficients.LOG[f.kind]) * f - 0.5) + f


def _with_log_ends(made: Value, x: Value) -> Value:
    """The logarithm of x: `made`, except for infinity, zero, negative numbers and NaN."""
    infinite = x.emit.number(math.inf, x.kind)
    made = where(x.compare("lt", infinite), made, infinite)
    rest = where(x.compare("eq", 0.0), -infinite, x.emit.number(math.nan, x.kind))
    return where(x.compare("gt", 0.0), made, rest)


def log(x: Value) -> Value:
    """The natural logarithm: e ln 2 plus that of 1 + f."""
    x = rounded(x)
    e, f = _split(x)
    return _with_log_ends(e * LN_2 + _log_polynomial(f), x)


def log2(x: Value) -> Value:
    """log₂ x = e + log(1 + f) / ln 2."""
    x = rounded(x)
    e, f = _split(x)
    return _with_log_ends(_log_polynomial(f) * LOG2_E + e, x)


def log10(x: Value) -> Value:
    """log₁₀ x = e log₁₀ 2 + log(1 + f) / ln 10."""
    x = rounded(x)
    e, f = _split(x)
    first, second = coefficients.LOG10_2[x.kind]
    made = e * first + (_log_polynomial(f) * LOG10_E + rounded(e * second))
    return _with_log_ends(made, x)


def log1p(x: Value) -> Value:
    """log(1 + x) = e ln 2 + log(1 + f), where f = 2⁻ᵉ x + (2⁻ᵉ − 1) rounds only once."""
    x, form = rounded(x), FORMATS[x.kind]
    e = _exponent((x + 1.0).bits(), x.kind)
    steps = e << form.digits
    four = x.emit.number(4.0, x.kind).bits()  # 2² × 2⁻ᵉ is never denormal
    f = (x.bits() - steps).bits() + ((four - steps).bits() * 0.25 - 1.0)
    made = e.to(x.kind) * LN_2 + _log_polynomial(f)
    made = where(x.compare("lt", math.inf), made, x)
    made = where(x.compare("eq", -1.0), x.emit.number(-math.inf, x.kind), made)
    made = where(x.compare("lt", -1.0), x.emit.number(math.nan, x.kind), made)
    return copysign(made, x)


def asinh(x: Value) -> Value:
    """log(1 + |x| + x² / (1 + √(1 + x²))), or log(1 + |x|) + log 2 where |x| is large."""
    x = rounded(x)
    size, square = absolute(x), rounded(x * x)
    large = size.compare("gt", 2.0 ** (FORMATS[x.kind].digits + 2))
    w = where(large, size, size + square / (sqrt(square + 1.0) + 1.0))
    made = log1p(w)
    return copysign(where(large, made + LN_2, made), x)


def acosh(x: Value) -> Value:
    """log(1 + t + √(t² + 2t)) with t = x − 1, or log(1 + x) + log 2 where x is large."""
    x = rounded(x)
    t = x - 1.0
    large = x.compare("gt", 2.0 ** (FORMATS[x.kind].digits + 2))
    made = log1p(where(large, x, t + sqrt(t * t + (t + t))))
    made = where(large, made + LN_2, made)
    return where(x.compare("lt", 1.0), x.emit.number(math.nan, x.kind), made)


def atanh(x: Value) -> Value:
    """log(1 + 2|x| / (1 − |x|)) / 2."""
    x = rounded(x)
    size = absolute(x)
    return copysign(rounded(log1p((size + size) / (1.0 - size)) * 0.5), x)


def _precise_log(x: Value) -> tuple[Value, Value]:
    """The logarithm of positive x as a sum of two numbers, the second of which is small."""
    e, f = _split(x)
    # atanh's series (fdlibm's e_pow.c): log(1 + f) = 2 (s + s³/3 + …), s = f / (2 + f).
    d = f + 2.0
    inverse = 1.0 / d
    s = rounded(f * inverse)
    left = fma(-s, f - (d - 2.0), fma(-s, d, f))
    s_rest = rounded(left * inverse)
    square = rounded(s * s)
    tail = (s * square) * polynomial(square, coefficients.ATANH[x.kind]) + (
        s_rest * square + s_rest
    )
    first, second = coefficients.LN2[x.kind]
    twos = rounded(e * first)
    twos_rest = e * second + fma(e, e.emit.number(first, e.kind), -twos)
    large = twos + (s + s)
    rest = ((s + s) - (large - twos)) + (twos_rest + (tail + tail))
    total = large + rest
    return total, rest - (total - large)


def power(x: Value, y: Value) -> Value:
    """xʸ = e^(y log x), log x and the product each as a sum of two numbers; C's special cases."""
    x, y = rounded(x), rounded(y)
    emit, kind = x.emit, x.kind
    one, infinite = emit.number(1.0, kind), emit.number(math.inf, kind)
    size = absolute(x)
    high, rest = _precise_log(size)
    high = where(
        size.compare("eq", 0.0), -infinite, where(size.compare("lt", infinite), high, size)
    )
    low, top = EXP_ENDS[kind]
    z = rounded(y * high)
    inside = z.compare("gt", low) & z.compare("lt", top)
    z = where(size.compare("eq", 1.0) & y.compare("eq", y), one - 1.0, z)  # also for infinite y
    z_rest = where(inside, y * rest + fma(y, high, -z), one - 1.0)
    made = exp(z, z_rest)
    whole = trunc(y).compare("eq", y)
    half = rounded(y * 0.5)
    odd = whole & trunc(half).compare("ne", half)
    made = where(odd, copysign(made, x), made)
    lost = x.compare("lt", 0.0) & x.compare("gt", -infinite) & ~whole
    made = where(lost, emit.number(math.nan, kind), made)
    return where(x.compare("eq", 1.0) | y.compare("eq", 0.0), one, made)
