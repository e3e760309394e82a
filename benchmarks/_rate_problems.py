"""Small problems by a rule: kind × condition × optimizer × seed, and an ordinary loop for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn, optim

import downslope as ds

ROWS, FEATURES, HIDDEN = 512, 10, 16
NOISE = 0.1
BATCH, STEPS = 32, 300
KINDS = ("linear", "logistic", "tanh")
CONDITIONS = (1, 30, 1000)
OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9}),
    "Adam": (optim.Adam, {}),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One problem with one optimizer.

    Attributes:
        X, y: (rows, features) and (rows, 1).
        model: where every training starts; not to be changed.
    """

    kind: str
    condition: int
    method: str
    seed: int
    X: Tensor
    y: Tensor
    model: nn.Module
    loss: nn.Module

    @property
    def optimizer(self) -> type[optim.Optimizer]:
        return OPTIMIZERS[self.method][0]

    @property
    def settings(self) -> dict[str, Any]:
        return OPTIMIZERS[self.method][1]

    @cached_property
    def problem(self) -> ds.Problem:
        return ds.Problem.from_model(self.model, self.X, self.y, loss=self.loss)

    def fresh(self) -> tuple[nn.Module, optim.Optimizer]:
        """A model at the start, and its optimizer at rate 1e-3."""
        model = made(self.kind)
        model.load_state_dict(self.model.state_dict())
        return model, self.optimizer(model.parameters(), lr=1e-3, **self.settings)


def cases(seeds: int, spread: float = NOISE) -> Iterator[Case]:
    """All kinds, conditions and optimizers, `seeds` times each: 27 × seeds."""
    for kind, condition, seed in product(KINDS, CONDITIONS, range(seeds)):
        X, y, model, loss = drawn(kind, condition, seed, spread)
        for method in OPTIMIZERS:
            yield Case(kind, condition, method, seed, X, y, model, loss)


def drawn(
    kind: str, condition: int, seed: int, spread: float = NOISE
) -> tuple[Tensor, Tensor, nn.Module, nn.Module]:
    """Rows, targets, start and loss.

    The second moments of the features have the eigenvalues 1 … 1 / condition, evenly spaced in
    their logarithm, along axes turned at random. Noise of this spread (the labels' own chance in
    the logistic problems) keeps the least loss above zero.
    """
    number = 1000 * (1 + KINDS.index(kind)) + 10 * CONDITIONS.index(condition) + 100 * seed
    generator = torch.Generator().manual_seed(number)
    scales = torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item() / 2, FEATURES)
    turned = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator))[0]
    X = torch.randn(ROWS, FEATURES, generator=generator) * scales @ turned
    weights = torch.randn(FEATURES, 1, generator=generator)
    noise = torch.randn(ROWS, 1, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        model = made(kind)
    if kind == "linear":
        return X, X @ weights + spread * noise, model, nn.MSELoss()
    if kind == "logistic":
        chance = torch.sigmoid(3 * X @ weights / (X @ weights).std())
        return X, torch.bernoulli(chance, generator=generator), model, nn.BCEWithLogitsLoss()
    inner = torch.randn(FEATURES, 5, generator=generator)
    outer = torch.randn(5, 1, generator=generator)
    return X, torch.tanh(X @ inner) @ outer + spread * noise, model, nn.MSELoss()


def made(kind: str) -> nn.Module:
    """A model of this kind, drawn from torch's global random state."""
    if kind == "tanh":
        return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    return nn.Linear(FEATURES, 1)


def train(case: Case, rate: float, orders: Iterator[Tensor]) -> float:
    """The usual loop: the loss over all rows after `STEPS` updates; inf where it is no number.

    Args:
        orders: for each epoch, the order of the rows.
    """
    model, optimizer = case.fresh()
    optimizer.param_groups[0]["lr"] = rate
    done = 0
    for order in orders:
        for chosen in order.split(BATCH):
            optimizer.zero_grad()
            case.loss(model(case.X[chosen]), case.y[chosen]).backward()
            optimizer.step()
            done += 1
            if done == STEPS:
                with torch.no_grad():
                    final = float(case.loss(model(case.X), case.y))
                return final if final == final else float("inf")
    raise AssertionError("the orders end before the training")


def own_shuffling(seed: int) -> Iterator[Tensor]:
    """A new permutation every epoch, by torch's own generator."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(ROWS, generator=generator)
