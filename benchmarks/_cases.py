"""What is compared with JAX: problems, settings, and how JAX is to write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn, optim

import downslope as ds
from downslope.sampling import epoch_order


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        jax: the name of the program in `_jax_side` and what it takes before the number of steps.
        inputs: (writing) -> JAX's per-run inputs, cut into chunks along their first axis.
        shared: what all of JAX's runs share.
        goal: how many times faster than JAX.
        loop_goal: how many times faster per run than the plain torch loop, where that is measured.
        multiply_adds: of all updates, forward and backward; 0: not counted.
        also: writings that are measured by themselves, and not judged.
        across: whether JAX's losses are (seeds, rates): turned, they are in our order.
    """

    number: int
    title: str
    problem: ds.Problem
    optimizer: type[optim.Optimizer]
    settings: dict[str, Any]
    steps: int
    runs: int
    jax: tuple[str, Sequence[Any]]
    inputs: Callable[[str], tuple[Any, ...]]
    shared: tuple[Any, ...]
    writings: tuple[str, ...]
    goal: float
    unrolls: tuple[int, ...] = (1,)
    loop_goal: float = 0.0
    multiply_adds: float = 0.0
    also: tuple[str, ...] = ()
    across: bool = False
    model: Callable[[], nn.Module] | None = field(default=None, repr=False)
    data: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    def ours(self, engine: str) -> ds.Runs:
        """The whole call. Only start and end are recorded, so that neither side pays for more."""
        return ds.descend(
            self.problem, self.optimizer, steps=self.steps, every=self.steps, keep=("loss",),
            engine=engine, progress=False, **self.settings,
        )  # fmt: skip

    def torch_loop(self, steps: int) -> float:
        """The plain loop of one run, full batch, one rate; returns its final loss."""
        assert self.model is not None
        model, (X, y), loss_of = self.model(), self.data, nn.MSELoss()
        optimizer = self.optimizer(model.parameters(), lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = loss_of(model(X), y)
            loss.backward()
            optimizer.step()
        return loss_of(model(X), y).item()


def net(activation: type[nn.Module], *sizes: int) -> nn.Sequential:
    """Layers of these sizes, drawn from a fixed seed, with an activation between them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), activation()]
        return nn.Sequential(*layers[:-1])


def rows(count: int, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs between -1 and 1, (count, features), and a wave of their sum, (count, 1)."""
    generator = torch.Generator().manual_seed(1)
    X = torch.rand(count, features, generator=generator) * 2 - 1
    return X, (3 * X.sum(1, keepdim=True)).sin()


def layers_of(model: nn.Sequential) -> list[tuple[Any, Any]]:
    """Weights (out, in) and biases as arrays."""
    linear = [part for part in model if isinstance(part, nn.Linear)]
    return [(one.weight.detach().numpy(), one.bias.detach().numpy()) for one in linear]


WRITINGS = ("x @ w", "x @ w.T", "w @ x")
"""Ways to write a layer in JAX: weights (in, out) or (out, in), samples in rows or in columns."""


def _rates(values: Sequence[float]) -> Callable[[str], tuple[Any, ...]]:
    given = (np.asarray(values, dtype=np.float32),)
    return lambda writing: given


def _full_batch(
    number: int, title: str, activation: type[nn.Module], sizes: tuple[int, ...], count: int,
    rates: Sequence[float], steps: int, **more: Any,
) -> Case:  # fmt: skip
    model, data = net(activation, *sizes), rows(count, sizes[0])
    settings = {"batch_size": "full", "lr": rates if len(rates) > 1 else rates[0]}
    arguments = {"inputs": _rates(rates), "runs": len(rates), "settings": settings, **more}
    return Case(
        number=number, title=title, steps=steps, optimizer=optim.SGD,
        problem=ds.Problem.from_model(model, *data, loss=nn.MSELoss()),
        jax=("full_batch", (activation.__name__.lower(),)), writings=WRITINGS, also=("x @ w",),
        shared=(layers_of(model), *(each.numpy() for each in data)),
        model=lambda: net(activation, *sizes), data=data, **arguments,
    )  # fmt: skip


def relu_net(quick: bool) -> Case:
    """1: the tutorials' 1-10-1 net."""
    runs, steps = (64, 200) if quick else (1024, 2000)
    return _full_batch(
        1, f"1-10-1 ReLU, 200 points, full batch, SGD, {runs:,} rates, {steps:,} steps", nn.ReLU,
        (1, 10, 1), 200, ds.log_range(1e-4, 0.1, runs), steps, goal=15.0, loop_goal=800.0,
    )  # fmt: skip


def tanh_net(quick: bool) -> Case:
    """2: few points, many rates."""
    runs, steps = (256, 200) if quick else (4096, 2000)
    return _full_batch(
        2, f"1-16-1 tanh, 32 points, full batch, SGD, {runs:,} rates, {steps:,} steps", nn.Tanh,
        (1, 16, 1), 32, ds.log_range(1e-4, 0.1, runs), steps, goal=6.0,
    )  # fmt: skip


def two_rates(quick: bool) -> Case:
    """3: a rate for each layer; mostly multiplications and additions."""
    side, steps = (16, 20) if quick else (64, 100)
    rates = ds.log_range(1e-4, 0.1, side)
    first, second = np.meshgrid(np.float32(rates), np.float32(rates), indexing="ij")
    forward, backward = 16 * 16 + 16, 16 * 16 + 16 + 16
    return _full_batch(
        3, f"16-16-1 tanh, 272 points, full batch, SGD, {side}×{side} rates, {steps} steps",
        nn.Tanh, (16, 16, 1), 272, rates, steps, goal=3.0, runs=side * side,
        settings={"batch_size": "full", "lr": {"0.*": rates, "2.*": rates}},
        inputs=lambda writing: (first.ravel(), second.ravel()),
        multiply_adds=float((forward + backward) * 272 * side * side * steps),
    )  # fmt: skip


def adam_net(quick: bool) -> Case:
    """4: Adam on shuffled batches; JAX is given the orders."""
    runs, steps = (128, 80) if quick else (2048, 1000)
    model, data = net(nn.GELU, 3, 20, 5, 1), rows(200, 3)
    rates = ds.log_range(1e-5, 1e-2, runs)
    order = np.stack([epoch_order("shuffle", 200, 0, epoch) for epoch in range(steps // 8)])
    return Case(
        number=4,
        title=f"3-20-5-1 GELU, 200 points, batch 25, Adam, {runs:,} rates, {steps:,} steps",
        problem=ds.Problem.from_model(model, *data, loss=nn.MSELoss()), optimizer=optim.Adam,
        settings={"lr": rates, "batch_size": 25}, steps=steps, runs=runs, goal=3.0,
        jax=("adam", ("gelu",)), inputs=_rates(rates), writings=WRITINGS, also=("x @ w",),
        shared=(
            layers_of(model), *(each.numpy() for each in data),
            order.reshape(-1, 25).astype(np.int32),
        ),
    )  # fmt: skip


def _line() -> tuple[ds.Problem, tuple[Any, ...]]:
    """The tutorials' straight line, from their start; and JAX's (start, X, y)."""
    X = torch.arange(-5, 5, 0.1)
    y = -5 * X + 0.4 * torch.randn(100, generator=torch.Generator().manual_seed(2))
    problem = ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=X, y=y, loss=nn.MSELoss(), start={"w": -10.0, "b": -20.0}
    )
    return problem, ((np.float32(-10), np.float32(-20)), X.numpy(), y.numpy())


def line_one_by_one(quick: bool, runs: int | None = None) -> Case:
    """5: a million rates of the straight line, a sample a step."""
    count, steps = (10_000, 200) if quick else (1_000_000, 2000)
    runs = runs or count
    problem, shared = _line()
    rates = ds.log_range(1e-6, 0.02, runs)
    return Case(
        number=5, title=f"straight line, one sample a step, {runs:,} rates, {steps:,} steps",
        problem=problem, optimizer=optim.SGD, steps=steps, runs=runs, goal=6.0,
        settings={"lr": rates, "batch_size": 1, "order": "cyclic"}, unrolls=(1, 4),
        jax=("line_one_by_one", ()), inputs=_rates(rates), shared=shared, writings=("w * x + b",),
    )  # fmt: skip


def line_shuffled(quick: bool) -> Case:
    """6: rates and seeds; JAX is given the orders, made outside its time, or draws its own."""
    seeds, steps = (64, 200) if quick else (1024, 2000)
    problem, shared = _line()
    rates = ds.log_range(1e-4, 0.02, 8)
    orders = np.stack(
        [
            [epoch_order("shuffle", 100, seed, epoch) for epoch in range(steps // 10)]
            for seed in range(seeds)
        ]
    ).astype(np.int32)

    def inputs(writing: str) -> tuple[Any, ...]:
        if writing != "own permutations":
            return (orders,)
        import jax

        return (np.asarray(jax.random.split(jax.random.PRNGKey(0), seeds)),)

    return Case(
        number=6,
        title=f"straight line, shuffled, batch 10, 8 rates × {seeds:,} seeds, {steps:,} steps",
        problem=problem, optimizer=optim.SGD, steps=steps, runs=8 * seeds, goal=4.0,
        settings={"lr": rates, "batch_size": 10, "seed": range(seeds)}, across=True,
        jax=("line_shuffled", ()), inputs=inputs, unrolls=(1, 10),
        shared=(*shared, np.float32(rates), np.zeros(10, dtype=np.float32)),
        writings=("own permutations",), also=("orders given",),
    )  # fmt: skip


def one_run(quick: bool) -> Case:
    """7: a single run."""
    steps = 5000 if quick else 300_000
    return _full_batch(
        7, f"1-10-1 ReLU, 200 points, full batch, SGD, one run, {steps:,} steps", nn.ReLU,
        (1, 10, 1), 200, [0.01], steps, goal=3.0, loop_goal=100.0, unrolls=(1, 4),
    )  # fmt: skip


BESIDE_JAX: dict[int, Callable[[bool], Case]] = {
    1: relu_net,
    2: tanh_net,
    3: two_rates,
    4: adam_net,
    5: line_one_by_one,
    6: line_shuffled,
    7: one_run,
}
