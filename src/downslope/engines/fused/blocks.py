"""Loops, branches and memory of a program that is being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
from llvmlite import ir

from downslope.engines.fused.instructions import KINDS, POINTER, SIZES, called
from downslope.engines.fused.slots import Slot
from downslope.engines.fused.values import Array, Emitter, Value

I32, I64 = ir.IntType(32), ir.IntType(64)
_BYTE = ir.IntType(8)


class Variable:
    """A number that changes, made in the function's first block; a register once optimised."""

    def __init__(self, emit: Emitter, kind: str, uniform: bool) -> None:
        self.emit, self.kind, self.uniform = emit, kind, uniform
        with emit.builder.goto_entry_block():
            self.pointer = emit.builder.alloca(emit.type_of(kind, uniform))

    def get(self) -> Value:
        """Its value now."""
        made = self.emit.builder.load(self.pointer)
        return Value(self.emit, self.kind, self.uniform, made)

    def set(self, value: Value) -> None:
        """Give it another."""
        made = value.to(self.kind)
        self.emit.builder.store(made.ir if self.uniform else made.vector, self.pointer)


def integer(emit: Emitter, number: int) -> Value:
    """A whole number, as a constant."""
    return emit.number(number, "i64")


def at(emit: Emitter, base: ir.Value, kind: str, offset: Value | int, width: int = 1) -> ir.Value:
    """The address `offset` places of `width` numbers after `base`, an i64."""
    size = SIZES[kind] * width
    distance = ir.Constant(I64, offset * size) if isinstance(offset, int) else (offset * size).ir
    return emit.builder.gep(base, [distance], source_etype=_BYTE)


def pointer(emit: Emitter, address: Value) -> ir.Value:
    """An address as a pointer to bytes."""
    return emit.builder.inttoptr(address.ir, POINTER)


@contextmanager
def loop(emit: Emitter, start: Value, stop: Value, step: int = 1) -> Iterator[Value]:
    """``for i in range(start, stop, step)``."""
    builder = emit.builder
    before = builder.block
    head = builder.append_basic_block("loop")
    body = builder.append_basic_block("body")
    end = builder.append_basic_block("end")
    first, last = start.ir, stop.ir
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", index, last), body, end)
    builder.position_at_end(body)
    number = Value(emit, "i64", True, index)
    yield number
    following = (number + step).ir
    index.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(end)


@contextmanager
def when(emit: Emitter, condition: Value) -> Iterator[None]:
    """``if condition:`` (uniform)."""
    with emit.builder.if_then(condition.ir):
        yield


def any_lane(condition: Value) -> Value:
    """Whether an i1 holds in any lane."""
    if condition.uniform:
        return condition
    emit = condition.emit
    name = f"llvm.vector.reduce.or.v{emit.lanes}i1"
    return Value(emit, "i1", True, called(emit.builder, name, KINDS["i1"], [condition.ir]))


def summed(value: Value) -> Value:
    """The sum over the lanes, by halves; a uniform number is as it is."""
    if value.uniform:
        return value
    emit, made, lanes = value.emit, value.ir, value.emit.lanes
    builder = emit.builder
    add = builder.fadd if value.kind in ("f32", "f64") else builder.add
    while lanes > 1:
        lanes //= 2
        kind = ir.VectorType(I32, lanes)
        masks = [ir.Constant(kind, list(range(a, a + lanes))) for a in (0, lanes)]
        made = add(*(builder.shuffle_vector(made, made, mask) for mask in masks))
    scalar = builder.extract_element(made, ir.Constant(I32, 0))
    return Value(emit, value.kind, True, scalar)


def gathered(emit: Emitter, base: ir.Value, kind: str, offset: Value) -> Value:
    """Numbers from a place a lane."""
    builder, lanes = emit.builder, emit.lanes
    target = emit.type_of(kind, False)
    size = SIZES[kind]
    places = builder.ptrtoint(base, I64)
    addresses = offset * size + Value(emit, "i64", True, places)
    pointers = builder.inttoptr(addresses.vector, ir.VectorType(POINTER, lanes))
    name = f"llvm.masked.gather.v{lanes}{kind}.v{lanes}p0"
    everywhere, none = emit.number(True, "i1").vector, ir.Constant(target, ir.Undefined)
    operands = [pointers, ir.Constant(I32, size), everywhere, none]
    return Value(emit, kind, False, called(builder, name, target, operands))


class Bank:
    """Numbers side by side in memory, or in variables: a run's parameters, say."""

    def __init__(
        self,
        emit: Emitter,
        kind: str,
        uniform: bool,
        size: int,
        base: ir.Value | None = None,
    ) -> None:
        self.emit, self.kind, self.uniform, self.size = emit, kind, uniform, size
        self.width = 1 if uniform else emit.lanes
        self.base = base
        count = size if base is None else 0
        self.variables = [Variable(emit, kind, uniform) for _ in range(count)]

    def pointer(self, place: int | Value) -> ir.Value:
        """Where a number is."""
        if self.base is None:
            assert isinstance(place, int)
            return self.variables[place].pointer
        return at(self.emit, self.base, self.kind, place, self.width)

    def slot(self, place: int | Value) -> Slot:
        """A number, loaded wherever it is used."""
        home = (self, place) if isinstance(place, int) else None
        return Slot(self.emit, self.kind, self.uniform, lambda: self.pointer(place), home)

    def get(self, place: int | Value) -> Value:
        """A number, loaded now."""
        return self.slot(place).held()

    def set(self, place: int | Value, value: Value) -> None:
        """Put a number there."""
        self.emit.store(value.to(self.kind), self.pointer(place), self.uniform)

    def arrays(self, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        """The numbers as tensors of these shapes, one after another."""
        made, start = [], 0
        for shape in shapes:
            size = prod(shape)
            made.append(self.array(shape, start))
            start += size
        return made

    def array(self, shape: tuple[int, ...], start: int = 0) -> Array:
        """The numbers from a place on as a tensor."""
        size = prod(shape)
        flat = np.empty(size, dtype=object)
        flat[:] = [self.slot(place) for place in range(start, start + size)]
        return flat.reshape(shape)

    def copy_from(self, other: Bank) -> None:
        """All numbers of another bank."""
        for place in range(self.size):
            self.set(place, other.get(place))
