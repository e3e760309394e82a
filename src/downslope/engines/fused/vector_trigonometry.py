"""Sine, cosine, tangent and their inverses, as vector instructions."""

from __future__ import annotations

import math

from downslope.engines.fused import coefficients
from downslope.engines.fused.values import Value, where
from downslope.engines.fused.vector_basics import (
    absolute,
    at_least,
    at_most,
    copysign,
    polynomial,
    rounded,
    sqrt,
)
from downslope.engines.fused.vector_turns import quarter_turns


def _sine(r: Value) -> Value:
    """Sin r for 0 ≤ |r| ≤ π/4."""
    square = rounded(r * r)
    return (r * square) * polynomial(square, coefficients.SIN[r.kind]) + r


def _cosine(r: Value) -> Value:
    """Cos r for 0 ≤ |r| ≤ π/4."""
    square = rounded(r * r)
    tail = rounded(square * polynomial(square, coefficients.COS[r.kind]))
    return square * (tail - 0.5) + 1.0


def _with_sign(x: Value, bit: Value) -> Value:
    """x, negated where the lowest bit of an integer is set."""
    width = {"f32": 31, "f64": 63}[x.kind]
    return (x.bits() ^ (bit << width)).bits()


def _odd(n: Value) -> Value:
    return (n & 1).compare("ne", 0)


def sin(x: Value) -> Value:
    """± sin r or ± cos r, where |x| = n π/2 + r."""
    x = rounded(x)
    n, r = quarter_turns(absolute(x))
    made = _with_sign(where(_odd(n), _cosine(r), _sine(r)), n.shifted_right(1))
    return _with_sign(made, x.bits().shifted_right({"f32": 31, "f64": 63}[x.kind]))


def cos(x: Value) -> Value:
    """± cos r or ± sin r, where |x| = n π/2 + r."""
    n, r = quarter_turns(absolute(rounded(x)))
    return _with_sign(where(_odd(n), _sine(r), _cosine(r)), (n + 1).shifted_right(1))


def tan(x: Value) -> Value:
    """Sin r / cos r, or less its inverse, where |x| = n π/2 + r."""
    x = rounded(x)
    n, r = quarter_turns(absolute(x))
    odd, sine, cosine = _odd(n), _sine(r), _cosine(r)
    made = _with_sign(where(odd, cosine, sine) / where(odd, sine, cosine), n)
    return _with_sign(made, x.bits().shifted_right({"f32": 31, "f64": 63}[x.kind]))


def _half_pi(x: Value) -> tuple[Value, Value]:
    """π/2 as a sum of two numbers."""
    first, second = coefficients.HALF_PI[x.kind][:2]
    return x.emit.number(first, x.kind), x.emit.number(second, x.kind)


def _small_asin(size: Value) -> tuple[Value, Value]:
    """Asin of size where that is below ½, else of √((1 − size) / 2); and whether it is below."""
    below = size.compare("lt", 0.5)
    square = where(below, size * size, (1.0 - size) * 0.5)
    s = where(below, size, sqrt(square))
    return (s * square) * polynomial(square, coefficients.ASIN[size.kind]) + s, below


def asin(x: Value) -> Value:
    """For small |x|, x + x³ P(x²), else π/2 − 2 asin √((1 − |x|) / 2)."""
    x = rounded(x)
    small, below = _small_asin(absolute(x))
    first, second = _half_pi(x)
    return copysign(where(below, small, first - (small + small - second)), x)


def acos(x: Value) -> Value:
    """π/2 − asin x, or 2 asin √((1 − x) / 2) for large x, or π less that for −x."""
    x = rounded(x)
    small, below = _small_asin(absolute(x))
    first, second = _half_pi(x)
    near = first - (copysign(small, x) - second)
    twice = small + small
    far = where(x.compare("lt", 0.0), (first + first) - (twice - (second + second)), twice)
    return where(below, near, far)


def _arc(low: Value, high: Value, steep: Value) -> Value:
    """atan(low / high) for 0 ≤ low ≤ high, or π/2 less that where it is steep."""
    t = low / high
    square = rounded(t * t)
    p = (t * square) * polynomial(square, coefficients.ATAN[t.kind]) + t
    first, second = _half_pi(t)
    return where(steep, first - (p - second), p)


def atan(x: Value) -> Value:
    """The angle of the slope x: t + t³ P(t²), or π/2 less that of 1/|x|."""
    x = rounded(x)
    size = absolute(x)
    return copysign(_arc(at_most(size, 1.0), at_least(size, 1.0), size.compare("gt", 1.0)), x)


def atan2(y: Value, x: Value) -> Value:
    """The angle of the point (x, y), with C's signs of zeros and infinities."""
    x, y = rounded(x), rounded(y)
    one, wide, high = x.emit.number(1.0, x.kind), absolute(x), absolute(y)
    steep = high.compare("gt", wide)
    large, small = where(steep, high, wide), where(steep, wide, high)
    # 0 / 0 is to be 0 here, and ∞ / ∞ to be 1.
    endless = small.compare("eq", math.inf)
    small = where(endless, one, small)
    large = where(endless | large.compare("eq", 0.0), one, large)
    angle = _arc(small, large, steep)
    first, second = _half_pi(x)
    backwards = (first + first) - (angle - (second + second))
    angle = copysign(where(x.bits().compare("lt", 0), backwards, angle), y)
    lost = x.compare("ne", x) | y.compare("ne", y)
    return where(lost, x.emit.number(math.nan, x.kind), angle)
