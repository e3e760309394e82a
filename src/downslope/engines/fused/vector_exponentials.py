"""exp and what follows from it, as vector instructions."""

from __future__ import annotations

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
)

LN_2, LOG2_E = 0.6931471805599453, 1.4426950408889634
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


def exp(x: Value, rest: Value | None = None) -> Value:
    """eˣ = 2ⁿ eʳ; or e^(x + rest), where the rest is no larger than the rounding of x."""
    low, high = EXP_ENDS[x.kind]
    n, r = _halvings(at_least(at_most(rounded(x), high), low), 2 * FORMATS[x.kind].bias)
    return _scaled(_exp_polynomial(r if rest is None else r + rest), n)


def exp2(x: Value) -> Value:
    """2ˣ = 2ⁿ e^((x − n) ln 2)."""
    low, high = EXP_ENDS[x.kind]
    x = at_least(at_most(rounded(x), high * LOG2_E), low * LOG2_E)
    magic = FORMATS[x.kind].magic + 2 * FORMATS[x.kind].bias
    shifted = x + magic
    r = rounded((x - (shifted - magic)) * LN_2)
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
