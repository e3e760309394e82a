"""Arithmetic on whole numbers that differs from that on floats.

A processor stops the program where a whole number is divided by zero. So divisors are constants.
"""

from __future__ import annotations

from downslope.engines.fused.trace import UnknownOperationError
from downslope.engines.fused.values import Value, where


def _divided(a: Value, b: Value, name: str) -> Value:
    if not b.constant:
        raise UnknownOperationError("division by whole numbers that are no constants, or zero")
    return a._binary(("u" if a.kind in ("i1", "i8") else "s") + name, b)


def quotient(a: Value, b: Value) -> Value:
    """A / b, cut towards zero."""
    return _divided(a, b, "div")


def fmod(a: Value, b: Value) -> Value:
    """What is left of a; it has the sign of a."""
    return _divided(a, b, "rem")


def remainder(a: Value, b: Value) -> Value:
    """What is left of a; it has the sign of b, as Python's has."""
    left = fmod(a, b)
    turned = left.compare("ne", 0) & (left.compare("lt", 0) ^ b.compare("lt", 0))
    return where(turned, left + b, left)


def absolute(a: Value) -> Value:
    """|a|."""
    return where(a.compare("lt", 0), -a, a)


def sign(a: Value) -> Value:
    """−1, 0 or 1."""
    return a.compare("gt", 0).to(a.kind) - a.compare("lt", 0).to(a.kind)


def signbit(a: Value) -> Value:
    """Whether it is below zero."""
    return a.compare("lt", 0)
