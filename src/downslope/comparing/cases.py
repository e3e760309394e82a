"""The problems of a comparison, each with its length, batches and what a step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from downslope import problems as collection
from downslope.comparing.asking import whole
from downslope.errors import InputError, listed, nearest
from downslope.problem import Problem
from downslope.problem_rows import order_is_drawn, with_validation
from downslope.sampling import ORDERS, batches

RECORDS, RECORDS_OF_FULL = 100, 1000
"""About how many records a run has at most, where a record costs more than an update and where it
does not: steps to a target are known to that part of the length."""


@dataclass(frozen=True, eq=False)
class Case:
    """One problem as it is compared.

    Attributes:
        name: what the comparison calls it.
        length: ``{"steps": …}`` or ``{"epochs": …}``.
        batch_size: a number or "full"; None to leave a DataLoader its own.
        order: how samples are drawn; None to leave it to the problem.
        updates, every: updates of a run, and between two records.
        varies: whether the seed changes anything; else one seed tells all.
    """

    name: str
    problem: Problem = field(repr=False)
    length: Mapping[str, int]
    batch_size: int | str | None
    order: str | None
    updates: int
    every: int
    varies: bool

    @property
    def metric(self) -> str:
        """What is compared."""
        return "training loss" if self.problem.validation is None else "validation loss"

    @property
    def epsilon(self) -> float:
        """The rounding of its dtype at 1."""
        return float(torch.finfo(self.problem.dtype).eps)

    @property
    def record_at(self) -> NDArray[np.int64]:
        """The updates after which there is a record, (records,): 0 first, the last last."""
        at = np.arange(0, self.updates + 1, self.every)
        return at if at[-1] == self.updates else np.append(at, self.updates)

    def evaluations(self, steps: int) -> int | None:
        """Gradients of single samples that so many updates take; one an update without data.

        None for a DataLoader, whose batches are its own.
        """
        if self.problem.train is None:
            return steps
        if self.batch_size is None:
            return None
        rows = len(self.problem.train)
        if self.batch_size == "full" or int(self.batch_size) >= rows:
            return steps * rows
        sizes = [s.stop - s.start for s in _batches(self.problem, int(self.batch_size))]
        epochs, rest = divmod(steps, len(sizes))
        return epochs * sum(sizes) + sum(sizes[:rest])


def cases_of(
    problems: Any, *, epochs: int | None, steps: int | None, batch_size: Any, order: str | None,
    validation: Any,
) -> tuple[Case, ...]:  # fmt: skip
    """Cases out of problems and names of the collection.

    Raises:
        InputError: for anything else, for two of the same name, or where no length is known.
    """
    if epochs is not None and steps is not None:
        raise InputError("give epochs= or steps=, one of them: how long each run is")
    if isinstance(problems, Mapping):
        given = {str(name): one for name, one in problems.items()}
        pairs = list(given.items())
    else:
        listed = list(problems) if isinstance(problems, list | tuple) else [problems]
        pairs = [(_name(one, place, len(listed)), one) for place, one in enumerate(listed, 1)]
    if not pairs:
        raise InputError("problems is empty; give at least one")
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two problems are called {name!r}: give a dict of name to problem")
    cases = tuple(
        _case(name, one, epochs, steps, batch_size, order, validation) for name, one in pairs
    )
    if validation is not None and all(case.problem.train is None for case in cases):
        raise InputError("validation= needs rows, and none of the problems has data")
    return cases


def _name(given: Any, place: int, count: int) -> str:
    if isinstance(given, str):
        return given
    return "problem" if count == 1 else f"problem {place}"


def _case(
    name: str, given: Any, epochs: int | None, steps: int | None, batch_size: Any,
    order: str | None, validation: Any,
) -> Case:  # fmt: skip
    entry = None
    if isinstance(given, str):
        entry = collection.entry(given)
        given = collection.make(given, drawn=True)
    if not isinstance(given, Problem):
        raise InputError(
            "problems are downslope.Problem, or names of downslope.problems, got "
            f"{type(given).__name__}"
        )
    if epochs is None and steps is None:
        if entry is None:
            raise InputError("give epochs= or steps=: how long each run is")
        steps = entry.steps
    if validation is not None and given.train is not None:
        given = with_validation(given, validation)
    if order is not None and order not in ORDERS:
        hint = nearest(order, ORDERS) if isinstance(order, str) else ""
        raise InputError(f"order must be one of {listed(ORDERS)}, got {order!r}{hint}")
    length = {"epochs": epochs} if epochs is not None else {"steps": steps}
    what, value = next(iter(length.items()))
    count = whole(what, value, 1)
    size = _batch_size(given, batch_size, None if entry is None else entry.batch_size)
    updates = count
    if epochs is not None:
        updates = count * _updates_per_epoch(given, size)
    return Case(
        name=name,
        problem=given,
        length={what: count},
        batch_size=size,
        order=order,
        updates=updates,
        every=max(1, updates // (RECORDS_OF_FULL if size == "full" else RECORDS)),
        varies=given.draws_start or given.random or order_is_drawn(given, size, order),
    )


def _batch_size(problem: Problem, asked: Any, usual: int | None) -> int | str | None:
    if problem.loader is not None:
        if asked is not None:
            raise InputError("the DataLoader draws its batches in a way of its own: leave "
                             "batch_size= out")  # fmt: skip
        return None
    if problem.train is None:
        return "full"
    size = next((s for s in (asked, problem.batch_size, usual) if s is not None), "full")
    if size == "full":
        return "full"
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"batch_size must be 'full' or a whole number of at least 1, got {size!r}")
    return int(size)


def _updates_per_epoch(problem: Problem, size: int | str | None) -> int:
    if problem.loader is not None:
        return problem.loader_batches
    if problem.train is None or size == "full" or size is None or int(size) >= len(problem.train):
        return 1
    return len(_batches(problem, int(size)))


def _batches(problem: Problem, size: int) -> list[slice]:
    assert problem.train is not None
    return batches(len(problem.train), size, problem.drop_last)
