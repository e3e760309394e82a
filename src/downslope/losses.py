"""Losses by name, what they ask of a target, and how a loss of many rows is put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from downslope.errors import ProblemError, nearest

LOSSES: dict[str, type[nn.Module]] = {
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
    "smooth_l1": nn.SmoothL1Loss,
    "bce": nn.BCEWithLogitsLoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "poisson": nn.PoissonNLLLoss,
}
"""The losses that can be named on the command line."""

_SAME_SHAPE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.HuberLoss,
    nn.SmoothL1Loss,
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    nn.PoissonNLLLoss,
)
_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_by_name(name: str) -> nn.Module:
    """A loss from `LOSSES`, with torch's defaults.

    >>> loss_by_name("huber")
    HuberLoss()
    """
    if name not in LOSSES:
        raise ProblemError(
            f"unknown loss {name!r}{nearest(name, LOSSES)}; known are {', '.join(LOSSES)}"
        )
    return LOSSES[name]()


def check_loss(loss: Any) -> Loss:
    """The loss as a callable, or a sentence why it is none."""
    if isinstance(loss, str):
        return loss_by_name(loss)
    if isinstance(loss, type):
        raise ProblemError(f"loss must be made first: {loss.__name__}(), not {loss.__name__}")
    if not callable(loss):
        raise ProblemError(
            f"loss must be a torch loss or a function of (prediction, target), got {loss!r}"
        )
    if getattr(loss, "reduction", "mean") == "none":
        raise ProblemError("loss has reduction='none'; a descent needs one number: use 'mean'")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ProblemError(
            "the loss has parameters of its own, which would not be descended: "
            "put them into the model and give objective= instead"
        )
    return loss


def wants_classes(loss: Any) -> bool:
    """Whether a target of whole numbers is a class index, to be left as it is."""
    return isinstance(loss, _CLASSES)


def wants_numbers(loss: Any) -> bool:
    """Whether a target of whole numbers must be made floating point."""
    return isinstance(loss, _SAME_SHAPE)


def joined(loss: Any) -> Literal["mean", "sum", "whole"]:
    """How the loss of all rows follows from blocks of them: "whole" if it need not."""
    known = isinstance(loss, _SAME_SHAPE + _CLASSES)
    if not known or getattr(loss, "weight", None) is not None:
        return "whole"
    if isinstance(loss, _CLASSES) and loss.ignore_index != -100:
        return "whole"
    return "sum" if loss.reduction == "sum" else "mean"


def check_shapes(loss: Any, prediction: Tensor, target: Tensor) -> None:
    """Refuse a prediction and a target (a few rows of each) that do not belong together."""
    if isinstance(loss, _CLASSES) and not target.is_floating_point():
        expected = (prediction.shape[0], *prediction.shape[2:])
        if prediction.ndim < 2 or tuple(target.shape) != expected:
            _mismatch(prediction, target, "(rows, classes) and (rows,)")
    elif isinstance(loss, _SAME_SHAPE + _CLASSES):
        if prediction.shape != target.shape:
            _mismatch(prediction, target, "the same")
    elif prediction.shape != target.shape and target.is_floating_point():
        _check_own_shapes(loss, prediction, target)


def _check_own_shapes(loss: Loss, prediction: Tensor, target: Tensor) -> None:
    """A loss of the user's own may reshape its arguments, but must not broadcast them: then it
    says the same of a target that was reshaped before. Shown on values without symmetry."""
    if prediction.numel() != target.numel():
        return
    generator = torch.Generator().manual_seed(0)
    draw = [torch.rand(t.shape, generator=generator).to(t) for t in (prediction, target)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of broadcasting; here it becomes an error
        try:
            as_given, reshaped = loss(*draw), loss(draw[0], draw[1].reshape(prediction.shape))
        except (RuntimeError, ValueError, IndexError):
            return  # it insists on the shapes it gets
    if not torch.allclose(as_given, reshaped, rtol=1e-4, equal_nan=True):
        _mismatch(prediction, target, "the same (here the loss would broadcast them)")


def check_classes(loss: Any, prediction: Tensor, target: Tensor) -> None:
    """Refuse class indices (all rows of them) outside the model's outputs."""
    if not isinstance(loss, _CLASSES) or target.is_floating_point() or not target.numel():
        return
    classes, ignored = prediction.shape[1], loss.ignore_index
    wrong = (target != ignored) & ((target < 0) | (target >= classes))
    if bool(wrong.any()):
        raise ProblemError(
            f"the target holds class {int(target[wrong][0])}, but the model has "
            f"{classes} outputs, for classes 0 to {classes - 1}"
        )


def _mismatch(prediction: Tensor, target: Tensor, expected: str) -> None:
    shown = [f"({', '.join(['rows', *map(str, t.shape[1:])])})" for t in (prediction, target)]
    hint = ""
    if prediction.numel() == target.numel():
        reshaped = ", ".join(["-1", *map(str, prediction.shape[1:])])
        hint = f"; give the target as y.reshape({reshaped})"
    raise ProblemError(
        f"the prediction has shape {shown[0]} but the target {shown[1]}: "
        f"they must be {expected}{hint}"
    )
