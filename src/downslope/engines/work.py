"""What every engine is asked and answers: `Work` in, `Outcome` out, and how records are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.groups import Group
from downslope.objective import MODEL_PREFIX, Objective
from downslope.problem import Problem
from downslope.schedules import Schedule


class Status(IntEnum):
    """What happened to a run, mechanically."""

    finished = 0
    converged = 1
    diverged = 2
    stopped = 3


Start = Mapping[str, Tensor]
Handwritten = Callable[..., Mapping[str, Tensor]]
Parameters = Callable[[NDArray[np.int64], NDArray[np.int64]], Mapping[str, Tensor]]
Tick = Callable[[int, int], None]
"""Called by engines with (run-updates done since the last call, runs diverged since)."""


@dataclass(frozen=True, eq=False)
class Options:
    """What holds for all runs of a call of `descend`.

    Attributes:
        updates, epochs: the length of the descents; one of them is given.
        every: "epoch", "step" or a number of updates: when to record.
        keep: of "loss", "batch_loss", "gradient_norm" and "parameters".
        tolerance, patience, divergence, schedule, gradient: as `descend` describes them.
        validation: the share of rows kept apart, where it was given so; the problem has them.
    """

    updates: int | None
    epochs: int | None
    every: str | int = "epoch"
    keep: frozenset[str] = frozenset({"loss"})
    schedule: Schedule | None = None
    tolerance: float | None = None
    patience: int | None = None
    divergence: float | None = 1e8
    gradient: Handwritten | None = field(default=None, repr=False)
    validation: float | None = None


@dataclass(frozen=True, eq=False)
class Glimpse:
    r"""What is recorded of a work's runs while they are carried out.

    Attributes:
        numbers: (runs,), the runs' numbers among all.
        last: (runs,), the loss at each one's last record; NaN if there is none.
        diverged: (runs,), which have diverged so far.
        shown: (lines,), the places here of those whose records somebody wants to see.
        steps: (records,), updates done at the records so far; of many records, some.
        loss: (lines, records), NaN where a run has not come there, or has ended before.
        parameters: name to (lines, \*shape), at each one's last record; None if not kept.
        updates: how many a run has that is never stopped; sign: -1 where the loss is maximised.
        done: whether all of these runs have ended.
    """

    numbers: NDArray[np.int64]
    last: NDArray[np.floating[Any]]
    diverged: NDArray[np.bool_]
    shown: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss: NDArray[np.floating[Any]]
    parameters: Mapping[str, Tensor] | None
    updates: int
    sign: float
    done: bool


@dataclass(frozen=True)
class Onlooker:
    """Somebody who looks on while runs are carried out; engines never wait for anybody else.

    Attributes:
        wanted: the numbers of the runs whose records are to be shown.
        due: whether it is time for another look; cheap, so that it can be asked at every record.
        look: called when it is, and when a work is done.
    """

    wanted: frozenset[int]
    due: Callable[[], bool]
    look: Callable[[Glimpse], None]

    def places(self, work: Work) -> NDArray[np.int64]:
        """Which of a work's runs are wanted."""
        return np.flatnonzero(np.isin(work.group.index, list(self.wanted)))


MOST_SHOWN = 2_000
"""Records in a glimpse, at most."""


def some_of(records: int) -> NDArray[np.int64]:
    """Which of so many records a glimpse holds: all, or so many evenly, the last among them."""
    if records <= MOST_SHOWN:
        return np.arange(records)
    return np.linspace(0, records - 1, MOST_SHOWN).round().astype(np.int64)


@dataclass(frozen=True, eq=False)
class Work:
    """Runs of one group for an engine to carry out, together or one after another."""

    problem: Problem
    group: Group
    options: Options
    starts: tuple[Start | None, ...]
    traced: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What engines have traced, shared by all work of one plan."""
    number: int = 0
    """The group's place in the plan."""
    onlooker: Onlooker | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.group)

    def part(self, rows: slice | NDArray[np.int64]) -> Work:
        """Some of the runs."""
        return replace(self, group=self.group.part(rows))

    @cached_property
    def rows(self) -> int:
        """How many training rows there are; 0 for a function without data."""
        return 0 if self.problem.train is None else len(self.problem.train)

    @cached_property
    def full(self) -> bool:
        """Whether every update sees all rows, as they are stored."""
        size = self.group.batch_size
        every_row = size is None or (size >= self.rows and self.group.order != "replacement")
        return self.problem.loader is None and every_row

    @cached_property
    def updates_per_epoch(self) -> int:
        """How many updates make an epoch."""
        if self.problem.loader is not None:
            return self.problem.loader_batches
        if self.full:
            return 1
        size = self.group.batch_size or 1
        return self.rows // size if self.problem.drop_last else -(-self.rows // size)

    @cached_property
    def updates(self) -> int:
        """How many updates a run has that is never stopped."""
        if self.options.updates is not None:
            return self.options.updates
        return (self.options.epochs or 0) * self.updates_per_epoch

    @cached_property
    def record_at(self) -> NDArray[np.int64]:
        """The update numbers after which there is a record: 0 (the start) first, the last last."""
        every = self.options.every
        gap = {"epoch": self.updates_per_epoch, "step": 1}.get(str(every), every)
        at = np.arange(0, self.updates + 1, int(gap))
        return at if at[-1] == self.updates else np.append(at, self.updates)

    @property
    def sign(self) -> float:
        """-1 where the loss is maximised."""
        return -1.0 if self.group.switches.get("maximize") else 1.0

    def objective(self, run: int) -> Objective:
        """A fresh objective at the start of run `run` of this work."""
        made = self.problem.fresh(int(self.group.seed[run]))
        start = self.starts[int(self.group.start[run])]
        if start is not None:
            with torch.no_grad():
                named = dict(made.named_parameters()) | dict(made.named_buffers())
                for name, value in start.items():
                    named[MODEL_PREFIX + name].copy_(value)
        return made


@dataclass(eq=False)
class Outcome:
    r"""What happened to the runs of a `Work`, in its order.

    Shapes: (runs,) for status, first_bad_step (-1: none) and steps_done; (runs, records) for
    loss, validation_loss and steps; (runs, updates) for batch_loss and gradient_norm;
    (runs, \*shape) for parameters and buffers; (runs, records, \*shape) for path.
    """

    status: NDArray[np.int8]
    first_bad_step: NDArray[np.int64]
    steps_done: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss: NDArray[np.floating[Any]]
    validation_loss: NDArray[np.floating[Any]] | None
    batch_loss: NDArray[np.floating[Any]] | None
    gradient_norm: NDArray[np.floating[Any]] | None
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    path: dict[str, Tensor] | None


class Recorder:
    """Keeps the records of a work's runs and judges them: diverged, converged, stopped.

    An engine tells it of losses and calls `diverge` for what it sees between records; `alive`
    says which runs go on. Used by every engine, so that a status means the same in all.
    """

    def __init__(self, work: Work) -> None:
        runs, at = len(work), work.record_at
        dtype = np.float64 if work.problem.dtype == torch.float64 else np.float32
        keep = work.options.keep
        self.work, self.options, self.sign = work, work.options, work.sign
        self.alive = np.ones(runs, dtype=bool)
        self.limit = np.full(runs, np.inf)
        self.best = np.full(runs, np.inf)
        self.since_best = np.zeros(runs, dtype=np.int64)

        def blank(columns: int) -> NDArray[Any]:
            return np.full((runs, columns), np.nan, dtype=dtype)

        self.outcome = Outcome(
            status=np.zeros(runs, dtype=np.int8),
            first_bad_step=np.full(runs, -1, dtype=np.int64),
            steps_done=np.full(runs, work.updates, dtype=np.int64),
            steps=np.full((runs, len(at)), -1, dtype=np.int64),
            loss=blank(len(at)),
            validation_loss=None if work.problem.validation is None else blank(len(at)),
            batch_loss=blank(work.updates) if "batch_loss" in keep else None,
            gradient_norm=blank(work.updates) if "gradient_norm" in keep else None,
            parameters={},
            buffers={},
            path={} if "parameters" in keep else None,
        )

    def wants_loss(self, record: int) -> bool:
        """Whether the loss over all rows is needed at this record."""
        last = len(self.work.record_at) - 1
        judged = self.options.tolerance is not None or self.options.patience is not None
        return "loss" in self.options.keep or judged or record in (0, last)

    def bad(self, loss: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the losses (runs,) say that a run has diverged."""
        return ~(np.isfinite(loss) & (self.sign * loss <= self.limit))

    def record(
        self, record: int, loss: NDArray[Any] | None, validation: NDArray[Any] | None
    ) -> NDArray[np.bool_]:
        """Take the losses (runs,) at a record; returns the runs that diverged by them."""
        out, step = self.outcome, int(self.work.record_at[record])
        diverged = np.zeros_like(self.alive)
        if loss is not None:
            if record == 0 and self.options.divergence is not None:
                size = np.where(np.isfinite(loss), np.abs(loss), 0.0)
                self.limit = self.options.divergence * np.maximum(1.0, size.astype(np.float64))
            diverged = self.alive & self.bad(loss)
            if record == 0:
                out.loss[:, 0] = loss  # shown even where it is no number: that is why it stopped
                out.steps[:, 0] = 0
            self.diverge(diverged, step)
            out.loss[self.alive, record] = loss[self.alive]
        if validation is not None and out.validation_loss is not None:
            out.validation_loss[self.alive, record] = validation[self.alive]
        out.steps[self.alive, record] = step
        self._judge(record, step)
        return diverged

    def diverge(self, which: NDArray[np.bool_], step: int) -> None:
        """These runs are bad from `step` on; their parameters are those from before it."""
        self.outcome.status[which] = Status.diverged
        self.outcome.first_bad_step[which] = step
        self.outcome.steps_done[which] = max(step - 1, 0)
        self.alive &= ~which

    def show(self, records: int, parameters: Parameters, done: bool = False) -> None:
        """Let an onlooker see what stands in the first so many records.

        Args:
            parameters: gives those of some runs at given records, by name.
        """
        onlooker = self.work.onlooker
        if onlooker is None or not (done or onlooker.due()):
            return
        out, shown, places = self.outcome, onlooker.places(self.work), some_of(records)
        last = np.maximum((out.steps[:, :records] >= 0).sum(1) - 1, 0)
        onlooker.look(
            Glimpse(
                numbers=self.work.group.index,
                last=out.loss[np.arange(len(last)), last],
                diverged=out.status == Status.diverged,
                shown=shown,
                steps=self.work.record_at[places],
                loss=out.loss[np.ix_(shown, places)],
                parameters=None if out.path is None else parameters(shown, last[shown]),
                updates=self.work.updates,
                sign=self.sign,
                done=done,
            )
        )

    def _judge(self, record: int, step: int) -> None:
        """Tolerance and patience, from the records so far."""
        out, tolerance, patience = self.outcome, self.options.tolerance, self.options.patience
        if tolerance is not None and record > 0:
            before, now = out.loss[:, record - 1], out.loss[:, record]
            with np.errstate(invalid="ignore"):
                met = self.alive & (np.abs(now - before) <= tolerance * np.abs(before))
            self._end(met, Status.converged, step)
        if patience is not None:
            judged = out.loss if out.validation_loss is None else out.validation_loss
            value = self.sign * judged[:, record].astype(np.float64)
            better = value < self.best
            self.best = np.where(better, value, self.best)
            self.since_best = np.where(better, 0, self.since_best + 1)
            self._end(self.alive & (self.since_best >= patience), Status.stopped, step)

    def _end(self, which: NDArray[np.bool_], status: Status, step: int) -> None:
        self.outcome.status[which] = status
        self.outcome.steps_done[which] = step
        self.alive &= ~which


def handwritten_call(
    gradient: Handwritten, parameters: Mapping[str, Tensor], data: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Gradients by the user's own function, called by the names of its arguments."""
    given = {**parameters, **dict(zip(("x", "y"), data, strict=False))}
    made = gradient(**given)
    if isinstance(made, Tensor) and len(parameters) == 1:
        made = {next(iter(parameters)): made}
    return {
        name: torch.as_tensor(value).to(parameters[name])
        for name, value in dict(made).items()
        if name in parameters
    }


def set_flags(modules: Sequence[nn.Module], values: Sequence[bool]) -> None:
    """Set each module's training flag."""
    for m, training in zip(modules, values, strict=True):
        # What Module.__setattr__ comes to for a bool, at a tenth of its cost.
        object.__setattr__(m, "training", training)
