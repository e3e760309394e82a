"""The numbers of each step, taken without waiting for the device.

A number that is on the CPU is read at once; others stay where they are and are read in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, optim

from downslope.loops.observers import held_by

_BLOCK = 256
"""Numbers that may wait on the device."""

_OFTEN = ((20_000, 1), (200_000, 10))
"""Up to which size of the parameters norms are taken every so many steps by default."""

_SELDOM = 50
"""And beyond: an update's norm needs a copy of the parameters."""

_TENSOR = 1000
"""What a tensor counts besides its numbers: a call for each costs more than few numbers."""


class Column:
    """A number a step, or None where it was not measured."""

    def __init__(self) -> None:
        self.known: list[float | None] = []
        self.waiting: list[tuple[int, Tensor]] = []

    def append(self, value: Tensor | float | None) -> None:
        """Take a number; a tensor of another device stays there for a while."""
        self.known.append(None)
        self.amend(value)

    def amend(self, value: Tensor | float | None) -> None:
        """Put a number in the place of the last, which was None."""
        if isinstance(value, Tensor) and value.device.type != "cpu":
            self.waiting.append((len(self.known) - 1, value))
            if len(self.waiting) >= _BLOCK:
                self.values()
        elif value is not None:
            self.known[-1] = float(value)

    def lacks_last(self) -> bool:
        """Whether the last one was not measured."""
        waits = self.waiting and self.waiting[-1][0] == len(self.known) - 1
        return bool(self.known) and self.known[-1] is None and not waits

    def values(self) -> list[float | None]:
        """All of them, in order."""
        if self.waiting:
            wide = torch.float32 if self.waiting[0][1].device.type == "mps" else torch.float64
            numbers = torch.stack([t.to(wide) for _, t in self.waiting]).tolist()
            for (place, _), number in zip(self.waiting, numbers, strict=True):
                self.known[place] = number
            self.waiting = []
        return self.known


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The length of all numbers together, on the first one's device."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in dense)
    if half:  # sums of squares would overflow
        norms = [torch.linalg.vector_norm(t, dtype=torch.float32) for t in dense]
    else:
        norms = list(torch._foreach_norm(dense))
    first = norms[0].device
    return torch.linalg.vector_norm(torch.stack([n.to(first) for n in norms]))


def often(optimizer: optim.Optimizer) -> int:
    """Between how many steps norms are taken, so that they cost little."""
    size = sum(p.numel() + _TENSOR for p in held_by(optimizer))
    return next((steps for most, steps in _OFTEN if size <= most), _SELDOM)


class Tape:
    """Losses, norms and rates of every step."""

    def __init__(self, optimizer: optim.Optimizer, every: int) -> None:
        self.optimizer, self.every = optimizer, every
        self.loss, self.gradient_norm, self.update_norm = Column(), Column(), Column()
        self.sharpness, self.share, self.noise = Column(), Column(), Column()
        self.rates: list[list[float]] = []
        self.pending: list[Tensor | float] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.opened: list[float] = []
        self.gradient: Tensor | None = None
        self.steps = 0

    def take_loss(self, loss: Tensor | float, late: bool) -> None:
        """A batch's loss; several before one step are averaged.

        Args:
            late: it can only be that of the step just made, where that has none.
        """
        taken = loss.detach().clone() if isinstance(loss, Tensor) else loss
        if late and self.loss.lacks_last():
            self.loss.amend(taken)
        else:
            self.pending.append(taken)

    def open(self) -> None:
        """A step begins: rates, and the parameters where their change is measured."""
        self.steps = len(self.rates) + 1
        self.gradient = None
        self.opened = [float(g.get("lr", torch.nan)) for g in self.optimizer.param_groups]
        self.before = []
        if self._measured():
            params = [p.detach() for p in held_by(self.optimizer) if p.requires_grad]
            self.before = [(p, p.clone()) for p in params]

    def take_gradient(self) -> None:
        """The gradients' norm at this step, where it is measured."""
        skipped = getattr(self.optimizer, "found_inf", None)  # a fused optimizer under a scaler
        if not self._measured() or (skipped is not None and bool(skipped)):
            return
        found = [p.grad.detach() for p in held_by(self.optimizer) if p.grad is not None]
        if found:
            norm = total_norm(found)
            scale = getattr(self.optimizer, "grad_scale", None)  # fused ones unscale by themselves
            self.gradient = norm if scale is None else norm / scale.to(norm.device)

    def finite(self) -> bool:
        """Whether loss and gradient of this step are; waits for the device."""
        loss = float(self.pending[-1]) if self.pending else 0.0
        return isfinite(loss) and (self.gradient is None or bool(self.gradient.isfinite()))

    def close(self, several: bool) -> None:
        """The step was made.

        Args:
            several: the step made passes of its own (a closure): the first loss counts, which is
                the one before the update.
        """
        self.rates.append(self.opened)
        self.loss.append(self._loss(several))
        self.gradient_norm.append(self.gradient)
        change = None
        if self.before:
            old = [copy for _, copy in self.before]
            torch._foreach_sub_(old, [now for now, _ in self.before])
            change, self.before = total_norm(old), []
        self.update_norm.append(change)

    def measured(self, sharpness: float | None, share: float | None, noise: float | None) -> None:
        """Curvature and noise at this step."""
        self.sharpness.append(sharpness)
        self.share.append(share)
        self.noise.append(noise)

    def _measured(self) -> bool:
        return (self.steps - 1) % self.every == 0

    def _loss(self, several: bool) -> Tensor | float | None:
        given, self.pending = self.pending, []
        if not given:
            return None
        if several or len(given) == 1:
            return given[0]
        total: Any = sum(loss.float() if isinstance(loss, Tensor) else loss for loss in given)
        return total / len(given)
