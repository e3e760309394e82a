"""What the collection knows of a problem, and how functions get a start for each seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from downslope.objective import Function, Objective
from downslope.problem import Problem
from downslope.problem_checks import checked

Point = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One problem of the collection.

    Attributes:
        name, about: its short name, and what it is in a sentence.
        source: the paper, book or data set it comes from.
        make: makes the problem. A function starts at its textbook start, whatever the seed; a
            model draws a start from each seed.
        make_drawn: the same with a start drawn from each seed, for functions; else None.
        optimum: the lowest loss there is (the infimum, where `minimisers` is empty); None where
            nobody knows it.
        minimisers: where the loss is lowest: the parameters in their order, flattened, a tuple a
            place; empty where no place is known.
        bounds: (lowest, highest) of every parameter of the domain in which the optimum is the
            lowest; None where it is so everywhere, or where no optimum is known.
        steps: a sensible length, in updates.
        batch_size: a sensible batch size; None for all rows at once, and where there is no data.
    """

    name: str
    about: str
    source: str
    make: Callable[[], Problem] = field(repr=False)
    make_drawn: Callable[[], Problem] | None = field(default=None, repr=False)
    optimum: float | None = None
    minimisers: tuple[Point, ...] = ()
    bounds: tuple[float, float] | None = None
    steps: int = 300
    batch_size: int | None = None


def function_entry(
    name: str,
    function: Callable[[Tensor], Tensor],
    start: Sequence[float],
    *,
    about: str,
    source: str,
    spread: float = 0.5,
    optimum: float = 0.0,
    minimisers: tuple[Point, ...],
    bounds: tuple[float, float] | None = None,
    steps: int = 300,
) -> Entry:
    """An entry for a function of one vector, in float64.

    Args:
        spread: drawn starts lie in the box of this half-width around `start`, evenly.
    """
    centre = torch.tensor(start, dtype=torch.float64)

    def drawn() -> Objective:
        moved = centre + spread * (2 * torch.rand(len(centre), dtype=torch.float64) - 1)
        return Objective(Function(function, {"x": moved}, positional=True))

    return Entry(
        name=name,
        about=about,
        source=source,
        make=lambda: Problem.from_function(function, start=centre),
        make_drawn=lambda: checked(
            Problem(make=drawn, exact=drawn, draws_start=True, kind="function")
        ),
        optimum=optimum,
        minimisers=minimisers,
        bounds=bounds,
        steps=steps,
    )
