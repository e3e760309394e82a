"""What joins a batch's samples otherwise than in a sum is seen, though values do not show it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from beside import assert_as_looped, assert_refused
from cases import DOUBLE, seeded, table_rows
from torch import Tensor, nn
from torch.nn import functional as F

from downslope import Problem

X, Y = table_rows(23, 3)
ASKED = {"lr": [0.01, 0.05], "steps": 12, "batch_size": ["full", 4]}


def line() -> nn.Module:
    return seeded(lambda: nn.Linear(3, 1))


# Far from zero where the trials are: none of these shows there.
COUPLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flooding": lambda made, y: (F.mse_loss(made, y + 9) - 0.1).abs() + 0.1,
    "a bound": lambda made, y: F.mse_loss(made, y + 9).clamp(min=0.1),
    "the smaller": lambda made, y: torch.minimum(F.mse_loss(made, y), torch.tensor(1e9)),
    "a hinge": lambda made, y: F.mse_loss(made, y) + torch.relu(made.mean() - 1e3),
    "a choice": lambda made, y: torch.where(made.mean() < 1e3, 1.0, 2.0) * F.mse_loss(made, y),
    "a step": lambda made, y: F.mse_loss(made, y) * (1 + torch.floor(made.abs().sum() * 1e-6)),
    "whole numbers": lambda made, y: F.mse_loss(made, y) * (1 + (made.sum() * 1e-6).int()),
    "neighbours": lambda made, y: F.mse_loss(made, y) + torch.relu(made[1:] - made[:1] - 99).sum(),
}


@pytest.mark.parametrize("as_loss", [True, False])
@pytest.mark.parametrize("name", COUPLED)
def test_coupled(name, as_loss):
    loss = COUPLED[name]
    if as_loss:
        problem = Problem.from_model(line(), X, Y, loss=loss)
    else:
        objective = lambda m, x, y: loss(m(x), y)  # noqa: E731
        problem = Problem.from_model(line(), X, Y, objective=objective)
    assert_refused(problem, "couples the samples of a batch")


def test_coupled_in_a_gradient_by_hand():
    def gradient(x: Tensor, y: Tensor, w: Tensor) -> dict[str, Tensor]:
        return {"w": (2 * x.T @ (x @ w - y) / len(x)).clamp(-1e6, 1e6)}

    start = {"w": torch.ones(3, 1, dtype=DOUBLE)}
    problem = Problem.from_function(lambda x, w: x @ w, X, Y, start=start, loss=nn.MSELoss())
    assert_refused(problem, "couples the samples of a batch", gradient=gradient)


class Attentive(nn.Module):
    """Three tokens a row, each looking at the others."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(1, 4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.wide(x[..., None])
        weights = torch.softmax(tokens @ tokens.transpose(-1, -2), -1)
        return self.out(self.norm(weights @ tokens).mean(-2))


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.filters(x[:, None]).flatten(1).amax(1, keepdim=True)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 2)
        for token in x.unbind(1):
            state = torch.tanh(self.cell(torch.cat([token[:, None], state], 1)))
        return state.sum(1, keepdim=True)


class Chosen(nn.Module):
    """A row of a table for each sample, and one of its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 3)
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        place = (x[:, 0] > 0).long()
        return (self.table(place) + self.shift[[2, 0, 1]]).gather(1, place[:, None])


@pytest.mark.parametrize("kind", [Attentive, Convolved, Recurrent, Chosen])
def test_apart_in_a_model(kind):
    problem = Problem.from_model(seeded(kind), X, Y, loss=nn.MSELoss())
    assert_as_looped(problem, **ASKED)


class HalfFrozen(nn.Module):
    """Statistics that were gathered before, in a model of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.line = nn.Linear(3, 1)
        self.norm(X.to(self.line.weight.dtype))
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(torch.tanh(self.line(self.norm(x)))))


def test_a_part_that_was_set_to_evaluation_stays_so():
    problem = Problem.from_model(seeded(HalfFrozen), X, Y, loss=nn.MSELoss())
    assert_as_looped(problem, **ASKED)


APART: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "a penalty": lambda m, x, y: F.mse_loss(m(x), y) + 0.1 * (m.weight**2).sum().sqrt(),
    "a factor": lambda m, x, y: F.mse_loss(m(x), y) * torch.exp(m.bias).sum(),
    "a quotient": lambda m, x, y: F.mse_loss(m(x), y) / (1 + m.bias.exp()).sum(),
    "products of matrices": lambda m, x, y: torch.einsum("ni,ji->nj", x, m.weight).cosh().mean(),
    "a norm of each": lambda m, x, y: (m(x) - y).norm(dim=1).mean(),
    "counted": lambda m, x, y: F.cross_entropy(
        torch.cat([m(x), -m(x)], 1), (y[:, 0] > 0).long(), reduction="mean"
    ),
    "the largest of each": lambda m, x, y: (x * m.weight).amax(1).mean(),
    "one or the other": lambda m, x, y: torch.where(y > 0, m(x), m(x) ** 2).mean(),
    "sums of parts": lambda m, x, y: (m(x) ** 2).mean() + F.huber_loss(m(x), y) - 0.5 * y.mean(),
}


@pytest.mark.parametrize("name", APART)
def test_apart_in_an_objective(name):
    problem = Problem.from_model(line(), X, Y, objective=APART[name])
    assert_as_looped(problem, **ASKED)


def test_a_mean_of_the_data_counts_as_a_constant_and_is_tried_out():
    shifted = lambda m, x, y: ((m(x - x.mean(0)) - y) ** 2).mean()  # noqa: E731
    problem = Problem.from_model(line(), X, Y, objective=shifted)
    assert_refused(problem, "couples the samples of a batch")


def test_the_first_layer_s_dtype_does_not_matter():
    model = seeded(lambda: nn.Linear(3, 1))
    objective = lambda m, x, y: F.mse_loss(m(x).to(DOUBLE), y.to(DOUBLE))  # noqa: E731
    assert_as_looped(Problem.from_model(model, X, Y, objective=objective), **ASKED)
