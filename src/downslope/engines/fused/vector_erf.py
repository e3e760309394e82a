"""The error function and its complement, as vector instructions."""

from __future__ import annotations

from downslope.engines.fused import coefficients
from downslope.engines.fused.values import Value, fma, where
from downslope.engines.fused.vector_basics import (
    absolute,
    at_most,
    copysign,
    polynomial,
    rounded,
)
from downslope.engines.fused.vector_exponentials import exp


def erf(x: Value) -> Value:
    """For small |x|, x + x P(x²), else 1 − Q(|x|)ᵏ, where Q is a root of erfc.

    A root of erfc is nearly a polynomial, so that neither exp nor a division is needed. That Q is
    rounded matters little, since erfc(|x|) is small there.
    """
    x = rounded(x)
    size, square = absolute(x), rounded(x * x)
    low, high, root = coefficients.ERF_ENDS[x.kind]
    near = x * polynomial(square, coefficients.ERF[x.kind]) + x
    q = polynomial(at_most(size, high) - (low + high) / 2, coefficients.ERFC_ROOT[x.kind])
    while root > 2:
        q, root = rounded(q * q), root / 2
    far = fma(-q, q, q.emit.number(1.0, x.kind))
    return where(size.compare("lt", low), near, copysign(far, x))


def erfc(x: Value) -> Value:
    """1 − erf(x) for small |x|, else exp(−x²) P((x − 4) / (x + 4)) / (1 + 2x) or 2 less that.

    After Shepherd and Laframboise (Mathematics of Computation 36, 1981).
    """
    x = rounded(x)
    size = at_most(absolute(x), coefficients.ERFC_END[x.kind][0])
    # (x − 4) / (x + 4), and what its rounding lost.
    shifted, inverse = size + 4.0, 1.0 / (size + 4.0)
    q = rounded((size - 4.0) * inverse)
    q = fma(fma(-q, shifted, size - 4.0), inverse, q)
    p = polynomial(q, coefficients.SCALED_ERFC[x.kind])
    denominator = size * 2.0 + 1.0
    square = rounded(size * size)
    rest = fma(size, size, -square)
    e = exp(-square)
    far = (e - rounded(e * rest)) * p / denominator
    far = where(x.compare("lt", 0.0), 2.0 - far, far)
    near = x * polynomial(square, coefficients.ERF[x.kind]) + x
    return where(size.compare("lt", 0.5), 1.0 - near, far)
