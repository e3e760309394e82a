"""exp, log and what follows from them, as vector instructions.

Each function is one straight line of instructions, the same ones for a vector as for a single
number, so that a result's bits depend on nothing but its argument's. Library functions would not
do: they are not vectors, and they differ from system to system.

The idea is always the same (Muller, Elementary Functions, 2016, chapters 3 and 11): bring the
argument into a small interval by an identity, without rounding where it matters; a polynomial
there (fitted by scripts/fit_polynomials.py); undo the identity on the exponent's bits. "Ulp" below
is the distance between neighbouring floats.
"""

from __future__ import annotations

import math

from downslope.engines.fused import coefficients
from downslope.engines.fused.values import Value, fma, where
from downslope.engines.fused.vector_basics import (
    FORMATS,
    absolute,
    at_least,
    at_most,
    copysign,
    polynomial,
    rounded,
    sqrt,
    trunc,
)

LOG2_E = 1 / math.log(2)
# exp(x) is 0 below and infinite above; 1 + expm1(-x) is 0 above `NEGLIGIBLE` when rounded.
EXP_ENDS = {"f32": (-105.0, 89.0), "f64": (-746.0, 710.0)}
NEGLIGIBLE = {"f32": 18.0, "f64": 39.0}


def _halvings(x: Value, offset: int, pieces: int = 2) -> tuple[Value, Value]:
    """The n and r such that x = n ln 2 + r, |r| ≤ ln 2 / 2 (Cody and Waite's reduction).

    Returns:
        Bits that end in n + offset, and r. Without the second piece of ln 2, r is wrong by
        n × 2 × 10⁻⁹ (f32) or n × 2 × 10⁻¹⁷ (f64).
    """
    magic = FORMATS[x.kind].magic + offset
    shifted = x * LOG2_E + magic
    n, r = shifted - magic, x
    for piece in coefficients.LN2[x.kind][:pieces]:
        r = n * -piece + r
    return shifted.bits(), r


def _exp_polynomial(r: Value) -> Value:
    """exp(r) for |r| ≤ ln 2 / 2."""
    return (polynomial(r, coefficients.EXP[r.kind]) * r + 1.0) * r + 1.0


def _expm1_polynomial(r: Value) -> Value:
    """exp(r) − 1 for |r| ≤ ln 2 / 2, with a small relative error."""
    return (r * r) * polynomial(r, coefficients.EXP[r.kind]) + r


def _scaled(p: Value, n: Value) -> Value:
    """The product p × 2ⁿ; only its second step rounds; n comes with an offset of 2 × bias."""
    digits = FORMATS[p.kind].digits
    half = n.shifted_right(1)
    return rounded((p * (half << digits).bits()) * ((n - half) << digits).bits())


def exp(x: Value) -> Value:
    """eˣ = 2ⁿ eʳ."""
    low, high = EXP_ENDS[x.kind]
    n, r = _halvings(at_least(at_most(rounded(x), high), low), 2 * FORMATS[x.kind].bias)
    return _scaled(_exp_polynomial(r), n)


def exp2(x: Value) -> Value:
    """2ˣ = 2ⁿ e^((x − n) ln 2)."""
    low, high = EXP_ENDS[x.kind]
    x = at_least(at_most(rounded(x), high * LOG2_E), low * LOG2_E)
    magic = FORMATS[x.kind].magic + 2 * FORMATS[x.kind].bias
    shifted = x + magic
    r = rounded((x - (shifted - magic)) * math.log(2))
    return _scaled(_exp_polynomial(r), shifted.bits())


def expm1(x: Value) -> Value:
    """eˣ − 1 = 2 (2ⁿ⁻¹ (eʳ − 1) + 2ⁿ⁻¹ − ½); x itself where it is tiny."""
    x, form = rounded(x), FORMATS[x.kind]
    bounded = at_least(at_most(x, EXP_ENDS[x.kind][1]), -NEGLIGIBLE[x.kind])
    n, r = _halvings(bounded, form.bias - 1)
    half = (n << form.digits).bits()
    made = half * _expm1_polynomial(r) + (half - 0.5)
    return where(absolute(x).compare("lt", 2.0 ** -(form.digits + 2)), x, made + made)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e⁻ˣ) for x ≥ 0, and eˣ / (1 + eˣ) below, which does not lose the small ones."""
    x = rounded(x)
    form = FORMATS[x.kind]
    n, r = _halvings(at_least(-absolute(x), EXP_ENDS[x.kind][0]), 2 * form.bias)
    e = _scaled(_exp_polynomial(r), n)
    return where(x.compare("gt", 0.0), x.emit.number(1.0, x.kind), e) / (1.0 + e)


def tanh(x: Value) -> Value:
    """With h = (e^2|x| − 1) / 2, h / (h + 1), or h − h² / (h + 1) where that is more precise."""
    x = rounded(x)
    form, size = FORMATS[x.kind], absolute(x)
    # An error of r hardly matters where n is large, so that one piece of ln 2 is enough.
    n, r = _halvings(at_most(size + size, NEGLIGIBLE[x.kind]), form.bias - 1, pieces=1)
    half = (n << form.digits).bits()
    h = half * _expm1_polynomial(r) + (half - 0.5)
    t = h / (h + 1.0)
    return copysign(where(h.compare("lt", 0.5), fma(-h, t, h), t), x)


def _half_exp(x: Value) -> tuple[Value, Value]:
    """(e^|x| − 1) / 2 and e^|x| / 2, which are finite where sinh and cosh are."""
    form = FORMATS[x.kind]
    n, r = _halvings(at_most(absolute(x), EXP_ENDS[x.kind][1] + 0.7), form.bias - 2)
    quarter = (n << form.digits).bits()
    p = _expm1_polynomial(r)
    less, whole = quarter * p + (quarter - 0.25), quarter * p + quarter
    return less + less, whole + whole


def sinh(x: Value) -> Value:
    """(e + e / (e + 1)) / 2 with e = e^|x| − 1; x itself where it is tiny."""
    x = rounded(x)
    half, _ = _half_exp(x)
    bounded = at_most(half, 2.0**60)  # infinity over infinity is not a number
    made = half + bounded / (bounded * 2.0 + 1.0)
    tiny = absolute(x).compare("lt", 2.0 ** -(FORMATS[x.kind].digits // 2 + 1))
    return copysign(where(tiny, x, made), x)


def cosh(x: Value) -> Value:
    """e^|x| / 2 and half its inverse."""
    _, half = _half_exp(rounded(x))
    return half + 0.25 / half


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
    """The natural logarithm, as e ln 2 + log(1 + f)."""
    x = rounded(x)
    e, f = _split(x)
    return _with_log_ends(e * math.log(2) + _log_polynomial(f), x)


def log2(x: Value) -> Value:
    """log₂ x = e + log(1 + f) / ln 2."""
    x = rounded(x)
    e, f = _split(x)
    return _with_log_ends(_log_polynomial(f) * LOG2_E + e, x)


def log10(x: Value) -> Value:
    """log₁₀ x = e log₁₀ 2 + log(1 + f) / ln 10."""
    x = rounded(x)
    e, f = _split(x)
    made = e * math.log10(2) + rounded(_log_polynomial(f) * (1 / math.log(10)))
    return _with_log_ends(made, x)


def log1p(x: Value) -> Value:
    """log(1 + x) = e ln 2 + log(1 + f), where f = 2⁻ᵉ x + (2⁻ᵉ − 1) rounds only once."""
    x, form = rounded(x), FORMATS[x.kind]
    e = _exponent((x + 1.0).bits(), x.kind)
    steps = e << form.digits
    four = x.emit.number(4.0, x.kind).bits()  # 2² × 2⁻ᵉ is never denormal
    f = (x.bits() - steps).bits() + ((four - steps).bits() * 0.25 - 1.0)
    made = e.to(x.kind) * math.log(2) + _log_polynomial(f)
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
    return copysign(where(large, made + math.log(2), made), x)


def acosh(x: Value) -> Value:
    """log(1 + t + √(t² + 2t)) with t = x − 1, or log(1 + x) + log 2 where x is large."""
    x = rounded(x)
    t = x - 1.0
    large = x.compare("gt", 2.0 ** (FORMATS[x.kind].digits + 2))
    made = log1p(where(large, x, t + sqrt(t * t + (t + t))))
    made = where(large, made + math.log(2), made)
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
    emit, kind, form = x.emit, x.kind, FORMATS[x.kind]
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
    n, r = _halvings(at_least(at_most(z, top), low), 2 * form.bias)
    made = _scaled(_exp_polynomial(r + z_rest), n)
    whole = trunc(y).compare("eq", y)
    half = rounded(y * 0.5)
    odd = whole & trunc(half).compare("ne", half)
    made = where(odd, copysign(made, x), made)
    lost = x.compare("lt", 0.0) & x.compare("gt", -infinite) & ~whole
    made = where(lost, emit.number(math.nan, kind), made)
    return where(x.compare("eq", 1.0) | y.compare("eq", 0.0), one, made)
