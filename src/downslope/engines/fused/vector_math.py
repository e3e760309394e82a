"""Functions of `Value`s, as vector instructions.

Each function is one straight line of instructions, the same ones for a vector as for a single
number, so that a result's bits depend on nothing but its arguments'. Library functions would not
do: they are not vectors, and they differ from system to system.

The idea is always the same (Muller, Elementary Functions, 2016, chapters 3 and 11): bring the
argument into a small interval by an identity, without rounding where it matters; a polynomial
there (fitted by scripts/fit_polynomials.py); undo the identity.
"""

from downslope.engines.fused.vector_basics import (
    absolute,
    ceil,
    copysign,
    floor,
    maximum,
    minimum,
    round,
    rsqrt,
    sign,
    sqrt,
    trunc,
)
from downslope.engines.fused.vector_erf import erf, erfc
from downslope.engines.fused.vector_exponentials import cosh, exp, exp2, expm1, sigmoid, sinh, tanh
from downslope.engines.fused.vector_logarithms import (
    acosh,
    asinh,
    atanh,
    log,
    log1p,
    log2,
    log10,
    power,
)
from downslope.engines.fused.vector_remainders import fmod, remainder
from downslope.engines.fused.vector_trigonometry import acos, asin, atan, atan2, cos, sin, tan

__all__ = [
    "absolute",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "fmod",
    "log",
    "log10",
    "log1p",
    "log2",
    "maximum",
    "minimum",
    "power",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
]
