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
from collections.abc import Callable, Iterator, Sequence
from math import prod

from llvmlite import ir

from downslope.engines.fused import loops
from downslope.engines.fused.blocks import I64, Bank, Variable, any_lane, at, loop, summed, when
from downslope.engines.fused.frame import Frame
from downslope.engines.fused.instructions import POINTER, SIZES
from downslope.engines.fused.lower import interpret
from downslope.engines.fused.orders import define_orders
from downslope.engines.fused.products import LAZY, LOOPED
from downslope.engines.fused.rows import Place, Rows, gathered
from downslope.engines.fused.slots import held
from downslope.engines.fused.spec import Graphs, Spec
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.update import Update
from downslope.engines.fused.values import Array, Emitter, Value, where
from downslope.engines.fused.verdicts import Verdicts

KERNEL, ORDERS, SCRATCH = "downslope_kernel", "downslope_orders", "downslope_scratch"
_PAGE = 4096
PART = 512
"""Rows after which a long sum is put into the total, and after which a stop is noticed."""


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
        self.total = Variable(emit, spec.kind, False)
        self.direct: list[Value] = []

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
        spec, emit, kind, frame = self.spec, self.emit, self.spec.kind, self.frame
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
        scratch = at(emit, frame.address("scratch"), "i8", self.thread * frame["scratch_size"])
        bases = [None] * 3
        if not spec.registers:
            bases = [at(emit, scratch, kind, count * spec.lanes * place) for place in range(3)]
        self.gradients = Bank(emit, kind, False, count, bases[0])
        self.deep_gradients = Bank(emit, kind, False, count if spec.deep else 0, bases[1])
        self.reduced = Bank(emit, kind, True, count if self.uniform else 0, bases[2])
        if not spec.registers:
            used = 3 * count * spec.lanes * SIZES[kind]
            emit.workspace = loops.Workspace(emit, scratch, used)

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
        self._stop()
        if spec.full:
            self.train(emit.number(0, "i64"), frame["rows"], lambda i: i)
        self.verdicts.record_if_due(done)
        self._leave(at_end, end)
        if not spec.full:
            self._batch(done)
        self.update.write(done)
        self.done.set(done + 1)
        builder.branch(head)
        builder.position_at_end(end)
        self._put_back()
        progress = at(emit, frame.address("progress"), "i64", self.tile)
        emit.store(self.done.get(), progress, True)

    def _leave(self, condition: Value, target: ir.Block) -> None:
        builder = self.emit.builder
        following = builder.append_basic_block("go_on")
        builder.cbranch(condition.ir, target, following)
        builder.position_at_end(following)

    def _stop(self) -> None:
        """End the call, leaving this tile unfinished, where it was asked to stop."""
        emit, frame = self.emit, self.frame
        address = emit.builder.inttoptr(frame["stop"].ir, POINTER)
        asked = emit.builder.load_atomic(address, "monotonic", 8, typ=I64)
        self._leave(emit.wrap(asked).compare("ne", 0), self.exit)

    # -- passes over rows -------------------------------------------------------------------------

    def _batch(self, done: Value) -> None:
        """The pass over the samples of update `done` + 1."""
        frame = self.frame
        builder = self.emit.builder
        epoch = Value(self.emit, "i64", True, builder.sdiv(done.ir, frame["per_epoch"].ir))
        place = done - epoch * frame["per_epoch"]
        first = place * frame["batch"]
        last = first + frame["batch"]
        last = where(last.compare("lt", frame["rows"]), last, frame["rows"])
        self.train(first, last, self._order(epoch))

    def _order(self, epoch: Value) -> Callable[[Value], Place]:
        """Which row the i-th of an epoch is."""
        spec, emit, frame = self.spec, self.emit, self.frame
        if not spec.orders:
            return lambda i: i
        table, local = frame.address("orders"), epoch - frame["first_epoch"]
        whose = frame.address("order_of")

        def base(group: Value) -> Value:
            order = emit.load(at(emit, whose, "i64", group), "i64", True)
            return (order * frame["epochs"] + local) * frame["rows"]

        first = self.tile * spec.orders
        if spec.orders == spec.lanes and spec.across == "runs":
            own = emit.load(at(emit, whose, "i64", first), "i64", False)
            bases = (own * frame["epochs"] + local) * frame["rows"]
            return lambda i: gathered(emit, table, "i32", bases + i).to("i64")
        starts = [base(first + group) for group in range(spec.orders)]
        if spec.across == "samples":

            def beside(i: Value) -> Place:
                return emit.load(at(emit, table, "i32", starts[0] + i), "i32", False).to("i64")

            return beside

        def rows(i: Value) -> Place:
            made = [
                emit.load(at(emit, table, "i32", start + i), "i32", True).to("i64")
                for start in starts
            ]
            return made[0] if len(made) == 1 else made

        return rows

    def train(self, first: Value, last: Value, row: Callable[[Value], Place]) -> None:
        """Sum gradients and losses over the rows from `first` to `last` of an order."""
        frame = self.frame
        data = (frame.address("x"), frame.address("y"))[: len(self.spec.data.shapes)]
        rows = Rows(self.emit, self.spec, data, frame["row_stride"])
        if self.spec.single:
            chosen = [row(first)] if data else []
            *made, loss = self._interpreted(self.graphs.single, rows.arrays(chosen))
            self.direct = [held(value) for gradient in made for value in gradient.flat]
            self.batch_loss = held(loss.item())
            return
        self._zero()
        self._pass(self.graphs.block, self.spec.block, rows, first, last, row, True)
        self.batch_loss = summed(self.total.get()) if self.uniform else self.total.get()
        if self.spec.mean and not self.spec.single:
            self.count = (last - first).to(self.spec.kind)
            self.batch_loss = self.batch_loss / self.count
        if self.uniform:
            for place in self.places(self.parameter_count):
                self.reduced.set(place, summed(self.gradients.get(place)))

    def gradient(self, place: int | Value) -> Value:
        """The batch's summed gradient by a parameter."""
        if self.direct:
            assert isinstance(place, int)
            return self.direct[place]
        return (self.reduced if self.uniform else self.gradients).get(place)

    def restore(self, which: Value) -> None:
        """Take these runs back to before their last update."""
        for place in self.places(self.parameter_count):
            old, new = self.before.get(place), self.parameters.get(place)
            self.parameters.set(place, where(which, old, new))

    def evaluate(self, which: str) -> Value:
        """The loss over all rows, "" or "validation_", in evaluation mode."""
        frame, spec = self.frame, self.spec
        names = (f"{which}x", f"{which}y")[: len(spec.data.shapes)]
        stride = frame["validation_stride" if which else "row_stride"]
        count = frame["validation_rows" if which else "rows"]
        rows = Rows(self.emit, spec, tuple(map(frame.address, names)), stride)
        self.total.set(self.emit.number(0.0, spec.kind))
        first = self.emit.number(0, "i64")
        self._pass(self.graphs.evaluated, 1, rows, first, count, lambda i: i, False)
        loss = summed(self.total.get()) if self.uniform else self.total.get()
        return loss / count.to(spec.kind) if spec.mean and spec.data.shapes else loss

    def _zero(self) -> None:
        zero = self.emit.number(0.0, self.spec.kind)
        self.total.set(zero)
        for place in self.places(self.parameter_count):
            self.gradients.set(place, zero)
            if self.spec.deep:
                self.deep_gradients.set(place, zero)

    def places(self, count: int) -> Iterator[int | Value]:
        """Places of a bank one by one, in a loop of the program where it is in memory."""
        if self.spec.registers:
            yield from range(count)
        else:
            with loop(self.emit, self.emit.number(0, "i64"), self.emit.number(count, "i64")) as i:
                yield i

    def _pass(
        self,
        traced: Traced,
        block: int,
        rows: Rows,
        first: Value,
        last: Value,
        row: Callable[[Value], Place],
        gradients: bool,
    ) -> None:
        spec, emit = self.spec, self.emit
        if not spec.data.shapes:
            self._take(traced, [], None, gradients)
            return
        single = self.graphs.single if gradients else traced
        each = spec.lanes if self.uniform else 1  # samples in one Value

        def part(start: Value, stop: Value) -> None:
            whole = stop - (each * block - 1)
            reached = Variable(emit, "i64", True)
            reached.set(start)
            with loop(emit, start, whole, each * block) as i:
                chosen = [row(i + each * s) for s in range(block)]
                self._take(traced, rows.arrays(chosen), None, gradients)
                reached.set(i + each * block)
            if not spec.ragged or each * block == 1:
                return
            with loop(emit, reached.get(), stop, each) as i:
                mask = None
                if each > 1:
                    lanes = ir.Constant(ir.VectorType(I64, spec.lanes), list(range(spec.lanes)))
                    mask = (emit.wrap(lanes) + i).compare("lt", stop)
                self._take(single, rows.arrays([row(i)]), mask, gradients)

        if not (spec.deep if gradients else spec.deep_evaluation):
            part(first, last)
            return
        whole = Variable(emit, spec.kind, False)
        whole.set(emit.number(0.0, spec.kind))
        with loop(emit, first, last, PART * each) as start:
            self._stop()
            stop = start + PART * each
            part(start, where(stop.compare("lt", last), stop, last))
            whole.set(whole.get() + self.total.get())
            self.total.set(emit.number(0.0, spec.kind))
            if gradients:
                self._gather_part()
        self.total.set(whole.get())
        if gradients:
            for place in self.places(self.parameter_count):
                self.gradients.set(place, self.deep_gradients.get(place))

    def _gather_part(self) -> None:
        zero = self.emit.number(0.0, self.spec.kind)
        for place in self.places(self.parameter_count):
            sum_ = self.deep_gradients.get(place) + self.gradients.get(place)
            self.deep_gradients.set(place, sum_)
            self.gradients.set(place, zero)

    def _take(
        self, traced: Traced, data: Sequence[Array], mask: Value | None, gradients: bool
    ) -> None:
        """Interpret a graph for some samples, and add up what comes out."""
        spec, emit = self.spec, self.emit
        *made, loss = self._interpreted(traced, data)
        zero = emit.number(0.0, spec.kind)

        def counted(value: Value) -> Value:
            return value if mask is None else where(mask, value, zero)

        self.total.set(self.total.get() + counted(loss.item()))
        if not gradients:
            return
        place = 0
        for gradient in made:
            if not self._add_large(gradient, place, mask):
                for offset, value in enumerate(gradient.flat):
                    if value.constant != 0:
                        old = self.gradients.get(place + offset)
                        self.gradients.set(place + offset, old + counted(value))
                    emit.cut()
            place += gradient.size

    def _add_large(self, gradient: Array, place: int, mask: Value | None) -> bool:
        """Add a large gradient in a loop, if it is a product; whether it is."""
        workspace = self.emit.workspace
        if workspace is None or gradient.ndim != 2 or gradient.size * LAZY < LOOPED:
            return False
        return loops.add_outer(workspace, self.gradients, place, gradient, mask)

    def _interpreted(self, traced: Traced, data: Sequence[Array]) -> list[Array]:
        parameters = self.parameters.arrays(self.spec.parameters.shapes)
        constants = self.constants.arrays(self.spec.constants.shapes)
        return interpret(traced, [*parameters, *constants, *data], self.emit)
