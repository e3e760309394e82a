"""Curvature against torch's own dense derivatives, for one run and many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import DOUBLE, seeded
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

from downslope import Problem, descend
from downslope.errors import ProblemError
from downslope.explain.curvature import Curvature
from downslope.explain.lanczos import extremes

ROWS = 12
X = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
Y = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
CLASSES = torch.arange(ROWS) % 2


def net(activation: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "line": lambda: Problem.from_model(seeded(lambda: nn.Linear(3, 2)), X, Y, loss=nn.MSELoss()),
    "gelu": lambda: Problem.from_model(seeded(net(nn.GELU())), X, Y, loss=nn.MSELoss()),
    "classes": lambda: Problem.from_model(
        seeded(net(nn.Tanh())), X, CLASSES, loss=nn.CrossEntropyLoss()
    ),
    "summed": lambda: Problem.from_model(
        seeded(net(nn.ReLU())), X, Y, loss=nn.HuberLoss(reduction="sum")
    ),
    "batch norm": lambda: Problem.from_model(
        seeded(net(nn.Sequential(nn.BatchNorm1d(4), nn.Tanh()))), X, Y, loss=nn.MSELoss()
    ),
    "convolution": lambda: Problem.from_model(
        seeded(lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Flatten(),
                                     nn.SiLU(), nn.Linear(4, 2))),
        X, Y, loss=nn.MSELoss()),
}  # fmt: skip


def moved(curvature: Curvature, runs: int = 4) -> Tensor:
    start = curvature.start()
    noise = torch.randn(runs, start.shape[1], generator=torch.Generator().manual_seed(3),
                        dtype=DOUBLE)  # fmt: skip
    return start + 0.5 * noise


def dense(curvature: Curvature, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient and Hessian by torch's own functions, an element after another (jacrev of
    jacrev, which takes them together, is wrong for batch norm in torch 2.13)."""
    problem = curvature.problem
    objective, rows = problem.fresh(0), problem.train
    buffers = {name: b.clone() for name, b in objective.named_buffers()}

    def loss(at: Tensor) -> Tensor:
        named = {f"model.{n}": p[0] for n, p in curvature.layout.split(at[None]).items()}
        rest = {name: b.clone() for name, b in buffers.items()}
        made: Tensor = functional_call(objective, {**named, **rest}, (rows.x, rows.y))
        return made

    return loss(row), jacobian(loss, row), hessian(loss, row)


def close(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_products_and_extremes_are_those_of_the_dense_hessian(name):
    curvature = Curvature(PROBLEMS[name]())
    flat = moved(curvature)
    gradients, losses = curvature.gradients(flat)
    whole = curvature.hessian(flat)
    least, largest = curvature.extremes(flat)
    for k, row in enumerate(flat):
        loss, gradient, matrix = dense(curvature, row)
        close(losses[k], loss)
        close(gradients[k], gradient)
        close(whole[k], matrix)
        values = torch.linalg.eigvalsh(matrix)
        close(least[k], values[0])
        close(largest[k], values[-1])


def test_a_part_that_was_set_to_evaluation_stays_so():
    model = seeded(net(nn.Sequential(nn.BatchNorm1d(4), nn.Tanh())))
    model(X)
    model[1][0].eval()
    curvature = Curvature(Problem.from_model(model, X, Y, loss=nn.MSELoss()))
    (row,) = flat = moved(curvature, 1)
    close(curvature.hessian(flat)[0], dense(curvature, row)[2])


def test_preconditioned():
    curvature = Curvature(PROBLEMS["gelu"]())
    flat = moved(curvature, 2)
    roots = torch.linspace(0.5, 3, flat.shape[1], dtype=DOUBLE).expand_as(flat)
    _, largest = curvature.extremes(flat, roots)
    for k, row in enumerate(flat):
        matrix = dense(curvature, row)[2] * roots[k] * roots[k][:, None]
        close(largest[k], torch.linalg.eigvalsh(matrix)[-1])


@pytest.mark.parametrize("name", ["line", "gelu", "classes", "summed"])
def test_gauss_newton(name):
    curvature = Curvature(PROBLEMS[name]())
    flat = moved(curvature, 3)
    vectors = moved(curvature, 3)
    found = curvature.gauss_newton_product(flat)(vectors)
    problem = curvature.problem
    objective = problem.fresh(0)

    for k, row in enumerate(flat):

        def model(at: Tensor) -> Tensor:
            named = {n: p[0] for n, p in curvature.layout.split(at[None]).items()}
            return functional_call(objective.model, named, (problem.train.x,))

        made = model(row)
        outward = jacobian(model, row).flatten(0, -2)
        bent = hessian(lambda m: objective.loss(m, problem.train.y), made.detach())
        bent = bent.reshape(made.numel(), made.numel())
        close(found[k], outward.T @ bent @ outward @ vectors[k])


def test_gauss_newton_needs_a_loss():
    problem = Problem.from_function(lambda w: (w**2).sum(), start=[1.0, 2.0])
    curvature = Curvature(problem)
    with pytest.raises(ProblemError, match="Gauss-Newton"):
        curvature.gauss_newton_product(curvature.start())
    close(curvature.hessian(curvature.start())[0], 2 * torch.eye(2, dtype=DOUBLE))


@pytest.mark.parametrize("name", ["line", "gelu", "classes", "convolution"])
def test_single_samples(name):
    curvature = Curvature(PROBLEMS[name]())
    (row,) = moved(curvature, 1)
    gradients, hessians = curvature.sample_gradients(row), curvature.sample_hessians(row)
    rows = curvature.problem.train
    for k in (0, 5, ROWS - 1):
        _, gradient, matrix = dense(Curvature(curvature.problem, rows[k : k + 1]), row)
        close(gradients[k], gradient)
        close(hessians[k], matrix)
    close(gradients.mean(0), dense(curvature, row)[1])


def test_noise_scale_is_that_of_single_gradients():
    curvature = Curvature(PROBLEMS["gelu"]())
    (row,) = moved(curvature, 1)
    gradients = curvature.sample_gradients(row)
    found = curvature.noise_scale(row)
    noise = gradients.var(0, correction=1).sum()
    close(torch.tensor(found.noise, dtype=DOUBLE), noise)
    whole = (gradients.mean(0) ** 2).sum() - noise / ROWS
    close(torch.tensor(found.gradient, dtype=DOUBLE), whole)


def test_many_rows_are_taken_in_blocks():
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for loss in (nn.MSELoss(), nn.MSELoss(reduction="sum")):
        problem = Problem.from_model(seeded(lambda: nn.Linear(3, 1)), x, x.sum(1, True), loss=loss)
        curvature = Curvature(problem)
        matrix = torch.cat([x, torch.ones(len(x), 1, dtype=DOUBLE)], 1)
        wanted = 2 * matrix.T @ matrix / (len(x) if loss.reduction == "mean" else 1)
        close(curvature.hessian(curvature.start())[0], wanted)


def test_runs_that_are_not_finite_are_left_out():
    curvature = Curvature(PROBLEMS["gelu"]())
    flat = moved(curvature)
    alone = curvature.extremes(flat[:1])
    flat[1, 3], flat[2] = torch.nan, torch.inf
    least, largest = curvature.extremes(flat)
    assert least.isnan().tolist() == largest.isnan().tolist() == [False, True, True, False]
    close(torch.stack([least[:1], largest[:1]]), torch.stack(alone))
    gradients, losses = curvature.gradients(flat)
    assert losses.isnan().tolist() == [False, True, True, False]
    assert gradients.isnan().all(1).tolist() == [False, True, True, False]


def test_runs_ends_can_be_measured_and_nothing_is_changed():
    problem = Problem.from_model(net(nn.Tanh()), X.float(), Y.float(), loss=nn.MSELoss())
    runs = descend(problem, "SGD", lr=[0.01, 0.1, 1e6], steps=20, progress=False)
    kept = {name: value.clone() for name, value in runs.parameters.items()}
    state = torch.random.get_rng_state()
    curvature = Curvature(problem)
    least, largest = curvature.extremes(curvature.flat(runs.parameters))
    assert curvature.dtype == DOUBLE and (largest >= least).all() and len(largest) == 3
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(kept[name], value) for name, value in runs.parameters.items())
    again = descend(problem, "SGD", lr=[0.01, 0.1, 1e6], steps=20, progress=False)
    np.testing.assert_array_equal(again.loss, runs.loss)


@pytest.mark.parametrize("size", [1, 2, 30, 200])
def test_lanczos(size):
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(3, size, size, generator=generator, dtype=DOUBLE)
    matrices = noise + noise.mT
    matrices[1] = torch.eye(size)  # one eigenvalue alone
    least, largest = extremes(
        lambda v: (matrices @ v[:, :, None])[:, :, 0], size, 3, dtype=DOUBLE, products=size
    )
    values = torch.linalg.eigvalsh(matrices)
    close(least, values[:, 0])
    close(largest, values[:, -1])
