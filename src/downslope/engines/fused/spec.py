"""What a compiled program is made for: everything that its instructions depend on."""

from __future__ import annotations

from dataclasses import dataclass

from downslope.engines.fused.trace import Traced


@dataclass(frozen=True)
class Tensors:
    """Named tensors one after another, as the program has them: all parameters, say.

    Attributes:
        shapes: one a tensor.
        kinds: its kind of number.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class HyperSlot:
    """A hyperparameter, as the update rule takes it.

    Attributes:
        name: torch's.
        numbers: how many numbers a value has; 0 for a plain number.
        uniform: all runs have the same value.
        moving: a schedule gives it a value a step.
        absent: zero in all runs, and left out of the formula.
    """

    name: str
    numbers: int
    uniform: bool
    moving: bool
    absent: bool


@dataclass(frozen=True)
class Spec:
    """The facts that a program is compiled for.

    Attributes:
        kind: of all arithmetic on parameters, "f32" or "f64".
        across: what lies across a vector: "runs", or "samples" of a single run.
        lanes: how many numbers a vector has.
        orders: how many orders of samples the runs of a tile have between them; 0: as stored.
        block: samples worked on together.
        parameters, constants, data: tensors a run, a run (not descended), a sample.
        cells: for each parameter, the number of the hyperparameters' cell it belongs to.
        cell_state, element_state: numbers of the optimizer's state for a cell, and a parameter.
        full: every update sees all rows as stored, so its loss is the loss at that record too.
        deep, deep_evaluation: sums over an update's rows, or over all, are gathered in parts,
            because there are many.
        ragged: some pass over rows leaves fewer than a block.
        mean: the loss of a batch is the mean of its samples' losses, not their sum.
        registers: parameters are few enough to be variables of the program, not memory.
        single: an update sees one sample, or there is no data; nothing is to be summed.
        sign: -1 where the loss is maximised.
        judges: there is a tolerance or a patience.
    """

    kind: str
    across: str
    lanes: int
    orders: int
    block: int
    parameters: Tensors
    constants: Tensors
    data: Tensors
    cells: tuple[int, ...]
    hyper: tuple[HyperSlot, ...]
    cell_state: int
    element_state: int
    full: bool
    ragged: bool
    mean: bool
    deep: bool
    deep_evaluation: bool
    registers: bool
    single: bool
    sign: float
    validation: bool
    clips: bool
    keeps_norm: bool
    keeps_batch_loss: bool
    keeps_path: bool
    judges: bool

    @property
    def width(self) -> int:
        """Runs in a tile."""
        return self.lanes if self.across == "runs" else 1


@dataclass(frozen=True, eq=False)
class Graphs:
    """The traced functions of a program.

    Attributes:
        block, single: gradients and loss, summed over `Spec.block` samples and over one.
        evaluated: the loss alone of one sample, in evaluation mode.
        rule: the optimizer's update of a single number.
    """

    block: Traced
    single: Traced
    evaluated: Traced
    rule: Traced

    @property
    def text(self) -> str:
        """All of them, the same for the same program in every process."""
        parts = (
            self.block,
            self.single,
            self.evaluated,
            self.rule,
        )
        return "\n--\n".join(part.text for part in parts)
