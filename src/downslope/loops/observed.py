"""What was seen of a loop, as plain facts: `observers` collect them, `faults` judges them."""

from __future__ import annotations

from dataclasses import dataclass

from downslope.loops.graph import Broadcast


@dataclass(frozen=True)
class Modes:
    """Steps made while the model was in evaluation mode.

    Attributes:
        names: its modules that behave differently there.
        steps: how many; first: the first of them.
    """

    names: tuple[str, ...]
    steps: int
    first: int


@dataclass(frozen=True)
class Observed:
    """The facts about a loop.

    Attributes:
        steps: updates that the optimizer made; looked: those whose gradients were looked at.
        clearing_looked: steps, after the first, for which it was seen what backward() met;
            uncleared: those at which it only met the gradient of the step before.
        disjoint: no parameter of the optimizer belongs to the model.
        not_held: parameters that got a gradient, never changed, and are not the optimizer's.
        never: parameters without any gradient; how each lacked it: "None" or "zero".
        any_gradient: whether one of the model's parameters had a gradient at any step.
        losses: how many losses were given as tensors and looked at; without_graph, missing: of
            those, how many had no graph, or one that ends at none of the model's parameters.
        broadcast: a comparison that was broadcast, or None.
        modes: None where no step was made in evaluation mode, or nothing depends on it.
        scheduler_ahead: steps that a scheduler made before the optimizer's first.
    """

    steps: int
    looked: int
    clearing_looked: int
    uncleared: int
    disjoint: bool
    not_held: tuple[str, ...]
    never: tuple[tuple[str, str], ...]
    any_gradient: bool
    losses: int
    without_graph: int
    missing: int
    broadcast: Broadcast | None
    modes: Modes | None
    scheduler_ahead: int
