"""A gradient written by hand, checked against autograd before it is trusted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from downslope.data import tensors
from downslope.engines.work import Handwritten, handwritten_call
from downslope.errors import ProblemError, listed, nearest
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem

TOLERANCE = 1e-6
"""Relative difference allowed in float64, where rounding is 1e-16."""


LOOSE = 1e-3
"""The same where only the problem's own dtype will do, float32."""


def check_gradient(problem: Problem, gradient: Handwritten) -> None:
    """Compare with autograd in float64, at the start and at a point beside it.

    A start such as zero may hide a wrong term, the second point shows it.

    Raises:
        ProblemError: if it fails, lacks a parameter, has another shape, or differs; the message
            names the parameter and the size of the difference.
    """
    if problem.kind != "function":
        raise ProblemError("gradient= is for functions of loose tensors; a module has autograd's")
    if not callable(gradient):
        raise ProblemError(f"gradient must be a function that returns a dict, got {gradient!r}")
    _check_arguments(problem, gradient)
    exact, tolerance = problem.to(dtype=torch.float64), TOLERANCE
    if not _computes(exact, gradient):  # a function may hold float32 tensors of its own
        exact, tolerance = problem, LOOSE
    count = 0 if exact.train is None else len(exact.train)
    for shift, rows in ((0.0, count), (0.1, count), (0.1, min(count, 3))):
        data = tensors(None if exact.train is None else exact.train[:rows])
        objective = exact.fresh(0)
        generator = torch.Generator().manual_seed(0)
        parameters = {n.removeprefix(MODEL_PREFIX): p for n, p in objective.named_parameters()}
        with torch.no_grad():
            for p in parameters.values():
                p.add_(shift * (1 + p.abs()) * torch.rand(p.shape, generator=generator).to(p))
        wanted = torch.autograd.grad(objective(*data), list(parameters.values()), allow_unused=True)
        made = _made(gradient, {n: p.detach() for n, p in parameters.items()}, data)
        for (name, p), right in zip(parameters.items(), wanted, strict=True):
            right = torch.zeros_like(p) if right is None else right
            _compare(name, made.get(name), right, tolerance)


def _computes(problem: Problem, gradient: Handwritten) -> bool:
    """Whether the function and the gradient can be computed in the problem's dtype."""
    objective = problem.fresh(0)
    parameters = {n.removeprefix(MODEL_PREFIX): p for n, p in objective.named_parameters()}
    try:
        with torch.no_grad():
            objective(*tensors(problem.train))
            handwritten_call(gradient, parameters, tensors(problem.train))
    except Exception:  # the check in the problem's own dtype says what is wrong
        return False
    return True


def _compare(name: str, given: Any, right: Tensor, tolerance: float) -> None:
    if given is None:
        raise ProblemError(f"the gradient by hand has none for parameter {name!r}")
    given = torch.as_tensor(given, dtype=right.dtype)
    if given.shape != right.shape:
        raise ProblemError(
            f"the gradient by hand of parameter {name!r} has shape {tuple(given.shape)}, "
            f"the parameter {tuple(right.shape)}"
        )
    difference = float((given - right).abs().max())
    size = float(right.abs().max())
    if not difference <= tolerance * max(size, 1.0):
        raise ProblemError(
            f"the gradient by hand of parameter {name!r} differs from autograd's by "
            f"{difference:.6g} (autograd's largest element is {size:.6g})"
        )


def _made(gradient: Handwritten, parameters: Mapping[str, Tensor], data: Any) -> dict[str, Tensor]:
    try:
        return handwritten_call(gradient, parameters, data)
    except Exception as error:  # whatever the user's function raises
        said = " ".join(str(error).split())
        raise ProblemError(
            f"the gradient by hand fails with {type(error).__name__}: {said}"
        ) from error


def _check_arguments(problem: Problem, gradient: Handwritten) -> None:
    given = [*problem.names, *(["x", "y"] if problem.train is not None else [])]
    taken = list(inspect.signature(gradient).parameters.values())
    if any(a.kind is a.VAR_KEYWORD for a in taken):
        return
    unknown = [a.name for a in taken if a.name not in given and a.default is a.empty]
    missing = [name for name in given if name not in [a.name for a in taken]]
    if unknown or missing:
        names = [a.name for a in taken]
        hint = nearest(unknown[0], missing) if unknown and missing else ""
        raise ProblemError(
            f"the gradient by hand must take {listed(given)}, it takes "
            f"{listed(names) or 'nothing'}{hint}"
        )
