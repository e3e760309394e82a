"""The program of a whole descent: a loop over tiles of runs, over updates, over samples.

A tile is as many runs as a vector has lanes (or a single run, where samples lie across the
vector). All of its numbers stand together in memory; a program call carries its runs from one
update to another. For each update::

    full pass over the rows        (where updates see all rows: the loss is the record's, too)
    record, if one is due          losses written, runs judged
    pass over the batch            (where they do not)
    clip, update, judge            the runs that go on take the new parameters
"""

from __future__ import annotations

import gc
from math import prod

from llvmlite import ir

from downslope.engines.fused.blocks import (
    I64,
    Bank,
    Variable,
    any_lane,
    at,
    when,
)
from downslope.engines.fused.frame import Frame
from downslope.engines.fused.instructions import POINTER
from downslope.engines.fused.orders import define_orders
from downslope.engines.fused.passes import Passes
from downslope.engines.fused.spec import Graphs, Spec
from downslope.engines.fused.update import Update
from downslope.engines.fused.values import Emitter, Value, where
from downslope.engines.fused.verdicts import Verdicts

KERNEL, ORDERS, SCRATCH = "downslope_kernel", "downslope_orders", "downslope_scratch"
_PAGE = 4096


def written(spec: Spec, graphs: Graphs) -> str:
    """The program as LLVM IR; its functions are `KERNEL` (frame, thread), `ORDERS`, and
    `SCRATCH`, the bytes of memory that a thread needs."""
    collects = gc.isenabled()
    gc.disable()  # it would look through tens of thousands of instructions again and again
    try:
        return str(_module(spec, graphs))
    finally:
        if collects:
            gc.enable()


def _module(spec: Spec, graphs: Graphs) -> ir.Module:
    module = ir.Module("downslope")
    if spec.orders:
        define_orders(module)
    pointer = POINTER
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, I64]), KERNEL)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    kernel = Kernel(spec, graphs, Emitter(builder, spec.lanes), function)
    kernel.write()
    size = ir.Function(module, ir.FunctionType(I64, []), SCRATCH)
    workspace = kernel.emit.workspace
    bytes_ = 0 if workspace is None else -(-workspace.size // _PAGE) * _PAGE
    ir.IRBuilder(size.append_basic_block()).ret(ir.Constant(I64, bytes_))
    return module


class Kernel:
    """The function being written."""

    def __init__(self, spec: Spec, graphs: Graphs, emit: Emitter, function: ir.Function) -> None:
        self.spec, self.graphs, self.emit = spec, graphs, emit
        self.uniform = spec.across == "samples"  # a run's numbers are plain numbers then
        self.frame = Frame(emit, function.args[0])
        self.thread = emit.wrap(function.args[1])
        self.parameter_count = sum(map(prod, spec.parameters.shapes))
        self.alive = Variable(emit, "i1", self.uniform)
        self.done = Variable(emit, "i64", True)

    # -- tiles ------------------------------------------------------------------------------------

    def write(self) -> None:
        """The whole function."""
        emit, builder, frame = self.emit, self.emit.builder, self.frame
        self.exit = builder.append_basic_block("exit")
        emit.never = (frame["tiles"].compare("lt", 0).ir, self.exit)
        head = builder.append_basic_block("tile")
        builder.branch(head)
        builder.position_at_end(head)
        counter = builder.inttoptr(frame["next_tile"].ir, POINTER)
        taken = builder.atomic_rmw("add", counter, ir.Constant(I64, 1), "monotonic")
        self.tile = Value(emit, "i64", True, taken)
        with when(emit, self.tile.compare("ge", frame["tiles"])):
            builder.branch(self.exit)
            builder.position_at_end(builder.append_basic_block("never"))
        self._memory()
        self._tile()
        builder.branch(head)
        builder.position_at_end(self.exit)
        builder.ret_void()

    def _memory(self) -> None:
        """Where the tile's numbers are; copied into variables where they are few."""
        spec, emit, kind = self.spec, self.emit, self.spec.kind
        count, states = self.parameter_count, spec.element_state
        size = count * (2 + states)
        base = self.tile_array("numbers", kind, size)
        banks = [
            Bank(emit, kind, self.uniform, count, self._after(base, kind, place * count))
            for place in range(2 + states)
        ]
        self.kept = banks
        if spec.registers:
            banks = [Bank(emit, kind, self.uniform, count) for _ in banks]
            for bank, kept in zip(banks, self.kept, strict=True):
                bank.copy_from(kept)
        self.parameters, self.before, *self.state = banks
        cells = max(spec.cells, default=-1) + 1
        doubles = self.tile_array("doubles", "f64", cells * spec.cell_state)
        self.cell_state = Bank(emit, "f64", self.uniform, cells * spec.cell_state, doubles)
        constants = sum(map(prod, spec.constants.shapes))
        where_constants = self.tile_array("constants", kind, constants)
        self.constants = Bank(emit, kind, self.uniform, constants, where_constants)
        self.verdicts = Verdicts(self)
        self.update = Update(self)
        self.passes = Passes(self)

    def tile_array(self, name: str, kind: str, size: int) -> ir.Value:
        """Where this tile's numbers are in an array of (tiles, size, runs)."""
        return at(self.emit, self.frame.address(name), kind, self.tile * size, self.spec.width)

    def _after(self, base: ir.Value, kind: str, places: int) -> ir.Value:
        return at(self.emit, base, kind, places, self.spec.width)

    def _put_back(self) -> None:
        if self.spec.registers:
            for bank, kept in zip(
                (self.parameters, self.before, *self.state), self.kept, strict=True
            ):
                kept.copy_from(bank)
        self.verdicts.put_back()

    def _tile(self) -> None:
        """From the first update of this call to its last, or until no run goes on."""
        emit, builder, frame, spec = self.emit, self.emit.builder, self.frame, self.spec
        self.done.set(frame["first_update"])
        self.verdicts.begin()
        head = builder.append_basic_block("update")
        end = builder.append_basic_block("updated")
        builder.branch(head)
        builder.position_at_end(head)
        done = self.done.get()
        at_end = done.compare("ge", frame["last_update"])
        at_last = done.compare("ge", frame["updates"])
        self._leave(~any_lane(self.alive.get()) | (at_end & ~at_last), end)
        self.stop()
        if spec.full:
            self.passes.train(emit.number(0, "i64"), frame["rows"], lambda i: i)
        self.verdicts.record_if_due(done)
        self._leave(at_end, end)
        if not spec.full:
            self.passes.batch(done)
        self.update.write(done)
        self.done.set(done + 1)
        builder.branch(head)
        builder.position_at_end(end)
        self._put_back()
        progress = at(emit, frame.address("progress"), "i64", self.tile)
        emit.builder.fence("release")
        emit.store(self.done.get(), progress, True)

    def _leave(self, condition: Value, target: ir.Block) -> None:
        builder = self.emit.builder
        following = builder.append_basic_block("go_on")
        builder.cbranch(condition.ir, target, following)
        builder.position_at_end(following)

    def stop(self) -> None:
        """End the call, leaving this tile unfinished, where it was asked to stop."""
        emit, frame = self.emit, self.frame
        address = emit.builder.inttoptr(frame["stop"].ir, POINTER)
        asked = emit.builder.load_atomic(address, "monotonic", 8, typ=I64)
        self._leave(emit.wrap(asked).compare("ne", 0), self.exit)

    def restore(self, which: Value) -> None:
        """Take these runs back to before their last update."""
        for place in self.passes.places(self.parameter_count):
            old, new = self.before.get(place), self.parameters.get(place)
            self.parameters.set(place, where(which, old, new))
