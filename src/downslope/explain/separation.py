"""Margins of a classifier: how far each row lies on the right side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_BINARY: tuple[Any, ...] = (functional.binary_cross_entropy_with_logits,)
_CLASSES: tuple[Any, ...] = (functional.cross_entropy,)


def has_margins(loss: Any) -> bool:
    """Whether the loss falls towards 0, and never gets there, as margins grow."""
    if getattr(loss, "label_smoothing", 0.0):
        return False
    modules = (nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.SoftMarginLoss)
    return isinstance(loss, modules) or loss in _BINARY or loss in _CLASSES


_NOT_NEGATIVE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.HuberLoss,
    nn.SmoothL1Loss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.CrossEntropyLoss,
)


def least_possible(loss: Any) -> float:
    """The lowest value that a loss can take, where that is known; else minus infinity."""
    return 0.0 if isinstance(loss, _NOT_NEGATIVE) else -float("inf")


def margins(loss: Any, made: Tensor, target: Tensor) -> Tensor | None:
    """How far each row's prediction lies on its right side, (rows,); None where targets are no
    classes.

    >>> margins(nn.BCEWithLogitsLoss(), torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0]))
    tensor([ 2., -3.])
    """
    if isinstance(loss, nn.CrossEntropyLoss) or loss in _CLASSES:
        if target.is_floating_point() or made.ndim != 2:
            return None
        counted = target != getattr(loss, "ignore_index", -100)
        made, target = made[counted], target[counted].long()[:, None]
        right = made.gather(1, target)[:, 0]
        others = made.scatter(1, target, -torch.inf)
        return right - others.amax(1)
    low = -1.0 if isinstance(loss, nn.SoftMarginLoss) else 0.0
    if not bool(((target == low) | (target == 1)).all()):
        return None
    return (torch.where(target == 1, 1.0, -1.0) * made).reshape(len(made), -1).amin(1)
