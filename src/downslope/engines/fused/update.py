"""The update of a tile's parameters: clipping, and the optimizer's rule, interpreted.

What depends on hyperparameters alone is computed once a tile; what depends on the step, too, once
an update; the rest for every parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import TYPE_CHECKING, Any

from torch.fx import Node

from downslope.engines.fused import vector_math as vm
from downslope.engines.fused.blocks import Variable, at, loop
from downslope.engines.fused.calls import filled
from downslope.engines.fused.lower import Interpreter
from downslope.engines.fused.spec import HyperSlot
from downslope.engines.fused.values import Array, Value, where

if TYPE_CHECKING:
    from downslope.engines.fused.kernel import Kernel

TOGETHER = 4
"""Parameters updated together in a loop over many."""

_CHAINS = 4
"""Sums over parameters run in so many chains, so that one need not wait for the other."""


class Update:
    """Writes the update, one cell of hyperparameters after another."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.spec, self.emit = kernel, kernel.spec, kernel.emit
        self.frame, self.graph = kernel.frame, kernel.graphs.rule
        self.cells = max(self.spec.cells, default=-1) + 1
        self.ranges = self._ranges()
        self.fixed = [self._fixed(cell) for cell in range(self.cells)]

    def _ranges(self) -> list[list[range]]:
        """The places of each cell's parameters in the bank."""
        ranges: list[list[range]] = [[] for _ in range(self.cells)]
        start = 0
        for cell, shape in zip(self.spec.cells, self.spec.parameters.shapes, strict=True):
            ranges[cell].append(range(start, start + prod(shape)))
            start += prod(shape)
        return ranges

    # -- inputs of the rule: parameter, gradient, states, hyperparameters, step -------------

    def _fixed(self, cell: int) -> dict[Node, Any]:
        """What depends on fixed hyperparameters alone."""
        inputs: list[Array | None] = [None] * (2 + self.spec.element_state + self.spec.cell_state)
        inputs += self._hyper(cell, moving=False, step=None)
        interpreter = Interpreter(self.graph, self.emit, [*inputs, None])
        interpreter.advance()
        return interpreter.known

    def _hyper(self, cell: int, moving: bool, step: Value | None) -> list[Array | None]:
        """The hyperparameters of a cell, (1, 1) each; None for those not asked for."""
        made: list[Array | None] = []
        places = {"hyper": 0, "shared_hyper": 0, "moving": 0, "shared_moving": 0}
        counts = {n: _count(self.spec.hyper, n) * self.cells for n in places}
        for slot in self.spec.hyper:
            if slot.absent:
                continue
            name = _array_of(slot)
            for _ in range(max(slot.numbers, 1)):
                place = places[name] * self.cells + cell
                places[name] += 1
                if slot.moving != moving:
                    made.append(None)
                    continue
                offset = self.emit.number(place, "i64")
                if not slot.uniform:
                    offset = self.kernel.tile * counts[name] + place
                if step is not None:
                    tiles = self.emit.number(1, "i64") if slot.uniform else self.frame["tiles"]
                    offset = step * tiles * counts[name] + offset
                width = 1 if slot.uniform else self.spec.width
                where_ = at(self.emit, self.frame.address(name), "f64", offset, width)
                uniform = slot.uniform or self.kernel.uniform
                made.append(filled((1, 1), [self.emit.load(where_, "f64", uniform)]))
        return made

    # -- the update ------------------------------------------------------------------

    def write(self, done: Value) -> None:
        """The update after `done` others."""
        kernel, spec, emit = self.kernel, self.spec, self.emit
        scale = self._scale(done)
        if spec.keeps_batch_loss:
            kernel.verdicts.write_update("batch_loss", kernel.passes.batch_loss, done)
        few = kernel.parameter_count < TOGETHER
        self.chains = [
            Variable(emit, spec.kind, kernel.uniform) for _ in range(0 if few else _CHAINS)
        ]
        for variable in self.chains:
            variable.set(emit.number(0.0, spec.kind))
        self.lost: list[Value] = []
        for cell in range(self.cells):
            self._cell(cell, done, scale)
        lost = self.lost + [variable.get() for variable in self.chains]
        kernel.verdicts.judge_update(kernel.passes.batch_loss, lost, done)

    def _scale(self, done: Value) -> Value | None:
        """What the summed gradient is multiplied by: to a mean, and to the longest allowed."""
        kernel, spec, emit = self.kernel, self.spec, self.emit
        scale = None
        if spec.mean and spec.data.shapes and not spec.single:
            scale = emit.number(1.0, spec.kind) / kernel.passes.count
        if not spec.clips and not spec.keeps_norm:
            return scale
        chains = [Variable(emit, spec.kind, kernel.uniform) for _ in range(_CHAINS)]
        for variable in chains:
            variable.set(emit.number(0.0, spec.kind))
        for places in self._together(range(kernel.parameter_count)):
            for chain, place in enumerate(places):
                g = kernel.passes.gradient(place)
                g = g if scale is None else emit.wrap((g * scale).ir)
                chain_ = chains[chain % _CHAINS]
                chain_.set(chain_.get() + g * g)
        total = chains[0].get()
        for variable in chains[1:]:
            total = total + variable.get()
        norm = vm.sqrt(total)
        if spec.keeps_norm:
            kernel.verdicts.write_update("gradient_norm", norm, done)
        if not spec.clips:
            return scale
        offset = kernel.tile
        bound = emit.load(
            at(emit, self.frame.address("clip"), spec.kind, offset, spec.width),
            spec.kind,
            kernel.uniform,
        )
        one = emit.number(1.0, spec.kind)
        short = bound / (norm + 1e-6)
        # As torch's clamp: a norm that is no number stays so.
        short = where(short.compare("gt", 1.0), one, short)
        short = where(bound.compare("eq", inf), one, short)
        return short if scale is None else emit.wrap((short * scale).ir)

    def _together(self, places: range) -> Any:
        """Places a few at a time: in a loop of the program where the bank is in memory."""
        if self.spec.registers:
            yield list(places)
            return
        emit = self.emit
        rest = len(places) % TOGETHER
        first, last = (emit.number(p, "i64") for p in (places.start, places.stop - rest))
        if len(places) >= TOGETHER:
            with loop(emit, first, last, TOGETHER) as place:
                yield [place + k for k in range(TOGETHER)]
        if rest:
            yield list(places[-rest:])

    def _cell(self, cell: int, done: Value, scale: Value | None) -> None:
        spec, emit, kernel = self.spec, self.emit, self.kernel
        first = 2 + spec.element_state
        step = filled((), [emit.wrap((done + 1).to("f64").ir)])
        cell_state = [
            filled((1, 1), [kernel.cell_state.get(cell * spec.cell_state + place)])
            for place in range(spec.cell_state)
        ]
        hyper = self._hyper(cell, moving=True, step=done)
        inputs = [*[None] * first, *cell_state, *hyper, step]
        interpreter = Interpreter(self.graph, emit, inputs)
        interpreter.known.update(self.fixed[cell])
        interpreter.advance()
        known = interpreter.known
        alive = kernel.alive.get()
        for places_of in self.ranges[cell]:
            for places in self._together(places_of):
                self._elements(known, places, scale, alive)
        if spec.cell_state:
            outputs = next(n for n in self.graph.graph.nodes if n.op == "output").args[0]
            for place, node in enumerate(outputs[1 + spec.element_state :]):
                value = known[node].item()
                kernel.cell_state.set(cell * spec.cell_state + place, value)

    def _elements(
        self, known: dict[Node, Any], places: list[Any], scale: Value | None, alive: Value
    ) -> None:
        kernel, spec, emit = self.kernel, self.spec, self.emit
        old = [kernel.parameters.get(place) for place in places]
        gradients = [kernel.passes.gradient(place) for place in places]
        if scale is not None:
            gradients = [g * scale for g in gradients]
        states = [[bank.get(place) for place in places] for bank in kernel.state]
        rows = [filled((1, len(places)), row) for row in (old, gradients, *states)]
        interpreter = Interpreter(self.graph, emit, rows)
        interpreter.known.update(known)
        outputs = interpreter.outputs(1 + spec.element_state)
        new, *after = outputs
        for k, place in enumerate(places):
            value = where(alive, new.flat[k], old[k])
            kernel.before.set(place, old[k])
            kernel.parameters.set(place, value)
            # 0, or NaN where it is not finite. Units that multiply have the most to do in an update
            # of few numbers.
            if self.chains:
                chain = self.chains[k % _CHAINS]
                chain.set(chain.get() + value * 0.0)
            else:
                self.lost.append(value - value)
            for bank, row in zip(kernel.state, after, strict=True):
                bank.set(place, row.flat[k])


def _array_of(slot: HyperSlot) -> str:
    return ("shared_" if slot.uniform else "") + ("moving" if slot.moving else "hyper")


def _count(hyper: Sequence[HyperSlot], name: str) -> int:
    """Numbers a cell in one of the frame's arrays of hyperparameters."""
    return sum(max(s.numbers, 1) for s in hyper if not s.absent and _array_of(s) == name)
