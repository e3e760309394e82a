"""Models by name, for tables: ``linear``, ``poly:3``, ``mlp:32,32:tanh``, ``file.py:ClassName``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downslope.errors import DownslopeError, ProblemError, nearest

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}
FORMS = "linear, poly:DEGREE, mlp:WIDTHS, mlp:WIDTHS:ACTIVATION or file.py:ClassName"

Factory = Callable[[], nn.Module]


class Powers(nn.Module):
    """Each feature's powers 1 to `degree`, without products between features.

    Shapes: (rows, features) to (rows, features * degree).
    """

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, x: Tensor) -> Tensor:
        """(rows, features) to (rows, features * degree)."""
        return torch.cat([x**power for power in range(1, self.degree + 1)], dim=-1)


def model_factory(model: Any, inputs: int, outputs: int) -> Factory | nn.Module:
    """A maker of fresh models with `inputs` features and `outputs` outputs.

    Args:
        model: a name of the forms above; a module, which is taken as it is; or a callable,
            given (inputs, outputs) if it takes two arguments, and nothing if it takes none.

    Raises:
        ProblemError: for an unknown name, activation, file or class.

    >>> model_factory("mlp:8:tanh", 3, 1)()
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=1, bias=True)
    )
    """
    if isinstance(model, nn.Module):
        return model
    if callable(model):
        return _fitted(model, inputs, outputs, getattr(model, "__name__", "the model"))
    if not isinstance(model, str):
        raise ProblemError(f"model must be a name ({FORMS}), a module or a callable, got {model!r}")
    kind, _, rest = model.partition(":")
    if ".py:" in model or model.endswith(".py"):
        return _from_file(model, inputs, outputs)
    if model == "linear":
        return lambda: nn.Linear(inputs, outputs)
    if kind == "poly":
        degree = _whole(rest, model)
        return lambda: nn.Sequential(Powers(degree), nn.Linear(inputs * degree, outputs))
    if kind == "mlp":
        widths, _, activation = rest.partition(":")
        return _mlp([_whole(w, model) for w in widths.split(",")], activation, inputs, outputs)
    hint = nearest(kind, ["linear", "poly", "mlp"])
    raise ProblemError(f"unknown model {model!r}{hint}; known are {FORMS}")


def _mlp(hidden: list[int], activation: str, inputs: int, outputs: int) -> Factory:
    activation = activation or "relu"
    if activation not in ACTIVATIONS:
        raise ProblemError(
            f"unknown activation {activation!r}{nearest(activation, ACTIVATIONS)}; "
            f"known are {', '.join(ACTIVATIONS)}"
        )

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        before = inputs
        for width in hidden:
            layers += [nn.Linear(before, width), ACTIVATIONS[activation]()]
            before = width
        return nn.Sequential(*layers, nn.Linear(before, outputs))

    return make


def _whole(text: str, model: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ProblemError(
            f"model {model!r}: {text!r} is no whole number of at least 1; the forms are {FORMS}"
        )
    return int(text)


def _from_file(name: str, inputs: int, outputs: int) -> Factory:
    """The user's own class, from a file named by the user on purpose: it is run."""
    file, _, cls_name = name.rpartition(":")
    path = Path(file)
    if not cls_name or not file:
        raise ProblemError(f"model {name!r} names no class: write file.py:ClassName")
    if not path.is_file():
        raise ProblemError(f"model {name!r}: there is no file {file!r}")
    spec = importlib.util.spec_from_file_location(f"_downslope_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ProblemError(f"model {name!r}: {file!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look a class's module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ProblemError(f"model {name!r}: {file!r} fails with {_said(error)}") from error
    found = getattr(module, cls_name, None)
    if found is None:
        raise ProblemError(
            f"model {name!r}: {file!r} has no {cls_name!r}{nearest(cls_name, vars(module))}"
        )
    if not callable(found):
        raise ProblemError(f"model {name!r}: {cls_name!r} is no class or function, but {found!r}")
    return _fitted(found, inputs, outputs, cls_name)


def _fitted(make: Callable[..., Any], inputs: int, outputs: int, name: str) -> Factory:
    """`make` with its arguments settled: (inputs, outputs) or none."""
    required = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) not in (0, 2):
        raise ProblemError(
            f"{name} needs {len(required)} arguments; a model for a table takes two, "
            "the number of inputs and of outputs, or none"
        )
    arguments = (inputs, outputs) if required else ()

    def build() -> nn.Module:
        try:
            model = make(*arguments)
        except DownslopeError:
            raise
        except Exception as error:
            raise ProblemError(f"{name}{arguments} fails with {_said(error)}") from error
        if not isinstance(model, nn.Module):
            raise ProblemError(f"{name} must make a torch.nn.Module, got {type(model).__name__}")
        return model

    return build


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
