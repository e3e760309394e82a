"""The registry of cases: optimizers with their hyperparameters, problems, and a plain torch loop.

`plain` is the reference that everything is compared with: torch.optim itself, stepped the way a
person writes it. Nothing in it comes from the package but the order of samples (which
test_sampling.py looks at by itself) and the names of things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from downslope import Problem
from downslope.sampling import epoch_order

DOUBLE = torch.float64
ENGINES = ("looped", "stacked")

Rates = tuple[float, float, float]
Batch = Tensor | None
"""Row numbers; None for a function without data."""


# -- optimizers --------------------------------------------------------------------------------


class Signed(optim.Optimizer):
    """A user's own: steps along the sign of an average gradient, its hyperparameters its own."""

    def __init__(self, params: Any, lr: float = 0.01, memory: float = 0.5, powers: Any = (1, 2)):
        if lr < 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, {"lr": lr, "memory": memory, "powers": powers})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            assert all(isinstance(power, int) for power in group["powers"])
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.mul_(group["memory"]).add_(p.grad, alpha=1 - group["memory"])
                p.sub_(group["lr"] * sum(torch.tanh(average) ** k for k in group["powers"]))
        return loss


@dataclass(frozen=True, eq=False)
class Case:
    """An optimizer, hyperparameters, and rates at which the problems below are stable."""

    optimizer: type[optim.Optimizer]
    rates: Rates = (0.003, 0.01, 0.03)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        given = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.optimizer.__name__}({given})"


def _cases() -> list[Case]:
    momentum = {"momentum": 0.9}
    table: list[tuple[type[optim.Optimizer], Rates, list[dict[str, Any]]]] = [
        (optim.SGD, (0.001, 0.003, 0.01), [
            {}, {"weight_decay": 0.1}, momentum, momentum | {"dampening": 0.3},
            momentum | {"nesterov": True, "weight_decay": 0.01},
            {"maximize": True, "momentum": 0.5},
            {"dampening": 0.5},
        ]),
        (optim.Adam, (0.003, 0.01, 0.03), [
            {}, {"betas": (0.8, 0.9), "eps": 1e-5}, {"amsgrad": True, "weight_decay": 0.1},
            {"maximize": True},
        ]),
        (optim.AdamW, (0.003, 0.01, 0.03), [{}, {"amsgrad": True, "weight_decay": 0.3}]),
        (optim.NAdam, (0.003, 0.01, 0.03), [
            {}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"momentum_decay": 0.05},
        ]),
        (optim.RAdam, (0.003, 0.01, 0.03), [
            {}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"betas": (0.9, 0.95)},
        ]),
        (optim.Adamax, (0.003, 0.01, 0.03), [{}, {"weight_decay": 0.1}]),
        (optim.RMSprop, (0.001, 0.003, 0.01), [
            {}, {"centered": True, "weight_decay": 0.1}, {"momentum": 0.5, "alpha": 0.9},
            {"centered": True, "momentum": 0.5, "maximize": True},
        ]),
        (optim.Adagrad, (0.003, 0.01, 0.03), [
            {}, {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "weight_decay": 0.1},
        ]),
        (optim.Adadelta, (0.1, 0.5, 1.0), [{}, {"rho": 0.8, "weight_decay": 0.1}]),
        (optim.Rprop, (0.001, 0.003, 0.01), [{}, {"etas": (0.4, 1.3), "step_sizes": (1e-5, 1.0)}]),
        (optim.ASGD, (0.001, 0.003, 0.01), [{}, {"lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1}]),
        (optim.Adafactor, (0.003, 0.01, 0.03), [{}]),
        (optim.LBFGS, (0.1, 0.3, 1.0), [{"max_iter": 3}]),
        (Signed, (0.003, 0.01, 0.03), [{}, {"memory": 0.9, "powers": (1,)}]),
    ]  # fmt: skip
    return [Case(cls, rates, s) for cls, rates, variants in table for s in variants]


CASES = _cases()
FIRST_CASES = list({case.optimizer: case for case in reversed(CASES)}.values())[::-1]
"""One case of each optimizer."""

NOT_STACKED: dict[type[optim.Optimizer], str] = {
    optim.Adafactor: "scales by rows and columns of a matrix, so it is not elementwise",
    optim.LBFGS: "evaluates the loss again and again along a line, each run as often as it needs",
    optim.Muon: "orthogonalises whole matrices",
    optim.SparseAdam: "takes sparse gradients",
    Signed: "is the user's own code",
}
"""Declared exceptions: what `stacked` does not serve, and why."""

MOVED_BY_LAST_BITS = {
    optim.LBFGS: "decides by comparing losses, so a last bit may change a step",
}


# -- problems ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Posed:
    """The same task twice: as a Problem, and as plain tensors for a loop of one's own."""

    problem: Problem
    parameters: Mapping[str, Tensor]
    loss: Callable[[Batch], Tensor]
    full_loss: Callable[[], Tensor]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


def table_rows(rows: int, inputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs (rows, inputs) and targets (rows, 1)."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, inputs, generator=generator, dtype=DOUBLE)
    y = torch.tanh(X.sum(1, keepdim=True)) + 0.1 * torch.randn(
        rows, 1, generator=generator, dtype=DOUBLE
    )
    return X, y


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module in float64 whose start depends on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(DOUBLE)


def posed_module(model: nn.Module, X: Tensor, y: Tensor, loss: Any, problem: Problem) -> Posed:
    """A module of one's own beside the problem made of its twin."""

    def batch_loss(rows: Batch) -> Tensor:
        return loss(model(X), y) if rows is None else loss(model(X[rows]), y[rows])

    def full_loss() -> Tensor:
        flags = [m.training for m in model.modules()]
        model.eval()
        with torch.no_grad():
            value = loss(model(X), y)
        for m, flag in zip(model.modules(), flags, strict=True):
            m.training = flag
        return value

    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return Posed(problem, named, batch_loss, full_loss, dict(model.named_buffers()))


class Unused(nn.Module):
    """One layer takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(3, 1), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def frozen() -> nn.Module:
    """The first layer is not descended."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    return model


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "tanh": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
    "batchnorm": lambda: nn.Sequential(
        # A bias here would have no gradient but rounding, which Adam and its kin would follow.
        nn.Linear(3, 4, bias=False),
        nn.BatchNorm1d(4),
        nn.Tanh(),
        nn.Linear(4, 1),
    ),
    "unused": Unused,
    "frozen": frozen,
    "tied": Tied,
}
PROBLEMS = ("function", "line", "tanh", "classes", "batchnorm", "unused", "frozen", "tied")
ROWS = 14


def bowl(x: Tensor, z: Tensor) -> Tensor:
    """A curved valley with its lowest point at x = 1, z = (1, 1)."""
    return (1 - x) ** 2 + 2 * ((z - x**2) ** 2).sum() + 0.1 * torch.cos(z).sum()


@cache
def problem_named(name: str) -> Problem:
    """A problem, made once."""
    if name == "function":
        start = {"x": torch.tensor(-0.5, dtype=DOUBLE), "z": torch.tensor([0.5, 2.0], dtype=DOUBLE)}
        return Problem.from_function(bowl, start=start)
    if name == "line":
        x, y = _line()
        start = {"w": torch.tensor(-1.0, dtype=DOUBLE), "b": torch.tensor(2.0, dtype=DOUBLE)}
        return Problem.from_function(
            lambda x, w, b: w * x + b, X=x, y=y, loss=nn.MSELoss(), start=start
        )
    model, X, y, loss = _parts(name)
    return Problem.from_model(model, X, y, loss=loss)


def posed(name: str) -> Posed:
    """A problem with fresh plain tensors beside it."""
    problem = problem_named(name)
    if name == "function":
        p = {
            "x": torch.tensor(-0.5, dtype=DOUBLE, requires_grad=True),
            "z": torch.tensor([0.5, 2.0], dtype=DOUBLE, requires_grad=True),
        }
        return Posed(problem, p, lambda rows: bowl(**p), lambda: bowl(**p).detach())
    if name == "line":
        x, y = _line()
        w = torch.tensor(-1.0, dtype=DOUBLE, requires_grad=True)
        b = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)

        def loss(rows: Batch) -> Tensor:
            chosen = torch.arange(len(x)) if rows is None else rows
            return ((w * x[chosen] + b - y[chosen]) ** 2).mean()

        return Posed(problem, {"w": w, "b": b}, loss, lambda: loss(None).detach())
    model, X, y, used = _parts(name)
    return posed_module(model, X, y, used, problem)


def _line() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-2, 2, ROWS, dtype=DOUBLE)
    return x, 3 * x + 1 + 0.1 * torch.sin(9 * x)


def _parts(name: str) -> tuple[nn.Module, Tensor, Tensor, Any]:
    X, y = table_rows(ROWS, 3)
    if name == "classes":
        model = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)))
        return model, X, (X[:, 0] > 0).long() + (X[:, 1] > 0).long(), nn.CrossEntropyLoss()
    return seeded(_MODULES[name]), X, y, nn.MSELoss()


# -- the plain loop ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ended:
    """Where a plain loop ended, and the batch's loss before each of its updates."""

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    batch_loss: list[float]
    full_loss: list[float]


def batches_of(
    rows: int, batch_size: int | None, order: str, seed: int, epochs: int, flipped: bool = False
) -> list[Batch]:
    """The row numbers of every update; `flipped` gives the same batches, last row first."""
    made: list[Batch] = []
    for epoch in range(epochs):
        numbers = epoch_order(order, rows, seed, epoch) if batch_size else np.arange(rows)
        size = batch_size or rows
        parts = [numbers[first : first + size] for first in range(0, rows, size)]
        made += [torch.from_numpy(part[::-1].copy() if flipped else part) for part in parts]
    return made


def plain(
    task: Posed,
    optimizer: type[optim.Optimizer] | Callable[[Sequence[Tensor]], optim.Optimizer],
    settings: Mapping[str, Any],
    batches: Iterable[Batch],
    *,
    clip_norm: float | None = None,
    scheduler: Callable[[optim.Optimizer], Any] | None = None,
    scheduler_every: int = 1,
    record_every: int = 0,
) -> Ended:
    """What a person writes: zero_grad, backward, step."""
    parameters = list(task.parameters.values())
    stepped = optimizer(parameters, **settings)
    scheduled = None if scheduler is None else scheduler(stepped)
    losses: list[float] = []
    full = [float(task.full_loss())]
    for update, rows in enumerate(batches, start=1):

        def closure(rows: Batch = rows) -> Tensor:
            stepped.zero_grad()
            loss = task.loss(rows)
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_norm)
            return loss

        losses.append(stepped.step(closure).item())
        if scheduled is not None and update % scheduler_every == 0:
            scheduled.step()
        if record_every and update % record_every == 0:
            full.append(float(task.full_loss()))
    return Ended(
        {n: p.detach().clone() for n, p in task.parameters.items()},
        {n: b.detach().clone() for n, b in task.buffers.items()},
        losses,
        full,
    )


def distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """The relative distance between two sets of named tensors, taken as one long vector."""
    a = torch.cat([left[name].detach().to(DOUBLE).reshape(-1) for name in right])
    b = torch.cat([value.detach().to(DOUBLE).reshape(-1) for value in right.values()])
    assert torch.isfinite(b).all(), "the reference itself is not finite"
    return float((a - b).norm() / b.norm())


def assert_agrees(
    found: Mapping[str, Tensor], wanted: Ended, permuted: Callable[[], Ended], what: str = ""
) -> None:
    """Within 1e-9, or ten times what merely permuting the samples changes."""
    off = distance(found, wanted.parameters)
    if off > 1e-9:
        allowed = 10 * distance(permuted().parameters, wanted.parameters)
        assert off <= allowed, f"{what} is off by {off:.3g}; permuting allows {allowed:.3g}"


def one_in_three(lefts, rights):
    """All pairs as pytest's parameters, one in three of them by default: each of `lefts` meets some
    of `rights` and the other way round. The others are slow."""
    return [
        pytest.param(left, right, marks=[] if (i + j) % 3 == 0 else [pytest.mark.slow])
        for i, left in enumerate(lefts)
        for j, right in enumerate(rights)
    ]
