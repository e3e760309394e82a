"""The collection of problems: what each claims of its optimum, by autograd and by search."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

import downslope as ds
from downslope import problems
from downslope.problems.networks import deep_linear_rows
from downslope.problems.regressions import FEATURES, WEIGHTS, logistic_rows, regression_rows

FUNCTIONS = [name for name, entry in problems.ENTRIES.items() if entry.make_drawn is not None]
MODELS = [name for name in problems.names() if name not in FUNCTIONS]
KNOWN = [name for name, entry in problems.ENTRIES.items() if entry.minimisers]


def objective_at(name, place):
    """The objective of a problem in float64 with its parameters put somewhere, and its rows."""
    problem = problems.make(name).to(dtype=torch.float64)
    objective, used = problem.fresh(0), 0
    with torch.no_grad():
        for parameter in objective.parameters():
            some = torch.as_tensor(place[used : used + parameter.numel()], dtype=torch.float64)
            parameter.copy_(some.reshape(parameter.shape))
            used += parameter.numel()
    assert used == len(place)
    return objective, problem.train


def loss_and_gradient(name, place):
    objective, rows = objective_at(name, place)
    loss = objective() if rows is None else objective(rows.x, rows.y)
    found = torch.autograd.grad(loss, list(objective.parameters()))
    return loss.item(), torch.cat([g.ravel() for g in found])


def values(name, points):
    """The values of a function of one vector at (points, parameters)."""
    function = problems.make(name).fresh(0).model.function
    return torch.func.vmap(function)(torch.as_tensor(points))


def test_there_are_enough_and_each_says_what_it_is():
    assert len(problems.names()) >= 24 and set(problems.DEFAULT) <= set(problems.names())
    assert len(problems.DEFAULT) == 10
    for name, entry in problems.ENTRIES.items():
        assert entry.name == name and entry.about and entry.source and entry.steps > 0
        assert not entry.minimisers or entry.optimum is not None


@pytest.mark.parametrize("name", KNOWN)
def test_at_the_minimisers(name):
    """The loss is what it is said to be, the gradient 0, the curvature nowhere negative."""
    entry = problems.entry(name)
    for place in entry.minimisers:
        loss, gradient = loss_and_gradient(name, place)
        # Rows are kept in float32, as models take them.
        rounding = 1e-12 if name in FUNCTIONS else 1e-6
        assert loss == pytest.approx(entry.optimum, abs=rounding * max(1, abs(entry.optimum)) * 10)
        assert gradient.abs().max() < max(rounding, 1e-7)
        if name in FUNCTIONS:
            function = problems.make(name).fresh(0).model.function
            H = hessian(function, torch.tensor(place, dtype=torch.float64))
            assert torch.linalg.eigvalsh(H).min() > -1e-9


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_lower(name):
    """Neither at random places of the domain, nor after descents from the lowest of them."""
    entry = problems.entry(name)
    low, high = entry.bounds or (-6.0, 6.0)
    generator = np.random.default_rng(7)
    size = len(entry.minimisers[0])
    points = generator.uniform(low, high, (20_000, size))
    found = values(name, points).numpy()
    assert found.min() >= entry.optimum - 1e-9
    near = np.asarray(entry.minimisers[0]) + generator.normal(0, 1e-3, (5_000, size))
    assert values(name, near).numpy().min() >= entry.optimum - 1e-12
    lowest = points[np.argsort(found)[:4]]
    starts = [{"x": torch.from_numpy(place)} for place in lowest]
    runs = ds.descend(problems.make(name), "Adam", lr=[1e-3, 1e-2], steps=80, start=starts,
                      engine="stacked", every=80, progress=False)  # fmt: skip
    assert np.nanmin(runs.loss) >= entry.optimum - 1e-9


@pytest.mark.parametrize("condition", [1, 30, 1000])
def test_regressions_against_least_squares(condition):
    """The minimiser by numpy's own least squares; the condition number of the dense Hessian."""
    X, y = regression_rows(condition)
    rows = np.column_stack([X, np.ones(len(X))])
    solution = np.linalg.lstsq(rows, y[:, 0], rcond=None)[0]
    entry = problems.entry(f"regression-{condition}")
    assert solution == pytest.approx(entry.minimisers[0], abs=1e-9)
    assert ((rows @ solution - y[:, 0]) ** 2).mean() == pytest.approx(entry.optimum, abs=1e-12)
    assert np.linalg.cond(2 * X.T @ X / len(X)) == pytest.approx(condition)
    assert WEIGHTS.shape == (FEATURES,)


@pytest.mark.parametrize("condition", [10, 1000])
def test_quadratics_have_their_spectrum(condition):
    function = problems.make(f"quadratic-{condition}").fresh(0).model.function
    H = hessian(function, torch.zeros(10, dtype=torch.float64))
    found = torch.linalg.eigvalsh(H).numpy()
    assert found == pytest.approx(np.geomspace(1 / condition, 1, 10))


def test_logistic_by_newton():
    X, y = logistic_rows(separable=False)
    rows, y, w = np.column_stack([X, np.ones(len(X))]), y[:, 0], np.zeros(6)
    for _ in range(20):
        p = 1 / (1 + np.exp(-rows @ w))
        w -= np.linalg.solve((rows.T * (p * (1 - p))) @ rows, rows.T @ (p - y))
    loss = (np.logaddexp(0, rows @ w) - y * (rows @ w)).mean()
    entry = problems.entry("logistic-overlapping")
    assert w == pytest.approx(entry.minimisers[0], abs=1e-6)
    assert loss == pytest.approx(entry.optimum, abs=1e-9)


def test_separable_is_separable():
    """One direction parts the classes, and along it the loss falls to 0."""
    X, y = logistic_rows(separable=True)
    sides = X[:, 0] * (2 * y[:, 0] - 1)
    assert sides.min() >= 0.5
    losses = [np.logaddexp(0, -scale * sides).mean() for scale in (1, 10, 100)]
    assert losses[0] > losses[1] > losses[2] and losses[2] < 1e-20
    assert problems.entry("logistic-separable").optimum == 0


def test_deep_linear_reaches_its_optimum():
    """A product of four maps can be the teacher's, so the lowest loss is 0."""
    X, y = deep_linear_rows()
    A = np.linalg.lstsq(X, y, rcond=None)[0]
    assert np.abs(X @ A - y).max() < 1e-12
    assert np.linalg.svd(A, compute_uv=False) == pytest.approx([2, 1, 0.5, 0.25])


@pytest.mark.parametrize("name", problems.names())
def test_all_are_compiled_and_make_progress(name):
    entry = problems.entry(name)
    rates = [1e-4, 1e-3, 1e-2]
    runs = ds.descend(problems.make(name, drawn=True), "Adam", lr=rates, seed=range(2), steps=30,
                      batch_size=entry.batch_size or "full", engine="fused", every=30,
                      progress=False)  # fmt: skip
    assert set(runs.table["engine"]) == {"fused"}
    assert (runs.loss[:, -1] < runs.loss[:, 0]).any()
    starts = runs.loss[:, 0].reshape(3, 2)
    assert (starts[0] == starts[1]).all() and starts[0, 0] != starts[0, 1], "paired, and drawn"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_textbook_starts_are_the_same_for_every_seed(name):
    fixed, drawn = problems.make(name), problems.make(name, drawn=True)
    assert torch.equal(fixed.fresh(0).model.x, fixed.fresh(5).model.x)
    assert torch.equal(drawn.fresh(5).model.x, drawn.fresh(5).model.x)
    assert not torch.equal(drawn.fresh(0).model.x, drawn.fresh(5).model.x)
    low, high = problems.entry(name).bounds or (-np.inf, np.inf)
    assert low <= drawn.fresh(5).model.x.min() and drawn.fresh(5).model.x.max() <= high


def test_random_state_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name in problems.names():
        problems.make(name, drawn=True).fresh(3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_an_unknown_name():
    with pytest.raises(ds.InputError, match=r"no problem 'rosenbrok' .did you mean 'rosenbrock'"):
        problems.make("rosenbrok")
    assert ds.problems is problems
