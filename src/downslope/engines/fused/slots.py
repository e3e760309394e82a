"""Numbers that stay in memory, and are loaded wherever they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite.ir import Value as Instruction

from downslope.engines.fused.values import Emitter, Sum, Value


class Slot(Value):
    """A number in memory, loaded wherever it is used.

    Args:
        where: gives its address.
        home: the memory that it belongs to, and its place there.
    """

    __slots__ = ("home", "where")

    def __init__(
        self,
        emit: Emitter,
        kind: str,
        uniform: bool,
        where: Callable[[], Instruction],
        home: tuple[Any, int] | None = None,
    ) -> None:
        super().__init__(emit, kind, uniform, None)
        self.where, self.home = where, home

    @property
    def ir(self) -> Instruction:
        """The LLVM value, loaded anew."""
        return self.held().ir

    @property
    def vector(self) -> Instruction:
        """The LLVM vector, loaded anew."""
        return self.held().vector

    def held(self) -> Value:
        """The number, loaded once."""
        return self.emit.load(self.where(), self.kind, self.uniform)


def settled(value: Sum) -> Value:
    """The sum as a number."""
    return Value(value.emit, value.kind, value.uniform, value.ir)


def held(value: Value) -> Value:
    """A number in memory, loaded once; a sum, computed."""
    if isinstance(value, Slot):
        return value.held()
    return settled(value) if isinstance(value, Sum) else value
