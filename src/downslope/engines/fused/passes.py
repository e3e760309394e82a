"""Passes over rows: gradients and losses of samples, summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from llvmlite import ir

from downslope.engines.fused import loops
from downslope.engines.fused.blocks import I64, Bank, Variable, at, gathered, loop, summed
from downslope.engines.fused.instructions import SIZES
from downslope.engines.fused.lower import interpret
from downslope.engines.fused.products import LAZY, LOOPED
from downslope.engines.fused.rows import Place, Rows
from downslope.engines.fused.slots import held
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.values import Array, Value, where

if TYPE_CHECKING:
    from downslope.engines.fused.kernel import Kernel

PART = 512
"""Rows after which a long sum is put into the total, and after which a stop is noticed."""


class Passes:
    """Writes the passes of a kernel; after one, what it found.

    Attributes:
        batch_loss: the loss of the rows.
        count: how many rows there were.
    """

    batch_loss: Value
    count: Value

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.spec, self.emit = kernel, kernel.spec, kernel.emit
        self.frame, self.graphs, self.uniform = kernel.frame, kernel.graphs, kernel.uniform
        self.total = Variable(self.emit, self.spec.kind, False)
        self.direct: list[Value] = []
        self._memory()

    def _memory(self) -> None:
        """Room for sums: variables where they are few, else in the thread's own memory."""
        spec, emit, kind, frame = self.spec, self.emit, self.spec.kind, self.frame
        count = self.parameter_count = sum(map(prod, spec.parameters.shapes))
        scratch = at(
            emit, frame.address("scratch"), "i8", self.kernel.thread * frame["scratch_size"]
        )
        bases = [None] * 3
        if not spec.registers:
            bases = [at(emit, scratch, kind, count * spec.lanes * place) for place in range(3)]
        self.gradients = Bank(emit, kind, False, count, bases[0])
        self.deep_gradients = Bank(emit, kind, False, count if spec.deep else 0, bases[1])
        self.reduced = Bank(emit, kind, True, count if self.uniform else 0, bases[2])
        if not spec.registers:
            used = 3 * count * spec.lanes * SIZES[kind]
            emit.workspace = loops.Workspace(emit, scratch, used)

    def batch(self, done: Value) -> None:
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

        first = self.kernel.tile * spec.orders
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
        if self.spec.mean:
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
            self.kernel.stop()
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
        parameters = self.kernel.parameters.arrays(self.spec.parameters.shapes)
        constants = self.kernel.constants.arrays(self.spec.constants.shapes)
        return interpret(traced, [*parameters, *constants, *data], self.emit)
