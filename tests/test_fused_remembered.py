"""A trace is remembered with the problem; what its code sees may have changed since."""

from __future__ import annotations

import functools
import gc
import os
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from beside import assert_as_looped, fused
from cases import DOUBLE, seeded, table_rows
from torch import Tensor, nn

from downslope import Problem

START = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
X, Y = table_rows(14, 3)
ASKED: dict[str, Any] = {"lr": [0.01, 0.02], "steps": 8}

factor: Any = 1.0
table = np.ones(3)
large = np.ones(2000)
weights = torch.ones(3, dtype=DOUBLE)
settings = types.SimpleNamespace(factor=1.0)
numbers = [1.0]
teacher = seeded(lambda: nn.Linear(3, 1))
affine = torch.distributions.AffineTransform(0.0, 1.0)
scaling = {"by": 1.0}
each = torch.func.vmap(functools.partial(lambda x, scaling: x * scaling["by"], scaling=scaling))


class Helper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._factor = 1.0
        self.register_buffer("kept", torch.ones(3).double(), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        return w**2 * self._factor * self.kept


private, buffered = Helper(), Helper()


class Settings:
    factor = 1.0


def helper(w: Tensor) -> Tensor:
    return w**2


def attributed(w: Tensor) -> Tensor:
    return attributed.factor * (w**2).sum()


def decorated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def inner(*given: Tensor) -> Tensor:
        return decorated.factor * function(*given)

    return inner


@decorated
def squared(w: Tensor) -> Tensor:
    return (w**2).sum()


def _set(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


def _put(array: Any, place: int, value: float) -> Callable[[], None]:
    return lambda: array.__setitem__(place, value)


def _replace_weights() -> None:
    """The old tensor is gone, so that the new one may stand in its very place."""
    del globals()["weights"]
    gc.collect()
    globals()["weights"] = torch.full((3,), 3.0, dtype=DOUBLE)


def _redefine_helper() -> None:
    global helper

    def helper(w: Tensor) -> Tensor:
        return w**4


def _set_global() -> None:
    global factor
    factor += 1.0


CHANGES: dict[str, tuple[Callable[..., Tensor], Callable[[], None]]] = {
    "a global": (lambda w: factor * (w**2).sum(), _set_global),
    "globals()": (lambda w: globals()["factor"] * (w**2).sum(), _set_global),
    "a tensor": (lambda w: (weights * w**2).sum(), _put(weights, 0, 7.0)),
    "its data": (lambda w: (weights * w**2).sum(), lambda: _put(weights.data, 1, 9.0)()),
    "its memory": (lambda w: (weights * w**2).sum(), lambda: _put(weights.numpy(), 2, 5.0)()),
    "another tensor": (lambda w: (weights * w**2).sum(), _replace_weights),
    "an array": (lambda w: (w**2).sum() * float(table[0]), _put(table, 0, 3.0)),
    "a large array": (lambda w: (w**2).sum() * float(large[7]), _put(large, 7, 3.0)),
    "a list": (lambda w: numbers[0] * (w**2).sum(), _put(numbers, 0, 3.0)),
    "a namespace": (lambda w: settings.factor * (w**2).sum(), _set(settings, "factor", 3.0)),
    "a class": (lambda w: Settings.factor * (w**2).sum(), _set(Settings, "factor", 3.0)),
    "a helper": (lambda w: helper(w).sum(), _redefine_helper),
    "a function's attribute": (attributed, _set(attributed, "factor", 3.0)),
    "a decorator's attribute": (squared, _set(decorated, "factor", 3.0)),
    "a private attribute": (lambda w: private(w).sum(), _set(private, "_factor", 3.0)),
    "a buffer": (lambda w: buffered(w).sum(), lambda: _put(buffered.kept, 1, 3.0)()),
    "an object of torch's": (lambda w: (affine(w) ** 2).sum(), _set(affine, "scale", 3.0)),
    "within a function of torch's": (
        lambda w: (each(w) ** 2).sum(),
        lambda: scaling.__setitem__("by", 3.0),
    ),
    "the environment": (
        lambda w: float(os.environ.get("DOWNSLOPE_TEST_FACTOR", 1)) * (w**2).sum(),
        lambda: os.environ.__setitem__("DOWNSLOPE_TEST_FACTOR", "3"),
    ),
    "the default dtype": (
        lambda w: (w * torch.tensor([0.1, 0.2, 0.3])).sum() ** 2,
        lambda: torch.set_default_dtype(DOUBLE),
    ),
}


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Everything is put back."""
    monkeypatch.setattr(attributed, "factor", 1.0, raising=False)
    monkeypatch.setattr(decorated, "factor", 1.0, raising=False)
    monkeypatch.setenv("DOWNSLOPE_TEST_FACTOR", "1")
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_function_sees_is_seen_as_it_is_now(name):
    function, change = CHANGES[name]
    problem = Problem.from_function(function, start=START)
    before = fused(problem, **ASKED)
    change()
    after = assert_as_looped(problem, **ASKED)
    assert not np.array_equal(before.loss, after.loss)


def _train_teacher() -> None:
    with torch.no_grad():
        teacher.weight.add_(1.0)


MODULES: dict[str, Callable[[], None]] = {
    "trained": _train_teacher,
    "given other weights": lambda: setattr(teacher.weight, "data", torch.zeros(1, 3).double()),
    "given another forward": lambda: setattr(
        teacher, "forward", lambda x: nn.functional.linear(x, teacher.weight) + 5
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_another_module_in_the_loss(name):
    distil = lambda m, x, t: ((m(x) - teacher(x).detach()) ** 2).mean()  # noqa: E731
    model = seeded(lambda: nn.Linear(3, 1), 5)
    problem = Problem.from_model(model, X, Y, objective=distil)
    before = fused(problem, **ASKED)
    MODULES[name]()
    after = assert_as_looped(problem, **ASKED)
    assert not np.array_equal(before.loss, after.loss)


class Powered:
    power = 1

    @property
    def exponent(self) -> int:
        return 1

    @staticmethod
    def bent(x: Tensor) -> Tensor:
        return x

    @classmethod
    def raised(cls, x: Tensor) -> Tensor:
        return x**cls.power


class Scaled(nn.Module, Powered):
    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.raised(self.bent(self.line(x) * self.scale) ** self.exponent)


CLASSES: list[tuple[type, str, Any]] = [
    (Scaled, "scale", 2.0),
    (Scaled, "forward", lambda self, x: self.line(x) * 3),
    (Powered, "power", 2),
    (Powered, "exponent", property(lambda self: 2)),
    (Powered, "bent", staticmethod(torch.tanh)),
    (Powered, "raised", classmethod(lambda cls, x: x * 5)),
]


@pytest.mark.parametrize(("kind", "name", "value"), CLASSES)
def test_a_models_class(monkeypatch, kind, name, value):
    problem = Problem.from_model(seeded(Scaled), X, Y, loss=nn.MSELoss())
    first = fused(problem, **ASKED)
    monkeypatch.setattr(kind, name, value)
    assert assert_as_looped(problem, **ASKED).loss[0, -1] != first.loss[0, -1]


def test_a_gradient_by_hand_that_looks_something_up():
    problem = Problem.from_function(lambda w: numbers[0] * (w**2).sum(), start=START)
    gradient = lambda w: {"w": 2 * numbers[0] * w}  # noqa: E731
    for value in (1.0, 2.0, 0.5):
        numbers[0] = value
        assert_as_looped(problem, gradient=gradient, **ASKED)


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))


@pytest.mark.parametrize("build", [_net, Scaled])
def test_nothing_is_traced_again_where_nothing_changed(monkeypatch, build):
    problem = Problem.from_model(seeded(build), X, Y, loss=nn.MSELoss())
    first = fused(problem, **ASKED)

    def refuse(*_: Any) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr("downslope.engines.fused.prepare.source_of", refuse)
    second = fused(problem, **ASKED)
    np.testing.assert_array_equal(first.loss, second.loss)


UNUSUAL: dict[str, Callable[[], Tensor]] = {
    "conjugate": lambda: torch.ones(3, dtype=torch.complex128).conj(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2)]),
    "of shapes alone": lambda: torch.ones(3, device="meta"),
    "short": lambda: torch.ones(3, dtype=torch.bfloat16),
    "sparse": lambda: torch.eye(3, dtype=DOUBLE).to_sparse(),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", UNUSUAL)
def test_tensors_of_unusual_kinds_may_be_held(name):
    held = UNUSUAL[name]()
    problem = Problem.from_function(lambda w: (w**2).sum() * held.dim(), start=START)
    assert_as_looped(problem, **ASKED)
