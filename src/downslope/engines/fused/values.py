"""Numbers of a program that is being written: Python arithmetic on them emits LLVM instructions.

A `Value` is one number a lane (a vector of `lanes` of them side by side), or a single number that
all lanes share (`uniform`), such as a row of data or the number of the step. So

    >>> from llvmlite import ir
    >>> module = ir.Module()
    >>> vector = ir.VectorType(ir.FloatType(), 16)
    >>> function = ir.Function(module, ir.FunctionType(vector, [vector]), "double_plus_one")
    >>> emit = Emitter(ir.IRBuilder(function.append_basic_block()), lanes=16)
    >>> x = emit.wrap(function.args[0])
    >>> _ = emit.builder.ret((x * 2 + 1).ir)
    >>> str(function).count("llvm.fma.v16f32")
    1

Products, and sums of them, are not emitted until something takes them: added to a number, each
product is one fused multiply-add, whatever else uses it. What is emitted thus follows from the
formula alone, and a lane's bits depend on nothing but that lane. (LLVM's own contraction would
fuse depending on how often a product is used.) A square that is subtracted is left alone:
x² − mean² must not come out below zero where plain rounding gives zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from llvmlite.ir import Value as Instruction

from downslope.engines.fused.instructions import (
    FLOATS,
    KINDS,
    SIZES,
    Written,
    called,
    converted,
    kind_of,
    splat,
)

Number: TypeAlias = "Value | float | int | bool"
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""A tensor: an array of Values."""

_NUMPY = {
    "f32": np.float32,
    "f64": np.float64,
    "i1": np.bool_,
    "i8": np.uint8,
    "i32": np.int32,
    "i64": np.int64,
}
_RANK = {"i1": 0, "i8": 1, "i32": 2, "i64": 3, "f32": 4, "f64": 5}
_LONG = 200
_ORDERED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class Emitter:
    """Where instructions go.

    Attributes:
        builder: llvmlite's; its position moves as blocks are opened.
        lanes: how many numbers stand side by side in a vector.
    """

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.builder, self.lanes = builder, lanes
        self.module: ir.Module = builder.function.module
        self._numbers: dict[tuple[str, str], Value] = {}
        self.workspace: Any = None
        """Memory for intermediate results, where there is some: see `loops.Workspace`."""
        self.never: tuple[Instruction, ir.Block] | None = None
        """A condition that is never met, and where it would lead: see `cut`."""

    def cut(self) -> None:
        """End the block here if it has grown long, by a branch that is never taken.

        LLVM's time grows with the square of a block's length.
        """
        builder = self.builder
        if self.never is not None and len(builder.block.instructions) > _LONG:
            condition, target = self.never
            following = builder.append_basic_block("more")
            builder.cbranch(condition, target, following)
            builder.position_at_end(following)

    def type_of(self, kind: str, uniform: bool) -> ir.Type:
        """The LLVM type of a kind of number."""
        return KINDS[kind] if uniform else ir.VectorType(KINDS[kind], self.lanes)

    def wrap(self, made: Instruction) -> Value:
        """An LLVM value as a Value."""
        return Value(self, kind_of(made), not isinstance(made.type, ir.VectorType), made)

    def number(self, number: float | int | bool, kind: str) -> Value:
        """A constant."""
        key = (kind, repr(number))
        if key not in self._numbers:
            with np.errstate(all="ignore"):
                exact: Any = np.asarray(number).astype(_NUMPY[kind]).item()
            self._numbers[key] = Value(self, kind, True, ir.Constant(KINDS[kind], exact), exact)
        return self._numbers[key]

    def load(self, pointer: Instruction, kind: str, uniform: bool) -> Value:
        """What `pointer` points to."""
        target = self.type_of(kind, uniform)
        loaded = self.builder.load(pointer, align=SIZES[kind], typ=target)
        return Value(self, kind, uniform, loaded)

    def store(self, value: Value, pointer: Instruction, uniform: bool) -> None:
        """Put `value` where `pointer` points to."""
        made = value.ir if uniform else value.vector
        self.builder.store(made, pointer, align=SIZES[value.kind])

    def intrinsic(self, name: str, values: Sequence[Value]) -> Value:
        """An LLVM intrinsic of operands of one kind, such as ``llvm.sqrt``."""
        uniform = all(v.uniform for v in values)
        made = [v.ir if uniform else v.vector for v in values]
        kind = values[0].kind
        full = f"{name}.{kind}" if uniform else f"{name}.v{self.lanes}{kind}"
        return Value(self, kind, uniform, called(self.builder, full, made[0].type, made))


class Value:
    """One number a lane, or one for all lanes.

    Attributes:
        kind: "f32", "f64", "i1", "i8", "i32" or "i64".
        uniform: whether all lanes share it.
        constant: the number itself, where it is known beforehand.
    """

    __slots__ = ("_ir", "_vectors", "constant", "emit", "kind", "uniform")
    __array_ufunc__ = None  # numpy's arrays of these must not take their operators over
    __hash__ = object.__hash__

    def __init__(
        self,
        emit: Emitter,
        kind: str,
        uniform: bool,
        made: Instruction | None,
        constant: float | int | bool | None = None,
    ) -> None:
        self.emit, self.kind, self.uniform = emit, kind, uniform
        self._ir, self.constant = made, constant
        self._vectors: dict[int, Instruction] = {}

    # -- as LLVM sees it ------------------------------------------------------------------------

    @property
    def ir(self) -> Instruction:
        """The LLVM value: a scalar if uniform, else a vector."""
        return self._ir

    @property
    def vector(self) -> Instruction:
        """The LLVM vector, with a uniform number in all of its lanes."""
        if not self.uniform:
            return self.ir
        builder, lanes, scalar = self.emit.builder, self.emit.lanes, self.ir
        constant = self.constant is not None
        place = 0 if constant else id(builder.block)
        if place not in self._vectors:
            vector = ir.VectorType(scalar.type, lanes)
            made = Written(vector, f"splat ({scalar})") if constant else None
            self._vectors[place] = made or splat(builder, scalar, lanes)
        return self._vectors[place]

    # -- arithmetic -----------------------------------------------------------------------------

    def __add__(self, other: Number) -> Value:
        a, b = self._pair(other)
        if a.constant is not None and b.constant is not None:
            return a._folded(a.constant, b.constant, np.add)
        if a.kind not in FLOATS:
            return a._binary("add", b)
        if isinstance(b, Sum):
            return added(a, b.terms)
        return added(b, a.terms) if isinstance(a, Sum) else a._binary("fadd", b)

    def __sub__(self, other: Number) -> Value:
        a, b = self._pair(other)
        if a.constant is not None and b.constant is not None:
            return a._folded(a.constant, b.constant, np.subtract)
        if a.kind not in FLOATS:
            return a._binary("sub", b)
        if b.constant == 0:
            return a
        if isinstance(b, Sum) and not b.is_square and a is not b:  # x - x is 0
            return added(a, (-b).terms)
        if isinstance(a, Sum) and a is not b:
            return added(-b, a.terms)
        return a._binary("fsub", b)

    def __mul__(self, other: Number) -> Value:
        a, b = self._pair(other)
        if a.constant is not None and b.constant is not None:
            return a._folded(a.constant, b.constant, np.multiply)
        if a.kind not in FLOATS:
            return a._binary("mul", b)
        if b.constant == 1:
            return a
        if a.constant == 1:
            return b
        return Sum([(a, b)])

    def __truediv__(self, other: Number) -> Value:
        a, b = self._pair(other)
        if a.constant is not None and b.constant is not None:
            return a._folded(a.constant, b.constant, np.divide)
        return a if b.constant == 1 else a._binary("fdiv", b)

    def __neg__(self) -> Value:
        if self.constant is not None:
            return self.emit.number(-self.constant, self.kind)
        if self.kind not in FLOATS:
            return self.emit.number(0, self.kind) - self
        return Value(self.emit, self.kind, self.uniform, self.emit.builder.fneg(self.ir))

    def __radd__(self, other: Number) -> Value:
        return self._like(other) + self

    def __rsub__(self, other: Number) -> Value:
        return self._like(other) - self

    def __rmul__(self, other: Number) -> Value:
        return self._like(other) * self

    def __rtruediv__(self, other: Number) -> Value:
        return self._like(other) / self

    # -- comparing, choosing and bits --------------------------------------------------------------

    def compare(self, how: str, other: Number) -> Value:
        """lt, le, gt, ge, eq (false for NaN) or ne (true for NaN)."""
        a, b = self._pair(other)
        builder = self.emit.builder
        if a.kind == "i1":
            a, b = a.to("i8"), b.to("i8")
        x, y, uniform = a._operands(b)
        if a.kind not in FLOATS:
            signed = builder.icmp_unsigned if a.kind == "i8" else builder.icmp_signed
            return Value(self.emit, "i1", uniform, signed(_ORDERED[how], x, y))
        ask = builder.fcmp_unordered if how == "ne" else builder.fcmp_ordered
        return Comparison(how, a, b, uniform, ask(_ORDERED[how], x, y))

    def __and__(self, other: Number) -> Value:
        return self._binary("and_", self._like(other))

    def __or__(self, other: Number) -> Value:
        return self._binary("or_", self._like(other))

    def __xor__(self, other: Number) -> Value:
        return self._binary("xor", self._like(other))

    def __invert__(self) -> Value:
        ones = self.emit.number(1 if self.kind == "i1" else -1, self.kind)
        return self._binary("xor", ones)

    def __lshift__(self, other: Number) -> Value:
        return self._binary("shl", self._like(other))

    def __rshift__(self, other: Number) -> Value:
        """Arithmetic: the sign is kept."""
        return self._binary("ashr", self._like(other))

    def shifted_right(self, other: Number) -> Value:
        """Logical: zeros move in."""
        return self._binary("lshr", self._like(other))

    def bits(self) -> Value:
        """A float's bits as an integer of the same width, or back."""
        twin = {"f32": "i32", "f64": "i64", "i32": "f32", "i64": "f64"}[self.kind]
        made = self.emit.builder.bitcast(self.ir, self.emit.type_of(twin, self.uniform))
        return Value(self.emit, twin, self.uniform, made)

    def to(self, kind: str) -> Value:
        """The same number in another kind; floats are cut towards zero as integers."""
        if kind == self.kind:
            return self
        if self.constant is not None:
            return self.emit.number(self.constant, kind)
        if kind == "i1":
            return self.compare("ne", 0)
        made = converted(self.emit.builder, self.ir, self.kind, kind)
        return Value(self.emit, kind, self.uniform, made)

    # -- inside -----------------------------------------------------------------------------------

    def _like(self, other: Number) -> Value:
        if isinstance(other, Value):
            return other
        kind = self.kind
        if isinstance(other, float) and kind not in FLOATS:
            raise TypeError(f"a {kind} meets the float {other!r}: convert it first")
        return self.emit.number(other, kind)

    def _pair(self, other: Number) -> tuple[Value, Value]:
        other = self._like(other)
        if self.kind == other.kind:
            return self, other
        kind = max(self.kind, other.kind, key=_RANK.__getitem__)
        return self.to(kind), other.to(kind)

    def _operands(self, other: Value) -> tuple[Instruction, Instruction, bool]:
        if self.uniform and other.uniform:
            return self.ir, other.ir, True
        return self.vector, other.vector, False

    def _binary(self, name: str, other: Value) -> Value:
        a, b = self._pair(other)
        x, y, uniform = a._operands(b)
        return Value(self.emit, a.kind, uniform, getattr(self.emit.builder, name)(x, y))

    def _folded(self, a: Any, b: Any, how: Callable[..., Any]) -> Value:
        exact = _NUMPY[self.kind]
        with np.errstate(all="ignore"):
            return self.emit.number(how(exact(a), exact(b)).item(), self.kind)


class Comparison(Value):
    """A comparison of floats, which still knows what was compared."""

    __slots__ = ("how", "left", "right")

    def __init__(
        self, how: str, left: Value, right: Value, uniform: bool, made: Instruction
    ) -> None:
        super().__init__(left.emit, "i1", uniform, made)
        self.how, self.left, self.right = how, left, right


class Sum(Value):
    """A sum of products and numbers, emitted when it is needed as a number of its own.

    Attributes:
        terms: pairs to be multiplied, or a number and None.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Sequence[tuple[Value, Value | None]]) -> None:
        first = terms[0][0]
        uniform = all(v.uniform for term in terms for v in term if v is not None)
        super().__init__(first.emit, first.kind, uniform, None)
        self.terms = tuple(terms)

    @property
    def ir(self) -> Instruction:
        """The LLVM value."""
        if self._ir is None:
            (left, right), *rest = self.terms
            start = left
            if right is not None:
                x, y, uniform = left._operands(right)
                product = self.emit.builder.fmul(x, y)
                start = Value(self.emit, self.kind, uniform, product)
            made = added(start, rest)
            self._ir = made.ir if self.uniform else made.vector
        return self._ir

    @property
    def is_square(self) -> bool:
        """Whether it is one number times itself."""
        return len(self.terms) == 1 and self.terms[0][0] is self.terms[0][1]

    def __neg__(self) -> Sum:
        return Sum([(-left, right) for left, right in self.terms])


def added(start: Value, terms: Sequence[tuple[Value, Value | None]]) -> Value:
    """Start + the terms, one after another."""
    for left, right in terms:
        start = start._binary("fadd", left) if right is None else fma(left, right, start)
    return start


def fma(a: Value, b: Value, c: Value) -> Value:
    """A × b + c, rounded once."""
    return a.emit.intrinsic("llvm.fma", [a, b, c])


def where(condition: Value, a: Value, b: Value) -> Value:
    """A where `condition` (i1) holds, else b."""
    a, b = a._pair(b)
    if condition.constant is not None:
        return a if condition.constant else b
    if isinstance(condition, Comparison) and condition.how in ("le", "ge"):
        compared = condition.right.constant
        if compared is not None and compared == a.constant and condition.left is b:
            # One instruction of the processor; at equality either is the same number.
            condition = condition.right.compare("gt" if condition.how == "le" else "lt", b)
    builder = a.emit.builder
    if condition.uniform and a.uniform and b.uniform:
        return Value(a.emit, a.kind, True, builder.select(condition.ir, a.ir, b.ir))
    # A condition that all lanes share chooses between whole vectors.
    return Value(a.emit, a.kind, False, builder.select(condition.ir, a.vector, b.vector))
