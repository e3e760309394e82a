"""Learning-rate schedules: torch's own scheduler classes, and the sequences read off them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import optim
from torch.optim.lr_scheduler import LRScheduler

from downslope.errors import OptimizerError

Sequences = dict[str, NDArray[np.float64]]

_BY_GROUP = (
    "lr_lambda", "max_lr", "min_lr", "base_lr", "base_momentum", "max_momentum", "swa_lr",
)  # fmt: skip


class Schedule:
    """A class of `torch.optim.lr_scheduler` with its arguments, stepped every step or epoch.

    Args:
        scheduler: the class, or a function from an optimizer to a scheduler.
        per: "step" or "epoch": when the scheduler is stepped.
        **arguments: the class's own. A Schedule among them (in a list for SequentialLR or
            ChainedScheduler) is made first, on the same optimizer. OneCycleLR's ``total_steps``
            and CosineAnnealingLR's ``T_max`` are the length of the run where not given.

    Every hyperparameter that the scheduler moves is followed, momentum and betas too.

    >>> Schedule(optim.lr_scheduler.StepLR, step_size=10)
    Schedule(StepLR, per='epoch', step_size=10)
    """

    def __init__(
        self,
        scheduler: Callable[..., Any],
        *,
        per: Literal["step", "epoch"] = "epoch",
        **arguments: Any,
    ) -> None:
        if isinstance(scheduler, LRScheduler):
            raise OptimizerError(
                f"give the class {type(scheduler).__name__}, not an instance, "
                "which is bound to another optimizer"
            )
        if not callable(scheduler):
            raise OptimizerError(f"a schedule needs a scheduler class, got {scheduler!r}")
        if per not in ("step", "epoch"):
            raise OptimizerError(f"a schedule's per must be 'step' or 'epoch', got {per!r}")
        self.scheduler = scheduler
        self.per: Literal["step", "epoch"] = per
        self.arguments = arguments

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        name = getattr(self.scheduler, "__name__", repr(self.scheduler))
        return f"Schedule({name}, per={self.per!r}{given})"

    @property
    def by_group(self) -> bool:
        """Whether an argument gives each parameter group a value of its own."""
        given = self.arguments.items()
        nested = [v for _, vs in given for v in (vs if isinstance(vs, list | tuple) else [vs])]
        return any(isinstance(v, list | tuple) for n, v in given if n in _BY_GROUP) or any(
            isinstance(v, Schedule) and v.by_group for v in nested
        )

    def make(self, optimizer: optim.Optimizer, length: int) -> Any:
        """The scheduler on this optimizer; `length` is how often it will be stepped.

        Raises:
            OptimizerError: if torch refuses the arguments.
        """
        arguments = {
            name: _made(value, optimizer, length) for name, value in self.arguments.items()
        }
        if isinstance(self.scheduler, type):
            arguments |= _lengths(self.scheduler, arguments, max(length, 1))
            if issubclass(self.scheduler, optim.lr_scheduler.ChainedScheduler):
                arguments.setdefault("optimizer", optimizer)
                return self._call(**arguments)
        return self._call(optimizer, **arguments)

    def _call(self, *given: Any, **arguments: Any) -> Any:
        try:
            return self.scheduler(*given, **arguments)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = " ".join(str(error).split())
            raise OptimizerError(f"{self!r} cannot be made: {said}") from error


def _made(value: Any, optimizer: optim.Optimizer, length: int) -> Any:
    if isinstance(value, Schedule):
        return value.make(optimizer, length)
    if isinstance(value, list | tuple) and any(isinstance(v, Schedule) for v in value):
        return [_made(v, optimizer, length) for v in value]
    return value


def _lengths(scheduler: type, given: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The arguments that say how long a run is, where they were left out."""
    if issubclass(scheduler, optim.lr_scheduler.OneCycleLR):
        return {} if {"total_steps", "epochs"} & given.keys() else {"total_steps": length}
    needs_t_max = "T_max" in inspect.signature(scheduler).parameters
    return {"T_max": length} if needs_t_max and "T_max" not in given else {}


def sequences(
    schedule: Schedule,
    optimizer: Callable[..., optim.Optimizer],
    settings: Sequence[Sequence[Mapping[str, Any]]],
    length: int,
) -> Sequences:
    """Every hyperparameter the scheduler moves, before each of `length` updates.

    Args:
        settings: for each run, its parameter groups' hyperparameters. All become groups of one
            optimizer that is stepped without gradients, so torch's own code makes the numbers.

    Returns:
        name to (length, runs, groups), or (length, runs, groups, m) for tuples such as ``betas``.

    Raises:
        OptimizerError: if torch refuses the arguments, or so many steps.
    """
    first = _stepped(schedule, optimizer, settings[0], length, _movable)
    before = {n: np.asarray([g[n] for g in settings[0]]) for n in first if n in settings[0][0]}
    moved = [n for n, a in first.items() if n == "lr" or n not in before or (a != before[n]).any()]
    if schedule.by_group:  # a list of values fits the groups of one run alone
        runs = [_stepped(schedule, optimizer, s, length, lambda group: moved) for s in settings]
        return {name: np.stack([run[name] for run in runs], axis=1) for name in moved}
    flat = [group for groups in settings for group in groups]
    together = _stepped(schedule, optimizer, flat, length, lambda group: moved)
    shape = (length, len(settings), len(settings[0]))
    return {name: a.reshape(*shape, *a.shape[2:]) for name, a in together.items()}


def _stepped(
    schedule: Schedule,
    optimizer: Callable[..., optim.Optimizer],
    settings: Sequence[Mapping[str, Any]],
    length: int,
    names_of: Callable[[Mapping[str, Any]], list[str]],
) -> Sequences:
    groups = [{"params": [torch.zeros(1, 1, requires_grad=True)], **s} for s in settings]
    stepped = optimizer(groups, **{n: v for n, v in settings[0].items() if n != "params"})
    scheduler = schedule.make(stepped, length)
    first = stepped.param_groups[0]
    kept = {
        name: np.empty((length, len(groups), *np.shape(first[name]))) for name in names_of(first)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for update in range(length):
            for name, array in kept.items():
                array[update] = [group[name] for group in stepped.param_groups]
            if update + 1 < length:
                try:
                    scheduler.step()
                except (ValueError, TypeError) as error:
                    said = " ".join(str(error).split())
                    raise OptimizerError(
                        f"{schedule!r} fails at step {update + 1} of {length}: {said}"
                    ) from error
    return kept


def _movable(group: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in group.items()
        if name not in ("params", "initial_lr") and _is_numeric(value)
    ]


def _is_numeric(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_numeric(v) for v in value)
    return isinstance(value, float | int) and not isinstance(value, bool)
