"""Optimizer classes: what each takes, whether a setting is allowed, and which have a rule."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor, optim

from downslope.errors import OptimizerError, listed, nearest
from downslope.garbage import uncollected
from downslope.optimizers.rules import RULES, Rule

__all__ = [
    "RULES",
    "Hyperparameters",
    "Rule",
    "check_complete",
    "check_names",
    "check_optimizer",
    "check_values",
    "hyperparameters",
    "is_number",
    "optimizer_by_name",
    "why_looped",
]

IMPLEMENTATION = ("foreach", "capturable", "differentiable", "fused")
"""Switches that choose how torch computes a step, not what it computes."""


@dataclass(frozen=True)
class Hyperparameters:
    """What an optimizer class takes, as its signature says.

    Attributes:
        defaults: name to default, in order; `inspect.Parameter.empty` where there is none.
        open: whether it takes names beyond these (``**kwargs``).
    """

    defaults: Mapping[str, Any]
    open: bool

    @property
    def shown(self) -> tuple[str, ...]:
        """The names that belong in a table of runs."""
        return tuple(name for name in self.defaults if name not in IMPLEMENTATION)


def hyperparameters(optimizer: type[optim.Optimizer]) -> Hyperparameters:
    """The hyperparameters of a class.

    >>> hyperparameters(optim.Adam).defaults["betas"]
    (0.9, 0.999)
    """
    return _read(cast(Any, optimizer))


@lru_cache(maxsize=256)  # to read a signature takes longer than to check a setting
def _read(optimizer: type[optim.Optimizer]) -> Hyperparameters:
    parameters = list(inspect.signature(optimizer).parameters.values())[1:]  # first: the params
    named = {
        p.name: p.default for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    return Hyperparameters(named, any(p.kind is p.VAR_KEYWORD for p in parameters))


@cache
def _torch_classes() -> dict[str, type[optim.Optimizer]]:
    return {
        name: value
        for name, value in vars(optim).items()
        if isinstance(value, type)
        and issubclass(value, optim.Optimizer)
        and value is not optim.Optimizer
    }


def optimizer_by_name(name: str) -> type[optim.Optimizer]:
    """A class of torch.optim by its name, in any case.

    >>> optimizer_by_name("sgd") is optim.SGD
    True
    """
    by_lower = {known.lower(): cls for known, cls in _torch_classes().items()}
    if name.lower() not in by_lower:
        raise OptimizerError(
            f"unknown optimizer {name!r}{nearest(name, _torch_classes())}; "
            f"known are {', '.join(sorted(_torch_classes()))}"
        )
    return by_lower[name.lower()]


def check_optimizer(optimizer: Any) -> type[optim.Optimizer]:
    """The optimizer's class, or a sentence why this is none."""
    if isinstance(optimizer, optim.Optimizer):
        name = type(optimizer).__name__
        raise OptimizerError(
            f"give the class {name}, not an instance: an instance is bound to the parameters it "
            "was made with, and would leave those of the runs as they are; write "
            f"descend(problem, {name}, lr=...)"
        )
    if isinstance(optimizer, str):
        return optimizer_by_name(optimizer)
    if not (isinstance(optimizer, type) and issubclass(optimizer, optim.Optimizer)):
        raise OptimizerError(
            f"optimizer must be a class of torch.optim, or a subclass of "
            f"torch.optim.Optimizer, got {optimizer!r}"
        )
    if optimizer is optim.Optimizer:
        raise OptimizerError("torch.optim.Optimizer is the base of all: give one of its subclasses")
    return optimizer


def is_number(value: Any) -> bool:
    """Whether a value is one number (and no switch)."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dtype != torch.bool
    return isinstance(value, Real)


def check_names(optimizer: type[optim.Optimizer], names: Sequence[str]) -> None:
    """Refuse a hyperparameter the optimizer does not have."""
    known = hyperparameters(optimizer)
    for name in names:
        if name not in known.defaults and not known.open:
            has = listed(known.shown)
            raise OptimizerError(
                f"{optimizer.__name__} has no hyperparameter {name!r}"
                f"{nearest(name, known.defaults)}; it has {has}"
            )


def check_complete(optimizer: type[optim.Optimizer], names: Collection[str]) -> None:
    """Refuse to go without a hyperparameter that has no default."""
    for name in _needed(optimizer):
        if name not in names:
            raise OptimizerError(f"{optimizer.__name__} needs {name}=, which has no default")


def check_values(
    optimizer: type[optim.Optimizer], values: Mapping[str, Any], parameters: Sequence[Tensor]
) -> None:
    """Refuse a setting that the optimizer itself refuses, naming the hyperparameter.

    Whoever is to blame is found by trying each given value alone, then two together, and so on.
    """
    if (said := _refusal(optimizer, values, parameters)) is None:
        return
    if (alone := _refusal(optimizer, {}, parameters)) is not None and not _needed(optimizer):
        raise OptimizerError(f"{optimizer.__name__} cannot take this problem: {alone}")
    for size in range(1, len(values)):
        for names in combinations(values, size):
            some = {name: values[name] for name in (*names, *_needed(optimizer)) if name in values}
            said_of_some = _refusal(optimizer, some, parameters)
            if said_of_some is not None:
                _refuse(optimizer, names, values, said_of_some)
    _refuse(optimizer, list(values), values, said)


def _needed(optimizer: type[optim.Optimizer]) -> list[str]:
    empty = inspect.Parameter.empty
    return [name for name, value in hyperparameters(optimizer).defaults.items() if value is empty]


def _refuse(
    optimizer: type[optim.Optimizer], names: Sequence[str], values: Mapping[str, Any], said: str
) -> None:
    given = {name: f"{name}={_shown(value)}" for name, value in values.items()}
    blamed = listed(given[name] for name in names)
    among = f" (in {', '.join(given.values())})" if len(names) < len(given) else ""
    raise OptimizerError(f"{optimizer.__name__} refuses {blamed}{among}: {said}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor({value.tolist()})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refusal(
    optimizer: type[optim.Optimizer], values: Mapping[str, Any], parameters: Sequence[Tensor]
) -> str | None:
    """What the class says against these values; None if it takes them."""
    try:
        with uncollected():  # the first optimizer of a process imports torch's compiler
            optimizer([torch.nn.Parameter(p.detach()) for p in parameters], **values)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None


def why_looped(optimizer: type[optim.Optimizer]) -> str | None:
    """Why only torch.optim itself can take this optimizer's steps; None if there is a rule."""
    if optimizer in RULES:
        return None
    if optimizer in _torch_classes().values():
        return f"{optimizer.__name__} is not elementwise"
    return f"{optimizer.__name__} is not one of torch.optim's classes"
