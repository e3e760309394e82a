"""Losses by name, what they ask of a target, and how a loss of many rows is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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
    elif prediction.shape != target.shape:  # of one shape, pairs are compared on purpose
        watch = _OuterBroadcast(prediction.numel())
        with watch:
            loss(prediction, target)
        if watch.found:
            _mismatch(prediction, target, "the same (here the loss broadcast them)")


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


class _OuterBroadcast(TorchDispatchMode):
    """Notices an operation (`expand` too) that spread `count` elements to their square."""

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not annotated
        self.count, self.found = count, False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.count > 1 and isinstance(out, Tensor) and out.numel() == self.count**2:
            given = [a for a in args if isinstance(a, Tensor)]
            self.found |= any(a.numel() == self.count for a in given)
        return out
