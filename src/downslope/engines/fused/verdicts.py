"""Records, and what becomes of runs: the rules of `engines.work.Recorder`, a lane a run."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import TYPE_CHECKING

import numpy as np

from downslope.engines.fused import vector_math as vm
from downslope.engines.fused.blocks import Bank, Variable, any_lane, at, when
from downslope.engines.fused.values import Value, where
from downslope.engines.work import Status

if TYPE_CHECKING:
    from downslope.engines.fused.kernel import Kernel

STATUS, FIRST_BAD, STEPS_DONE, SINCE_BEST = range(4)
WHOLE = 4
LIMIT, PREVIOUS, BEST = range(3)
JUDGED = 3


class Verdicts:
    """Which runs of a tile go on, and what is written of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.spec, self.emit = kernel, kernel.spec, kernel.emit
        self.alive, frame = kernel.alive, kernel.frame
        self.uniform = kernel.uniform
        whole = kernel.tile_array("whole", "i32", WHOLE)
        self.whole = Bank(self.emit, "i32", self.uniform, WHOLE, whole)
        judged = kernel.tile_array("judged", self.spec.kind, JUDGED)
        self.judged = Bank(self.emit, self.spec.kind, self.uniform, JUDGED, judged)
        self.number, self.due = Variable(self.emit, "i64", True), Variable(self.emit, "i64", True)
        self.limit = Variable(self.emit, self.spec.kind, self.uniform)
        self.frame = frame

    def begin(self) -> None:
        """As the last call left it."""
        frame = self.frame
        self.alive.set(self.whole.get(STATUS).compare("eq", 0))
        self.limit.set(self.judged.get(LIMIT))
        first = frame["first_record"]
        self.number.set(first)
        self._next(first)

    def put_back(self) -> None:
        """As the next call finds it."""
        self.judged.set(LIMIT, self.limit.get())

    def _next(self, record: Value) -> None:
        place, last = record * self.frame["gap"], self.frame["updates"]
        self.due.set(where(place.compare("lt", last), place, last))

    def fine(self, loss: Value) -> Value:
        """Whether a loss is finite and within the run's limit."""
        signed = -loss if self.spec.sign < 0 else loss
        largest = float(np.finfo(np.float32 if self.spec.kind == "f32" else np.float64).max)
        return signed.compare("le", self.limit.get()) & signed.compare("ge", -largest)

    def end(
        self, which: Value, status: Status, steps: Value, first_bad: Value | None = None
    ) -> None:
        """These runs, all of them going on, end here."""
        self.alive.set(self.alive.get() & ~which)
        changes = {STATUS: self._whole(int(status) or -1), STEPS_DONE: steps}
        if first_bad is not None:
            changes[FIRST_BAD] = first_bad
        for place, value in changes.items():
            self.whole.set(place, where(which, value.to("i32"), self.whole.get(place)))

    def _whole(self, number: int) -> Value:
        return self.emit.number(number, "i32")

    def record_if_due(self, done: Value) -> None:
        """The record after `done` updates, if there is one."""
        with when(self.emit, done.compare("eq", self.due.get())):
            record = self.number.get()
            self._record(record, done)
            self.number.set(record + 1)
            self._next(record + 1)

    def _record(self, record: Value, done: Value) -> None:
        spec, emit, kernel, frame = self.spec, self.emit, self.kernel, self.frame
        first = record.compare("eq", 0)
        wanted = frame["every_loss"].compare("ne", 0) | first
        wanted = wanted | record.compare("eq", frame["records"] - 1)
        loss = Variable(emit, spec.kind, self.uniform)
        loss.set(emit.number(nan, spec.kind))
        with when(emit, wanted):
            loss.set(kernel.passes.batch_loss if spec.full else kernel.passes.evaluate(""))
            with when(emit, first):
                self._set_limit(loss.get())
            self._judge_loss(loss.get(), first, done)
            self._write("loss", loss.get(), record, self.alive.get() | first)
        validation = loss
        if spec.validation:
            validation = Variable(emit, spec.kind, self.uniform)
            validation.set(kernel.passes.evaluate("validation_"))
            self._write("validation_loss", validation.get(), record, self.alive.get())
        if spec.keeps_path:
            self._write_path(record, self.alive.get() | first)
        if spec.judges:
            self._judge_course(loss.get(), validation.get(), first, done)
        progress = at(emit, frame.address("progress"), "i64", kernel.tile)
        emit.builder.fence("release")  # whoever looks on and reads this finds the record written
        emit.store(done, progress, True)

    def _set_limit(self, loss: Value) -> None:
        """Divergence × max(1, |loss|), rounded down, and at most the largest number."""
        kind = self.spec.kind
        largest = float(np.finfo(np.float32 if kind == "f32" else np.float64).max)
        size = vm.absolute(loss)
        size = where(size.compare("lt", inf), size, self.emit.number(0.0, kind)).to("f64")
        size = where(size.compare("gt", 1.0), size, self.emit.number(1.0, "f64"))
        exact = self.emit.wrap((size * self.frame.number("divergence")).ir)
        limit = exact.to(kind)
        if kind == "f32":
            below = (limit.bits() - 1).bits()  # of positive numbers, the next one down
            limit = where(limit.to("f64").compare("gt", exact), below, limit)
        self.limit.set(where(limit.compare("le", largest), limit, self.emit.number(largest, kind)))

    def _judge_loss(self, loss: Value, first: Value, done: Value) -> None:
        bad = self.alive.get() & ~self.fine(loss)
        with when(self.emit, any_lane(bad)):
            before = where(first, done, done - 1)
            self.end(bad, Status.diverged, before, done)
            with when(self.emit, ~first):
                self.kernel.restore(bad)

    def _judge_course(self, loss: Value, validation: Value, first: Value, done: Value) -> None:
        """Tolerance and patience; an infinite patience and a negative tolerance never end a run."""
        emit, spec, frame = self.emit, self.spec, self.frame
        with when(emit, ~first):
            before = self.judged.get(PREVIOUS)
            bound = vm.absolute(before) * frame.number("tolerance").to(spec.kind)
            met = vm.absolute(loss - before).compare("le", bound) & self.alive.get()
            met = met & (frame.number("tolerance").compare("ge", 0.0))
            with when(emit, any_lane(met)):
                self.end(met, Status.converged, done)
        self.judged.set(PREVIOUS, loss)
        value = -validation if spec.sign < 0 else validation
        better = value.compare("lt", self.judged.get(BEST))
        self.judged.set(BEST, where(better, value, self.judged.get(BEST)))
        since = where(better, self._whole(0), self.whole.get(SINCE_BEST) + 1)
        self.whole.set(SINCE_BEST, since)
        tired = since.to("i64").compare("ge", frame["patience"]) & self.alive.get()
        with when(emit, any_lane(tired)):
            self.end(tired, Status.stopped, done)

    def _write(self, name: str, value: Value, place: Value, going: Value) -> None:
        """A number a run, at a place of (tiles, places, runs); NaN where the run does not go on."""
        emit, frame = self.emit, self.frame
        places = frame["updates"] if name in ("batch_loss", "gradient_norm") else frame["records"]
        offset = self.kernel.tile * places + place
        target = at(emit, frame.address(name), self.spec.kind, offset, self.spec.width)
        emit.store(where(going, value, emit.number(nan, self.spec.kind)), target, self.uniform)

    def write_update(self, name: str, value: Value, done: Value) -> None:
        """A number a run for the update after `done` others."""
        self._write(name, value, done, self.alive.get())

    def _write_path(self, record: Value, going: Value) -> None:
        emit, kernel, spec = self.emit, self.kernel, self.spec
        count = kernel.parameter_count
        offset = (kernel.tile * self.frame["records"] + record) * count
        base = at(emit, self.frame.address("path"), spec.kind, offset, spec.width)
        path = Bank(emit, spec.kind, self.uniform, count, base)
        for place in kernel.passes.places(count):
            path.set(place, where(going, kernel.parameters.get(place), emit.number(nan, spec.kind)))

    def judge_update(self, loss: Value, lost: Sequence[Value], done: Value) -> None:
        """The batch's loss and the new parameters of the update after `done` others.

        Args:
            lost: each 0, or NaN where a parameter is not finite.
        """
        signed = -loss if self.spec.sign < 0 else loss
        for number in (loss - loss, *lost):
            signed = signed + number
        bad = self.alive.get() & ~signed.compare("le", self.limit.get())
        with when(self.emit, any_lane(bad)):
            self.end(bad, Status.diverged, done, done + 1)
            self.kernel.restore(bad)
