"""Whether the parts of a problem fit each other, shown by a pass over a few rows; and casts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from downslope.data import Rows
from downslope.errors import ProblemError
from downslope.losses import check_classes, check_shapes, wants_classes, wants_numbers
from downslope.objective import Objective
from downslope.randomness import borrowed

if TYPE_CHECKING:
    from downslope.problem import Problem


def cast(problem: Problem) -> Problem:
    """Data in the parameters' dtype, whole numbers where the model or loss wants them so."""
    rows, notes, dtype = problem.train, [], None
    assert rows is not None
    _check_parameters(problem)
    dtype, device = problem.dtype, problem.device
    x, y = rows.x.to(device), rows.y if rows.y is None else rows.y.to(device)
    if (x.is_floating_point() and x.dtype != dtype) or (
        not x.is_floating_point() and not _takes(problem, Rows(x, y))
    ):
        notes.append(f"X was cast from {x.dtype} to the parameters' {dtype}".replace("torch.", ""))
        x = x.to(dtype)
    loss = problem.template.loss
    if y is not None and y.dtype != dtype:
        whole = not y.is_floating_point()
        if whole and wants_classes(loss):
            y = y.to(torch.int64)
        elif whole and not wants_numbers(loss):
            y = y.to(torch.int64)  # bytes would wrap around
        else:
            notes.append(
                f"y was cast from {y.dtype} to the parameters' {dtype}".replace("torch.", "")
            )
            y = y.to(dtype)
    if isinstance(loss, nn.Module) and any(
        b.is_floating_point() and b.dtype != dtype for b in loss.buffers()
    ):
        make = problem.make
        problem = replace(problem, make=lambda: make().to(dtype=dtype))
    return replace(problem, train=Rows(x, y), notes=(*problem.notes, *notes))


def _takes(problem: Problem, rows: Rows) -> bool:
    """Whether the model accepts whole-number inputs as they are (embeddings do). A function of
    loose tensors counts with real numbers, and so does anything given bytes."""
    if problem.kind == "function" or rows.x.dtype not in (torch.int32, torch.int64):
        return False
    objective = problem.fresh(0).eval()
    with borrowed(problem.device), torch.no_grad():
        try:
            if objective.objective is not None:
                objective(rows[:2].x.clone(), rows[:2].y)
            else:
                objective.model(rows.x[:2].clone())
        except (RuntimeError, TypeError, IndexError):
            return False
    return True


def _check_parameters(problem: Problem) -> None:
    parameters = {n: p for n, p in problem.template.named_parameters() if p.requires_grad}
    if not parameters:
        raise ProblemError("the model has no parameter that requires a gradient")
    if any(is_lazy(p) for p in parameters.values()):
        raise ProblemError(
            "the model has lazy parameters, whose shapes are not known yet: "
            "call it once on some rows first"
        )
    dtypes = {p.dtype for p in parameters.values()}
    if len(dtypes) > 1 or not next(iter(dtypes)).is_floating_point:
        raise ProblemError(
            "the parameters must share one floating-point dtype, got "
            + ", ".join(sorted(str(d).removeprefix("torch.") for d in dtypes))
        )


def checked(problem: Problem) -> Problem:
    """The problem, after one pass over a few rows that shows its parts fit."""
    _check_parameters(problem)
    objective, rows = problem.fresh(0).eval(), problem.train
    with borrowed(problem.device):
        try:
            if rows is not None and _writes(objective, rows[:2]):
                problem = _copying(problem)
            if rows is not None and objective.loss is not None:
                _check_prediction(objective, rows)
            loss = problem.forward(objective, 3)
        except ProblemError:
            raise
        except Exception as error:  # whatever the user's model or loss raises
            said = " ".join(str(error).split())
            raise ProblemError(f"the problem fails with {type(error).__name__}: {said}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ProblemError(f"the loss must be a tensor of one number, got {got}")
    if not loss.requires_grad:
        raise ProblemError("the loss does not depend on the parameters through torch operations")
    return problem


def _writes(objective: Objective, rows: Rows) -> bool:
    """Whether the model writes into its input, as one that starts with a ReLU in place does."""
    x = rows.x.clone()
    if x.is_floating_point():
        x = -x.abs() - 1  # so that anything that cuts off or rounds shows
    before = x.clone()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says here becomes an error, if it is one
        try:
            objective(x, None if rows.y is None else rows.y.clone())
        except Exception:  # unlikely values; the pass over real rows says what is wrong
            return False
    return not torch.equal(x, before)


def _copying(problem: Problem) -> Problem:
    """The same problem, its model given copies of the rows."""

    def with_copies(make: Callable[[], Objective]) -> Callable[[], Objective]:
        def made() -> Objective:
            objective = make()
            objective.copies_input = True
            return objective

        return made

    exact = None if problem.exact is None else with_copies(problem.exact)
    return replace(problem, make=with_copies(problem.make), exact=exact)


def _check_prediction(objective: Objective, rows: Rows) -> None:
    if rows.y is None:
        raise ProblemError("a loss needs targets: give y, or objective= in place of loss=")
    # As many rows as no other axis is long, so that no coincidence makes shapes fit.
    lengths = {*rows.x.shape[1:], *rows.y.shape[1:]}
    with torch.no_grad():
        prediction = objective.model(rows.x[:3].clone())
        if not isinstance(prediction, Tensor):
            raise ProblemError(
                f"the model must give a tensor, got {type(prediction).__name__}; "
                "for others give objective= in place of loss="
            )
        lengths |= {*prediction.shape[1:]}
        count = next(n for n in range(3, 3 + len(lengths) + 1) if n not in lengths)
        prediction = objective.model(rows.x[:count].clone())
        check_shapes(objective.loss, prediction, rows.y[:count])
        check_classes(objective.loss, prediction, rows.y)
        assert objective.loss is not None
        if len(prediction) == count:
            objective.loss(prediction, rows.y[:count])
