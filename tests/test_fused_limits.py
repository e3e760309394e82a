"""What cannot fit, or can hardly be computed: refused with numbers, or as `looped` has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beside import ALL_KEPT, assert_as_looped, assert_refused, assert_same_bits, fused
from cases import DOUBLE, seeded, table_rows
from torch import nn, optim

from downslope import InputError, Problem, descend
from downslope.engines.fused import run as fused_run
from downslope.engines.fused import serve
from downslope.errors import DownslopeError

X, Y = table_rows(14, 3)


def line(X: torch.Tensor = X, y: torch.Tensor = Y, model: nn.Module | None = None) -> Problem:
    model = model or seeded(lambda: nn.Linear(X.shape[1], y.shape[1]))
    return Problem.from_model(model, X, y, loss=nn.MSELoss())


# -- memory ------------------------------------------------------------------------------------

TOO_MUCH = {
    "every loss": {"every": "step", "steps": 10**6, "lr": [0.01] * 1000},
    "every batch": {"keep": "batch_loss", "steps": 10**6, "lr": [0.01] * 1000},
    "every place": {"keep": "parameters", "every": "step", "steps": 10**5, "lr": [0.01] * 2000},
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_records_that_cannot_fit_are_refused_before_anything_is_made(name, monkeypatch):
    monkeypatch.setattr(fused_run, "room", None)
    with pytest.raises(InputError, match=r"\d GiB.*every=.*keep less.*fewer runs") as raised:
        fused(line(), **TOO_MUCH[name])
    assert "\n" not in str(raised.value)


def test_orders_of_many_seeds_take_no_more_than_a_chunk_may(monkeypatch):
    """500 seeds of 20,000 rows would be 40 MB at once; their runs are as they are by themselves."""
    X, y = table_rows(20_000, 2)
    problem, asked = line(X, y), {"lr": 1e-3, "batch_size": 2000, "steps": 12}
    few = fused(problem, seed=[499, 5, 1, 2, 3], **asked)
    made: list[int] = []
    room = fused_run.room

    def watched(shape, dtype, *rest):
        made.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return room(shape, dtype, *rest)

    monkeypatch.setattr(fused_run, "room", watched)
    monkeypatch.setattr(fused_run, "_ORDERS_BYTES", 2**23)
    monkeypatch.setattr(serve, "_BYTES", 2**23)
    runs = fused(problem, seed=range(500), **asked)
    assert max(made) <= 2**24 and len(runs.plan.chunks) > 1
    for k, seed in ((0, 499), (1, 5)):
        assert_same_bits(few, k, runs, seed)


# -- extreme numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(bad):
    """In a row, a target, a validation row, a start."""
    asked = {"lr": [0.01] * 5, "steps": 9, "batch_size": ["full", 4, 1], "keep": ALL_KEPT}
    X_bad, Y_bad = X.clone(), Y.clone()
    X_bad[7, 1] = Y_bad[7] = bad
    assert_as_looped(line(X_bad, Y), **asked)
    runs = assert_as_looped(line(X, Y_bad), **asked)
    assert runs.diverged.all()
    assert_as_looped(line(), validation=(X_bad, Y), patience=2, **asked)
    assert_as_looped(line(), start={"bias": [bad]}, **asked)


class Unused(nn.Module):
    """A parameter that no loss depends on."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.rest = nn.Parameter(torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


def test_a_number_that_is_none_in_what_the_loss_does_not_use():
    assert_as_looped(line(model=Unused(1.0).double()), lr=[0.01] * 5, steps=3)
    problem = line(model=Unused(float("nan")).double())
    assert_refused(problem, "does not use 'rest'")
    problem = line(model=Unused(1.0).double())
    assert_refused(problem, "does not use 'rest'", start={"rest": float("inf")})


def test_indices_of_validation_rows_that_point_nowhere():
    classes = torch.arange(14) % 3
    problem = Problem.from_model(seeded(lambda: nn.Linear(3, 3)), X, classes, loss="cross_entropy")
    fused(problem, lr=0.1, steps=3, validation=(X, classes))
    for engine in ("fused", "auto"):
        with pytest.raises(DownslopeError, match="Target 5 is out of bounds"):
            descend(problem, "SGD", lr=0.1, steps=3, validation=(X, classes + 5), engine=engine)


def test_products_of_whole_numbers_are_not_compiled():
    places = torch.arange(9).reshape(3, 3)
    problem = Problem.from_function(lambda w: (w @ (places @ places).double()).sum() + (w**2).sum(),
                                    start=torch.ones(3, dtype=DOUBLE))  # fmt: skip
    assert_refused(problem, "a product of matrices of whole numbers is not compiled")


def test_the_smallest_numbers():
    asked = {"steps": 20, "keep": ALL_KEPT, "divergence": None}
    flat = Problem.from_function(lambda w: (w**2).sum() * 1e-310, start=torch.ones(2).double())
    assert_as_looped(flat, lr=[1.0, 1e300, 1e308], **asked)
    tiny = torch.tensor([1e-160, 5e-324, -0.0, 1.0], dtype=DOUBLE)
    bowl = Problem.from_function(lambda w: (w**2).sum(), start=tiny)
    assert_as_looped(bowl, lr=[0.1, 0.3], **asked)
    single = Problem.from_function(lambda w: (w**2).sum(), start=tiny.float())
    assert_as_looped(single, within=1e-6, lr=[0.1, 0.3], **asked)


@pytest.mark.parametrize(
    "optimizer",
    [optim.Adam, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Rprop, optim.NAdam,
     optim.Adamax, optim.RAdam, optim.ASGD],
)  # fmt: skip
def test_gradients_of_nothing_and_rates_beyond_reason(optimizer):
    start = torch.tensor([1e-160, 1.0, 0.0], dtype=DOUBLE)
    bowl = Problem.from_function(lambda w: (w**2).sum(), start=start)
    assert_as_looped(bowl, optimizer, lr=[0.01, 1e30], steps=20, keep=ALL_KEPT)


@pytest.mark.parametrize("scale", [1e-160, 1e100, 1e150])
def test_data_of_every_size(scale):
    problem = line(X * scale, Y * scale)
    rates = [0.01, 1e-3 / scale / scale if scale > 1 else 0.1]
    assert_as_looped(problem, lr=rates, steps=20, batch_size=["full", 5], within=1e-8)


# -- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 5])
def test_a_single_row(runs):
    orders = ["shuffle", "replacement", "cyclic"]
    asked = {"lr": [0.01] * runs, "steps": 10, "order": orders, "batch_size": ["full", 1, 3]}
    assert_as_looped(line(X[:1], Y[:1]), keep=ALL_KEPT, **asked)
    total = Problem.from_model(
        line().template.model, X[:1], Y[:1], loss=nn.MSELoss(reduction="sum")
    )
    assert_as_looped(total, **asked)


@pytest.mark.parametrize("rows", [15, 16, 17, 2049, 2051])
def test_numbers_of_rows_around_what_is_done_at_once(rows):
    """Vectors of samples, blocks of four, parts of 512, sums in parts from 2,048 on."""
    X, y = table_rows(rows, 2)
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
    for runs in (1, 5):
        assert_as_looped(
            line(X, y, model), lr=[0.01] * runs, steps=3, batch_size=["full", rows - 1]
        )


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 5), (40, 9), (300, 1), (3, 64)])
def test_widths(inputs, outputs):
    """Numbers of parameters from two to a few hundred: in registers, in memory, in loops."""
    X, _ = table_rows(20, inputs)
    y = torch.sin(X.sum(1, keepdim=True) + torch.arange(outputs))
    for optimizer in (optim.SGD, optim.Adam):
        rates = [1e-3 / inputs] * 5
        assert_as_looped(
            line(X, y), optimizer, lr=rates, steps=5, batch_size=[8, "full"], keep=ALL_KEPT
        )


class Pairs(nn.Module):
    """Products of all pairs of its inputs: fifty thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(50, 50, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x)


def test_a_model_that_is_too_large_says_how_large():
    X, _ = table_rows(20, 50)
    problem = line(X, torch.sin(X[:, :20]), seeded(Pairs))
    assert_refused(problem, r"too large to be compiled .*\d,\d\d\d.*more than", lr=[1e-6] * 4)


def test_no_gradients_at_all_are_refused_as_ever():
    with pytest.raises(InputError, match="no parameter"):
        line(model=nn.Linear(3, 1).double().requires_grad_(False))
