"""Whether a learning-rate scheduler was stepped before the optimizer's first step."""

from __future__ import annotations

import gc
from typing import Any

from torch import optim
from torch.optim.lr_scheduler import LRScheduler


class Scheduling:
    """Counts schedulers' steps up to the optimizer's first.

    A first step that an AMP scaler skips looks alike, so that only a scheduler's step before any
    backward pass counts, or after a single one.

    Args:
        scheduler: the one given, or None: then those that refer to the optimizer are looked up.
    """

    def __init__(self, optimizer: optim.Optimizer, scheduler: Any) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        self.begun = bool(getattr(optimizer, "_opt_called", False)) or bool(optimizer.state)
        self.known = [] if self.begun else [(s, s["_step_count"]) for s in self._states()]
        self.backwards = self.before_backward = self.ahead = 0

    def backward(self) -> None:
        """A backward pass reached the parameters."""
        self.backwards += 1
        if self.backwards == 1 and not self.begun:
            self.before_backward = self._moved()

    def first_step(self) -> None:
        """The optimizer is about to make its first step."""
        if self.begun:
            return
        self.begun = True
        self.ahead = self.before_backward or (self._moved() if self.backwards <= 1 else 0)
        self.known = []

    def _moved(self) -> int:
        """How many steps a scheduler has made in the block. One made there has begun at 1."""
        before = {id(state): count for state, count in self.known}
        steps = [s["_step_count"] - before.get(id(s), 1) for s in self._states()]
        return max(steps, default=0)

    def _states(self) -> list[dict[str, Any]]:
        if self.scheduler is not None:
            return [state for s in parts_of(self.scheduler) if "_step_count" in (state := vars(s))]
        return states_of(self.optimizer)


def parts_of(scheduler: Any) -> list[Any]:
    """A scheduler, or those that a chain or sequence of them holds."""
    return list(getattr(scheduler, "_schedulers", None) or [scheduler])


def states_of(optimizer: optim.Optimizer) -> list[dict[str, Any]]:
    """The attributes of the schedulers that move an optimizer's rates.

    An optimizer does not know them, only that there are some: the collector knows who refers to it.
    """
    if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        return []
    holders = gc.get_referrers(optimizer)
    states = [vars(h) if isinstance(h, LRScheduler) else h for h in holders]
    return [
        state
        for state in states
        if isinstance(state, dict)
        and state.get("optimizer") is optimizer
        and "_step_count" in state
    ]
