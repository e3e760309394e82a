"""How a run's parameters lie in one row of numbers, and its hyperparameters beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from downslope.engines.work import Work
from downslope.errors import OptimizerError, listed, nearest
from downslope.groups import Group, plain
from downslope.optimizers import RULES, hyperparameters
from downslope.schedules import sequences


@dataclass(frozen=True)
class Layout:
    """Parameters by name, one after another in a row of `size` numbers."""

    shapes: Mapping[str, torch.Size]

    @property
    def size(self) -> int:
        """How many numbers a run has."""
        return sum(prod(shape) for shape in self.shapes.values())

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """(runs, size) as {name: (runs, *shape)}, views where they can be."""
        sizes = [prod(shape) for shape in self.shapes.values()]
        ends = list(accumulate(sizes))
        return {
            name: flat[:, end - size : end].reshape(flat.shape[0], *shape)
            for (name, shape), size, end in zip(self.shapes.items(), sizes, ends, strict=True)
        }

    def join(self, named: Mapping[str, Tensor]) -> Tensor:
        """{name: (runs, *shape)} as (runs, size)."""
        return torch.cat([_rows(named[name]) for name in self.shapes], dim=1)


@dataclass(frozen=True)
class Cells:
    """Parameters that share every hyperparameter: all of them, unless values go by pattern.

    Attributes:
        of: parameter name to the number of its cell.
        patterns: for each cell, the pattern of each patterned hyperparameter.
    """

    of: Mapping[str, int]
    patterns: Sequence[Mapping[str, str]]

    def settings(self, group: Group, run: int, cell: int) -> dict[str, Any]:
        """A run's hyperparameters in one cell, as torch takes them."""
        by_pattern = {
            name: plain(group.patterned[name][pattern][run])
            for name, pattern in self.patterns[cell].items()
        }
        return group.settings(run) | by_pattern


def cells(group: Group, names: Sequence[str]) -> Cells:
    """Which pattern of each patterned hyperparameter fits each parameter: the first that does.

    Raises:
        OptimizerError: for a parameter that no pattern fits, or a pattern that fits none.
    """
    known: dict[tuple[str, ...], int] = {}
    of: dict[str, int] = {}
    for name in names:
        key = []
        for hyperparameter, by_pattern in group.patterned.items():
            fitting = next((p for p in by_pattern if fnmatchcase(name, p)), None)
            if fitting is None:
                raise OptimizerError(
                    f"{hyperparameter} has no value for parameter {name!r}: its patterns are "
                    f"{listed(by_pattern)}; add one, such as '*', that fits the rest"
                )
            key.append(fitting)
        of[name] = known.setdefault(tuple(key), len(known))
    for hyperparameter, by_pattern in group.patterned.items():
        for pattern in by_pattern:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise OptimizerError(
                    f"{hyperparameter}'s pattern {pattern!r} fits no parameter"
                    f"{nearest(pattern, names)}; there are {listed(names)}"
                )
    return Cells(of, [dict(zip(group.patterned, key, strict=True)) for key in known])


def make_optimizer(work: Work, run: int, parameters: Mapping[str, Tensor]) -> optim.Optimizer:
    """The optimizer of one run: a plain list of parameters, unless values go by pattern."""
    group = work.group
    parts = cells(group, list(parameters))
    known, settings = hyperparameters(group.optimizer), parts.settings(group, run, 0)
    arguments = {n: v for n, v in settings.items() if known.open or n in known.defaults}
    make: Callable[..., optim.Optimizer] = group.optimizer
    if not group.patterned:
        return make(list(parameters.values()), **arguments)
    members = [
        {
            "params": [p for name, p in parameters.items() if parts.of[name] == cell],
            **{name: parts.settings(group, run, cell)[name] for name in group.patterned},
        }
        for cell in range(len(parts.patterns))
    ]
    return make(members, **arguments)


def needs_loss(work: Work) -> bool:
    """Whether the scheduler looks at the loss, so that no sequence can be known before."""
    schedule = work.options.schedule
    if schedule is None:
        return False
    stand_ins = {name: torch.zeros(1, 1, requires_grad=True) for name in work.problem.names}
    made = schedule.make(make_optimizer(work, 0, stand_ins), schedule_length(work))
    return isinstance(made, ReduceLROnPlateau)


def schedule_length(work: Work) -> int:
    """How often the scheduler is stepped."""
    schedule = work.options.schedule
    per_epoch = schedule is not None and schedule.per == "epoch"
    return -(-work.updates // (work.updates_per_epoch if per_epoch else 1))


def read_sequences(work: Work, runs: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """What the schedule makes of the hyperparameters of some runs, step by step of its own."""
    schedule = work.options.schedule
    assert schedule is not None
    parts = cells(work.group, work.problem.names)
    settings = [
        [parts.settings(work.group, run, cell) for cell in range(len(parts.patterns))]
        for run in runs
    ]
    return sequences(schedule, work.group.optimizer, settings, schedule_length(work))


def try_schedule(work: Work) -> None:
    """Go through the schedule of one run, so that what is wrong is told before anything runs."""
    if schedule_length(work) and not needs_loss(work):
        read_sequences(work, [0])


class Hyper:
    """The hyperparameters of runs as float64 tensors, at each update: (runs, 1) or (runs, size).

    What is zero in every run, and may be left out by the optimizer's rule, is None.
    """

    def __init__(self, work: Work, layout: Layout) -> None:
        group, device = work.group, work.problem.device
        self.rule = RULES[group.optimizer]
        self.device = device
        self.cells = cells(group, list(layout.shapes))
        self.cell_of = np.concatenate(
            [np.full(prod(s), self.cells.of[n]) for n, s in layout.shapes.items()]
        )
        self.columns: dict[str, NDArray[Any]] = {
            name: self._by_cell(group, name) for name in (*group.numbers, *group.patterned)
        }
        self.moving: dict[str, NDArray[np.float64]] = {}
        if work.options.schedule is not None:
            self.moving = self._moving(work)

    @cached_property
    def constant(self) -> dict[str, Any]:
        """Those that no schedule moves."""
        return {
            name: self._tensors(name, column)
            for name, column in self.columns.items()
            if name not in self.moving
        }

    def at(self, update: int) -> dict[str, Any]:
        """What holds at update `update` (from 1)."""
        moved = {n: self._tensors(n, a[update - 1]) for n, a in self.moving.items()}
        return {**self.constant, **moved}

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Forget the other runs."""
        constant = self.constant
        self.columns = {name: column[rows] for name, column in self.columns.items()}
        self.moving = {name: a[:, rows] for name, a in self.moving.items()}
        chosen = torch.from_numpy(np.flatnonzero(rows)).to(self.device)

        def kept(value: Any) -> Any:
            if value is None:
                return None
            return tuple(map(kept, value)) if isinstance(value, tuple) else value[chosen]

        self.constant = {name: kept(value) for name, value in constant.items()}

    def _by_cell(self, group: Group, name: str) -> NDArray[Any]:
        """(runs, cells) or (runs, cells, m)."""
        if name in group.patterned:
            by_pattern = group.patterned[name]
            return np.stack([by_pattern[p[name]] for p in self.cells.patterns], axis=1)
        return np.repeat(group.numbers[name][:, None], len(self.cells.patterns), axis=1)

    def _moving(self, work: Work) -> dict[str, NDArray[np.float64]]:
        """(updates, runs, cells[, m]) of each hyperparameter that the schedule moves."""
        schedule = work.options.schedule
        assert schedule is not None
        repeats = work.updates_per_epoch if schedule.per == "epoch" else 1
        read = read_sequences(work, range(len(work)))
        return {n: np.repeat(a, repeats, axis=0)[: work.updates] for n, a in read.items()}

    def absent(self, name: str) -> bool:
        """Whether it is zero in every run, and may be left out."""
        left_out = name in self.rule.left_out and name not in self.moving
        return left_out and not self.columns[name].any()

    def _tensors(self, name: str, column: NDArray[Any]) -> Any:
        if self.absent(name):
            return None
        if column.ndim == 3:
            return tuple(self._tensor(column[..., i]) for i in range(column.shape[2]))
        return self._tensor(column)

    def _tensor(self, by_cell: NDArray[Any]) -> Tensor:
        values = by_cell if by_cell.shape[1] == 1 else by_cell[:, self.cell_of]
        return torch.tensor(values, dtype=torch.float64, device=self.device)


def _rows(tensor: Tensor) -> Tensor:
    """(runs, *shape) as (runs, elements), a single number too."""
    return tensor.reshape(tensor.shape[0], -1)
