"""Losses that cannot be taken apart into samples: found out, said, and left to other engines."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from beside import assert_as_looped, assert_refused
from cases import DOUBLE, problem_named, seeded, table_rows
from torch import Tensor, nn

from downslope import Problem, descend

ROWS = 200
X, Y = table_rows(ROWS, 3)
FEW, FEW_Y = table_rows(14, 3)
COUPLED = "couples the samples of a batch"


def line(outputs: int = 1) -> nn.Module:
    return seeded(lambda: nn.Linear(3, outputs))


def classes(rare: int | None = None) -> Tensor:
    """Three classes; or two, and a single row of another kind."""
    made = torch.randint(3, (ROWS,), generator=torch.Generator().manual_seed(0))
    if rare is not None:
        made[made == 2] = 0
        made[150] = rare
    return made


def squares(p: Tensor, t: Tensor) -> Tensor:
    return ((p - t) ** 2).mean()


def contrastive(p: Tensor, t: Tensor) -> Tensor:
    near = torch.cdist(t, t) < 0.5
    return torch.where(near, (p - p.T) ** 2, F.relu(1 - (p - p.T).abs()) ** 2).mean()


COUPLINGS = {
    "root of the mean": lambda p, t: squares(p, t).sqrt(),
    "variance": lambda p, t: squares(p, t) + p.var(correction=0),
    "largest": lambda p, t: ((p - t) ** 2).max(),
    "correlation": lambda p, t: -F.cosine_similarity(p.flatten(), t.flatten(), dim=0),
    "paired by rank": lambda p, t: squares(p.sort(0).values, t.sort(0).values),
    "contrastive": contrastive,
    "batch softmax": lambda p, t: squares(p.softmax(0) * len(p), t),
    "clamped mean": lambda p, t: squares(p, t).clamp(min=0.9),
    "by its length": lambda p, t: squares(p, t) * (2 if len(p) > 5 else 1),
    "by half its length": lambda p, t: squares(p, t) * len(p) ** 0.5,
    "a constant of the batch": lambda p, t: squares(p, t) + t.mean() ** 2,
    "the last row": lambda p, t: squares(p, t) + 0.1 * p[-1].sum() / len(p),
    "not a sum": lambda p, t: ((p - t) ** 2).sum() / 100 + 0.1 * p.sum() ** 2 / len(p),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_loss_of_the_whole_batch(name):
    problem = Problem.from_model(line(), FEW, FEW_Y, loss=COUPLINGS[name])
    assert_refused(problem, COUPLED)


def test_a_sum_and_a_penalty():
    """Neither the mean nor the sum of single losses: those count the penalty for each sample."""
    penalty = lambda m, x, t: ((m(x) - t) ** 2).sum() + sum((p**2).sum() for p in m.parameters())  # noqa: E731
    assert_refused(Problem.from_model(line(), FEW, FEW_Y, objective=penalty), COUPLED, lr=[1e-4])


@pytest.mark.parametrize("rare", [None, 2])
def test_cross_entropy_with_weights_of_classes(rare):
    weight = torch.tensor([1.0, 1.0, 9.0], dtype=DOUBLE)
    problem = Problem.from_model(line(3), X, classes(rare), loss=nn.CrossEntropyLoss(weight=weight))
    assert_refused(problem, COUPLED)
    total = nn.CrossEntropyLoss(weight=weight, reduction="sum")
    problem = Problem.from_model(line(3), X, classes(rare), loss=total)
    assert_as_looped(problem, lr=[1e-4, 2e-4], steps=20)


@pytest.mark.parametrize("rows", [3, ROWS])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_cross_entropy_with_rows_that_do_not_count(ignored, rows):
    """Often or once in two hundred; a single row that does not count has no loss at all."""
    y = classes(ignored)[-rows:] if rows < ROWS else classes(ignored)
    y[0] = ignored
    mean = nn.CrossEntropyLoss(ignore_index=ignored)
    assert_refused(Problem.from_model(line(3), X[-rows:], y, loss=mean), COUPLED)
    total = nn.CrossEntropyLoss(ignore_index=ignored, reduction="sum")
    problem = Problem.from_model(line(3), X[-rows:], y, loss=total)
    assert_as_looped(problem, lr=[1e-4, 2e-4], steps=20, batch_size=["full", 2])


def test_rows_that_are_masked_where_a_number_is_missing():
    y = Y.clone()
    y[77] = torch.nan

    def known(p: Tensor, t: Tensor) -> Tensor:
        there = ~t.isnan()
        return (torch.where(there, p - t, 0.0) ** 2).sum() / there.sum()

    assert_refused(Problem.from_model(line(), X, y, loss=known), COUPLED)


def test_a_rare_class_among_many_rows():
    """The one row of its kind among 50,000 is among those that are tried."""
    X, _ = table_rows(50_000, 3)
    y = (X[:, 0] > 0).long()
    y[31_337] = 2
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 9.0], dtype=DOUBLE))
    problem = Problem.from_model(line(3), X, y, loss=loss)
    assert_refused(problem, COUPLED, batch_size=1000)


NORMS = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "without statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False),
}


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm(name):
    make = lambda: nn.Sequential(nn.Linear(3, 4), NORMS[name](), nn.Linear(4, 1))  # noqa: E731
    problem = Problem.from_model(seeded(make), FEW, FEW_Y, loss=nn.MSELoss())
    assert_refused(problem, "single sample cannot be a batch", batch_size=7)


class Gathering(nn.Module):
    """Centred by a running mean, which a single sample moves too."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.line(x - self.mean)


def test_a_layer_that_gathers_statistics():
    problem = Problem.from_model(seeded(Gathering), FEW, FEW_Y, loss=nn.MSELoss())
    assert_refused(problem, "gathers statistics")
    norm = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2).to(DOUBLE))
    problem = Problem.from_model(norm, FEW, FEW_Y[:, [0, 0]], loss=nn.MSELoss())
    assert_refused(problem, "gathers statistics", lr=[0.01])


def test_dropout():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
    problem = Problem.from_model(model, FEW, FEW_Y, loss=nn.MSELoss())
    assert_refused(problem, "random numbers")


UNCOUPLED = {
    "sum": lambda m, x, t: ((m(x) - t) ** 2).sum(),
    "divided by a constant": lambda m, x, t: ((m(x) - t) ** 2).sum() / 100,
    "divided by the length": lambda m, x, t: ((m(x) - t) ** 2).sum() / len(x),
    "penalty": lambda m, x, t: squares(m(x), t) + 0.1 * sum((p**2).sum() for p in m.parameters()),
    "lasso": lambda m, x, t: squares(m(x), t) + 0.1 * m.weight.abs().sum() + m.bias.exp().sum(),
    "weights of rows": lambda m, x, t: ((1 + x[:, :1] ** 2) * (m(x) - t) ** 2).mean(),
    "physics": lambda m, x, t: squares(m(x), t) + (m(2 * x) - 2 * m(x)).pow(2).mean(),
}


@pytest.mark.parametrize("name", UNCOUPLED)
def test_what_is_no_coupling(name):
    problem = Problem.from_model(line(), FEW, FEW_Y, objective=UNCOUPLED[name])
    assert_as_looped(problem, lr=[0.001, 0.002], steps=15, batch_size=["full", 5, 1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_starts_that_prove_nothing(reduction):
    """No gradient where it starts, nor anywhere near; a sum is not taken for a mean."""
    dead = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)).to(DOUBLE)
    with torch.no_grad():
        dead[0].bias.fill_(-1e3)
    zero = nn.Linear(3, 1, bias=False).to(DOUBLE)
    nn.init.zeros_(zero.weight)
    for model in (dead, zero):
        problem = Problem.from_model(
            model, FEW, 0 * FEW_Y + 1, loss=nn.MSELoss(reduction=reduction)
        )
        asked = {"lr": [0.001, 0.002], "steps": 10, "batch_size": ["full", 4]}
        assert_as_looped(problem, weight_decay=0.1, **asked)


class Moody(nn.Module):
    """In training its prediction is doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (2.0 if self.training else 1.0)


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 1))
    model.register_forward_hook(lambda m, given, made: made * (2.0 if m.training else 1.0))
    return model


@pytest.mark.parametrize("runs", [1, 5])
def test_losses_that_differ_in_evaluation_mode(runs):
    asked = {
        "lr": [0.01, 0.02, 0.03, 0.04, 0.05][:runs],
        "steps": 12,
        "keep": ("loss", "batch_loss"),
    }
    by_mode = lambda m, x, t: squares(m(x), t) * (2.0 if m.training else 1.0)  # noqa: E731
    for problem in (
        Problem.from_model(seeded(Moody), FEW, FEW_Y, loss=nn.MSELoss()),
        Problem.from_model(seeded(_hooked), FEW, FEW_Y, loss=nn.MSELoss()),
        Problem.from_model(line(), FEW, FEW_Y, objective=by_mode),
    ):
        assert_as_looped(problem, batch_size=["full", 5, 1], validation=(FEW, FEW_Y), **asked)


def test_auto_takes_it_where_it_serves_and_another_where_it_does_not(monkeypatch):
    monkeypatch.setattr("downslope.plan.FEW_UPDATES", 40)
    asked = {"lr": [0.01] * 5, "progress": False}
    assert set(descend(problem_named("line"), steps=8, **asked).table["engine"]) == {"fused"}
    assert set(descend(problem_named("line"), steps=7, **asked).table["engine"]) == {"stacked"}
    coupled = descend(problem_named("batchnorm"), steps=8, **asked)
    assert set(coupled.table["engine"]) == {"stacked"}
    assert "single sample cannot be a batch" in coupled.plan.reasons[0]
