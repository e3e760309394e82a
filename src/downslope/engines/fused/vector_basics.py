"""Signs, whole numbers, roots and extremes, and what the other functions of numbers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from downslope.engines.fused.values import Value, where


@dataclass(frozen=True)
class Format:
    """How a kind of float is laid out.

    Attributes:
        digits: the bits of its fraction.
        bias: what is added to an exponent.
        smallest: the smallest normal number.
        magic: added to a small number and taken away again, it rounds that to an integer (half to
            even), which also stands in the lowest bits in between.
    """

    digits: int
    bias: int
    smallest: float
    magic: float


FORMATS = {
    "f32": Format(23, 127, 2.0**-126, 1.5 * 2.0**23),
    "f64": Format(52, 1023, 2.0**-1022, 1.5 * 2.0**52),
}


def rounded(x: Value) -> Value:
    """The number itself, rounded: nothing that is added to it fuses with what made it."""
    return x.emit.wrap(x.ir)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Its value at x, by Horner's rule; the constant comes first."""
    made = x.emit.number(coefficients[-1], x.kind)
    for coefficient in reversed(coefficients[:-1]):
        made = made * x + coefficient
    return made


def absolute(x: Value) -> Value:
    """|x|, also of −0 and NaN."""
    return x.emit.intrinsic("llvm.fabs", [x])


def copysign(x: Value, y: Value) -> Value:
    """|x| with the sign of y."""
    return x.emit.intrinsic("llvm.copysign", [x, y])


def sqrt(x: Value) -> Value:
    """√x, rounded correctly."""
    return x.emit.intrinsic("llvm.sqrt", [x])


def rsqrt(x: Value) -> Value:
    """1/√x, as torch has it: two roundings."""
    return 1.0 / sqrt(x)


def floor(x: Value) -> Value:
    """The largest integer not above x."""
    return x.emit.intrinsic("llvm.floor", [x])


def ceil(x: Value) -> Value:
    """The smallest integer not below x."""
    return x.emit.intrinsic("llvm.ceil", [x])


def trunc(x: Value) -> Value:
    """The integer next to x on the way to 0."""
    return x.emit.intrinsic("llvm.trunc", [x])


def round(x: Value) -> Value:
    """The nearest integer, the even one of two, as torch.round has it."""
    return x.emit.intrinsic("llvm.roundeven", [x])


def sign(x: Value) -> Value:
    """−1, 0 or 1; 0 of NaN, as torch.sign has it."""
    one = x.emit.number(1.0, x.kind)
    return where(x.compare("gt", 0.0), one, where(x.compare("lt", 0.0), -one, one - 1.0))


def minimum(x: Value, y: Value) -> Value:
    """The smaller one; NaN if one is NaN, as torch.minimum has it."""
    x = rounded(x)
    return where(x.compare("ne", x), x, where(x.compare("lt", y), x, y))


def maximum(x: Value, y: Value) -> Value:
    """The larger one; NaN if one is NaN, as torch.maximum has it."""
    x = rounded(x)
    return where(x.compare("ne", x), x, where(x.compare("gt", y), x, y))


def at_most(x: Value, bound: float) -> Value:
    """The smaller of x and bound; NaN stays."""
    return where(x.compare("gt", bound), x.emit.number(bound, x.kind), x)


def at_least(x: Value, bound: float) -> Value:
    """The larger of x and bound; NaN stays."""
    return where(x.compare("lt", bound), x.emit.number(bound, x.kind), x)
