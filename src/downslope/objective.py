"""One differentiable program for every kind of problem: a module whose call gives the loss.

A function becomes a module too, so that engines meet only one kind of thing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from downslope.errors import ProblemError
from downslope.losses import Loss

MODEL_PREFIX = "model."


class Function(nn.Module):
    """A plain function of loose tensors, its arguments as parameters.

    Args:
        function: called as ``function(x, **parameters)``, or with one positional parameter
            where the start was not a dict.
        start: parameter name to starting value.
        positional: the parameter is the function's only one, given by position.
    """

    def __init__(
        self, function: Callable[..., Tensor], start: Mapping[str, Tensor], positional: bool
    ) -> None:
        super().__init__()
        self.function = function
        self.positional = positional
        self.names = tuple(start)
        for name, value in start.items():
            if hasattr(self, name) or "." in name or not name:
                raise ProblemError(f"a parameter cannot be named {name!r}: torch uses that name")
            self.register_parameter(name, nn.Parameter(value.clone()))

    def forward(self, *x: Tensor) -> Tensor:
        """The function's value at the parameters, and at `x` if it takes data."""
        if self.positional:
            return self.function(*x, getattr(self, self.names[0]))
        return self.function(*x, **{name: getattr(self, name) for name in self.names})


class Objective(nn.Module):
    """The loss of a batch as a function of the model's parameters.

    ``objective(x, y)`` is the loss of rows; ``objective()`` the value of a function without data.
    The model is `objective.model`; every name of a parameter or buffer inside it starts with
    "model.".
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        objective: Callable[[nn.Module, Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.objective = objective
        self.copies_input = False
        """Set for a model that writes into its input, which must not reach the data."""

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """The loss, a tensor of one number."""
        if self.copies_input and x is not None:
            x = x.clone()
        if self.objective is not None:
            assert x is not None
            value = self.objective(self.model, x, y)
        elif self.loss is None:
            value = self.model()
        else:
            assert y is not None
            value = self.loss(self.model(x), y)
        if isinstance(value, Tensor) and value.ndim and value.numel() == 1:
            return value.reshape(())
        return value

    def copied(self) -> Objective:
        """A copy that shares nothing with this one but the user's own functions."""
        model = copy.deepcopy(self.model)
        loss = copy.deepcopy(self.loss) if isinstance(self.loss, nn.Module) else self.loss
        twin = Objective(model, loss, self.objective)
        twin.training = self.training
        twin.copies_input = self.copies_input
        return twin


def start_values(
    function: Callable[..., Any], start: Any, takes_data: bool
) -> tuple[dict[str, Tensor], bool, torch.dtype]:
    """Starting values by parameter name, whether the one parameter goes by position, and the
    dtype: that of the tensors among the values, or torch's default where all are plain numbers.

    A dict gives the function's keyword arguments; a number or sequence its one argument. Plain
    numbers are kept in float64, whatever they are used in.
    """
    if isinstance(start, Mapping):
        if not start:
            raise ProblemError("start is empty; give each parameter a starting value")
        values = {str(name): _start_value(name, value) for name, value in start.items()}
        _check_arguments(function, list(values), takes_data)
        positional = False
    else:
        values = {_argument_name(function, takes_data): _start_value("start", start)}
        positional = True
    given = start.values() if isinstance(start, Mapping) else [start]
    dtypes = {v.dtype for v in given if isinstance(v, Tensor) and v.is_floating_point()}
    if len(dtypes) > 1:
        raise ProblemError(f"the starting values differ in dtype: {sorted(map(str, dtypes))}")
    return values, positional, dtypes.pop() if dtypes else torch.get_default_dtype()


def _start_value(name: Any, value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().clone()
    if value is None:
        raise ProblemError(f"start {name!r} must be numbers, got None")
    try:
        array = np.asarray(value.detach() if isinstance(value, Tensor) else value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"start {name!r} must be numbers, got {value!r}") from error
    return torch.tensor(array, dtype=torch.float64)


def _arguments(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C tell nothing
        return None


def _argument_name(function: Callable[..., Any], takes_data: bool) -> str:
    arguments = _arguments(function)
    if arguments is None:
        return "x"
    place = 1 if takes_data else 0
    required = [a for a in arguments if a.default is a.empty or arguments.index(a) <= place]
    if len(required) != place + 1:
        raise ProblemError(
            f"the function takes {len(required) - place} parameters "
            f"({', '.join(a.name for a in required[place:])}) but start is a single value: "
            "give start as a dict, a value for each"
        )
    return required[place].name


def _check_arguments(function: Callable[..., Any], names: list[str], takes_data: bool) -> None:
    arguments = _arguments(function)
    if arguments is None or any(a.kind is a.VAR_KEYWORD for a in arguments):
        return
    known = [a.name for a in arguments[1 if takes_data else 0 :]]
    unknown = [name for name in names if name not in known]
    missing = [
        a.name
        for a in arguments[1 if takes_data else 0 :]
        if a.default is a.empty and a.name not in names
    ]
    if unknown or missing:
        raise ProblemError(
            f"start gives {', '.join(names)} but the function takes {', '.join(known) or 'nothing'}"
        )


def own_state(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Everything in a model's modules but parameters and submodules, by module and name."""
    found: dict[tuple[str, str], Any] = {}
    for name, module in model.named_modules():
        found |= {(name, key): v for key, v in vars(module).items() if not key.startswith("_")}
        found |= {(name, key): b for key, b in module.named_buffers(recurse=False)}
    return found


def same_state(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> bool:
    """Whether nothing was put in another's place; what is written into a buffer does not count."""
    return before.keys() == after.keys() and all(
        value is after[key] or _equal(value, after[key]) for key, value in before.items()
    )


def _equal(before: Any, after: Any) -> bool:
    plain = isinstance(before, int | float | str | bool | tuple | type(None))
    return plain and type(before) is type(after) and bool(before == after)
