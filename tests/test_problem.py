"""Problems: what is accepted, what is refused and how, and that the user's own things stay."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import datasets
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn, optim
from torch.nn import functional as F

import downslope as ds
from downslope.errors import InputError, ProblemError, TableError

DOUBLE = torch.float64


def line(rows=20, dtype=torch.float32):
    X = torch.linspace(-1, 1, rows, dtype=dtype).reshape(-1, 1)
    return X, 3 * X - 1


def start_loss(problem):
    """The loss where a run of this problem starts, as its records have it."""
    return ds.descend(problem, optim.SGD, lr=0.1, steps=0, progress=False).loss[0, 0]


def descended(problem, lr=0.1, steps=5, **changes):
    asked = {"lr": lr, "steps": steps, "engine": "looped", "progress": False, **changes}
    return ds.descend(problem, optim.SGD, **asked)


def plain_loop(model, loss, X, y, lr=0.1, steps=5):
    """Gradient descent on all rows as a person writes it."""
    model.train()
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        optimizer.step()
    return model


# -- from_function ---------------------------------------------------------------------------


@pytest.mark.parametrize("start", [7.0, 7, np.float64(7), np.array(7.0), torch.tensor(7.0)])
def test_a_number_is_the_start_of_a_function_of_one_argument(start):
    p = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=start)
    assert p.names == ("x",) and p.shapes == {"x": ()} and p.dtype == torch.float32
    assert p.train is None and not p.draws_start and start_loss(p) == 26.0
    runs = descended(p, lr=0.25, steps=1)
    assert runs.parameters["x"].item() == 7 - 0.25 * (2 * 7 - 4)


@pytest.mark.parametrize(
    "start", [[1, 2], (1.0, 2.0), np.array([1.0, 2.0]), torch.tensor([1.0, 2])]
)
def test_a_sequence_is_a_vector(start):
    p = ds.Problem.from_function(lambda v: (v**2).sum(), start=start)
    assert p.names == ("v",) and p.shapes == {"v": (2,)}
    assert start_loss(p) == 5.0
    assert descended(p, lr=0.25, steps=1).parameters["v"].tolist() == [[0.5, 1.0]]


def test_a_dict_gives_keyword_arguments_in_its_own_order():
    p = ds.Problem.from_function(lambda a, b: (a * b).sum() + a.sum(), start={"b": [[2.0]], "a": 3})
    assert p.names == ("b", "a") and p.shapes == {"b": (1, 1), "a": ()}
    runs = descended(p, lr=1.0, steps=1)  # d/da = b + 1, d/db = a
    assert runs.parameters["a"].item() == 0.0 and runs.parameters["b"].item() == -1.0


def test_data_and_a_function_of_loose_tensors():
    X = torch.arange(-5, 5, 0.1)
    y = -5 * X + 2
    p = ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=X, y=y, loss=nn.MSELoss(), start={"w": -10.0, "b": -20.0}
    )
    assert len(p.train) == 100 and p.names == ("w", "b") and p.notes == ()
    x, t = X.double().numpy(), y.double().numpy()
    w, b = -10.0, -20.0
    np.testing.assert_allclose(start_loss(p), np.mean((w * x + b - t) ** 2), rtol=1e-6)
    for _ in range(5):
        r = w * x + b - t
        w, b = w - 0.01 * np.mean(2 * r * x), b - 0.01 * np.mean(2 * r)
    runs = descended(p, lr=0.01)
    np.testing.assert_allclose(runs.parameters["w"].item(), w, rtol=1e-5)
    np.testing.assert_allclose(runs.parameters["b"].item(), b, rtol=1e-5)
    np.testing.assert_allclose(runs[0].predict(X[:3]), w * x[:3] + b, rtol=1e-5)


def test_data_and_one_parameter_by_position():
    X = torch.tensor([1.0, 2.0])
    p = ds.Problem.from_function(lambda x, slope: slope * x, X, 2 * X, loss=nn.MSELoss(), start=1)
    assert p.names == ("slope",) and start_loss(p) == 2.5


def test_a_function_with_defaults_or_keywords_takes_what_start_gives():
    p = ds.Problem.from_function(lambda x, power=2: x**power, start=3.0)
    assert p.names == ("x",) and start_loss(p) == 9.0
    p = ds.Problem.from_function(lambda **given: sum(given.values()) ** 2, start={"a": 1, "b": 2})
    assert p.names == ("a", "b") and start_loss(p) == 9.0
    p = ds.Problem.from_function(torch.square, start=3.0)  # tells no arguments
    assert len(p.names) == 1 and start_loss(p) == 9.0


def test_a_float64_start_makes_a_float64_problem():
    p = ds.Problem.from_function(lambda x: (x - 1 / 3) ** 2, start=torch.tensor(1.0, dtype=DOUBLE))
    assert p.dtype == DOUBLE
    runs = descended(p, lr=0.5, steps=1)
    assert runs.loss.dtype == np.float64 and abs(runs.parameters["x"].item() - 1 / 3) < 1e-15


def test_numbers_take_torchs_default_dtype():
    torch.set_default_dtype(DOUBLE)
    try:
        p = ds.Problem.from_function(lambda x: x**2, start=[1.0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert p.dtype == DOUBLE


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_a_result_of_one_number_in_brackets_is_a_number(shape):
    p = ds.Problem.from_function(lambda x: (x**2).reshape(shape), start=3.0)
    assert start_loss(p) == 9.0
    q = ds.Problem.from_function(lambda x: x**2, start=[3.0])
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    runs = ds.descend(q, optim.SGD, lr=rates, steps=1, engine="stacked", progress=False)
    np.testing.assert_allclose(runs.loss[:, 1], (3 * (1 - 2 * rates)) ** 2, rtol=1e-5)


def test_the_start_is_copied():
    mine = torch.tensor([1.0, 2.0])
    p = ds.Problem.from_function(lambda x: (x**2).sum(), start=mine)
    descended(p)
    assert mine.tolist() == [1.0, 2.0]
    mine.zero_()
    assert start_loss(p) == 5.0


X3 = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ds.Problem.from_function(3.0, start=1.0), "function must be callable, got float"),
        (lambda: ds.Problem.from_function(lambda x: x, start={}), "start is empty"),
        (lambda: ds.Problem.from_function(lambda x: x, start="one"), "must be numbers, got 'one'"),
        (lambda: ds.Problem.from_function(lambda x: x, start={"x": None}), "'x' must be numbers"),
        (lambda: ds.Problem.from_function(lambda x: x, start=[[1], [1, 2]]), "must be numbers"),
        (
            lambda: ds.Problem.from_function(lambda x, y: x * y, start=1.0),
            r"takes 2 parameters \(x, y\) but start is a single value: give start as a dict",
        ),
        (
            lambda: ds.Problem.from_function(
                lambda x, w, b: w * x + b, X3, X3, loss=nn.MSELoss(), start=1.0
            ),
            r"takes 2 parameters \(w, b\)",
        ),
        (
            lambda: ds.Problem.from_function(lambda x, y: x * y, start={"x": 1, "z": 2}),
            "start gives x, z but the function takes x, y",
        ),
        (
            lambda: ds.Problem.from_function(lambda x, y: x * y, start={"x": 1}),
            "start gives x but the function takes x, y",
        ),
        (
            lambda: ds.Problem.from_function(
                lambda x, w: w * x, X3, X3, loss=nn.MSELoss(), start={"x": 1, "w": 1}
            ),
            "start gives x, w but the function takes w",
        ),
        (
            lambda: ds.Problem.from_function(
                lambda x, y: x * y,
                start={"x": torch.tensor(1.0), "y": torch.tensor(1.0, dtype=DOUBLE)},
            ),
            "differ in dtype",
        ),
        (lambda: ds.Problem.from_function(lambda x: x.detach() ** 2, start=1.0), "does not depend"),
        (lambda: ds.Problem.from_function(lambda x: (x > 0) * 1.0, start=1.0), "does not depend"),
        (lambda: ds.Problem.from_function(lambda x: 5.0, start=1.0), "one number, got float"),
        (lambda: ds.Problem.from_function(lambda x: None, start=1.0), "one number, got NoneType"),
        (lambda: ds.Problem.from_function(lambda x: x**2, start=[1, 2]), r"got shape \(2,\)"),
        (
            lambda: ds.Problem.from_function(lambda x: np.sin(x.numpy()), start=1.0),
            "the problem fails with RuntimeError: Can't call numpy",
        ),
        (
            lambda: ds.Problem.from_function(lambda x: x.undefined(), start=1.0),
            "the problem fails with AttributeError",
        ),
        (lambda: ds.Problem.from_function(lambda x: x, y=X3, start=1.0), "give X too"),
        (lambda: ds.Problem.from_function(lambda x: x, loss=nn.MSELoss(), start=1.0), "give X too"),
        (
            lambda: ds.Problem.from_function(lambda x, w: w * x, X3, X3, start=1.0),
            "a function with data needs loss=",
        ),
        (
            lambda: ds.Problem.from_function(lambda x, w: w * x, X3, loss=nn.MSELoss(), start=1.0),
            "a loss needs targets",
        ),
        (
            lambda: ds.Problem.from_function(lambda x, w: w * x, X3, X3, loss=nn.MSELoss, start=1),
            r"MSELoss\(\), not MSELoss",
        ),
        (
            lambda: ds.Problem.from_function(
                lambda x, w: w * x, X3, X3, loss=nn.MSELoss(reduction="none"), start=1.0
            ),
            "reduction='none'",
        ),
        (
            lambda: ds.Problem.from_function(
                lambda training: training**2, start={"training": 1.0}
            ),
            "cannot be named 'training'",
        ),
        (
            lambda: ds.Problem.from_function(lambda names: names**2, start={"names": 1.0}),
            "cannot be named 'names'",
        ),
    ],
)  # fmt: skip
def test_what_a_function_cannot_be(make, said):
    with pytest.raises(ProblemError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- from_model ------------------------------------------------------------------------------


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, x):
        return self.inner(x)


def test_an_instance_starts_where_it_stands():
    X, y = line()
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    assert not p.draws_start and p.names == tuple(n for n, _ in net.named_parameters())
    runs = descended(p, seed=[0, 1])
    assert runs.loss[0, 0] == runs.loss[1, 0]
    np.testing.assert_allclose(runs.loss[0, 0], F.mse_loss(net(X), y).item(), rtol=1e-6)
    expected = plain_loop(copy.deepcopy(net), nn.MSELoss(), X, y)
    for name, value in expected.named_parameters():
        torch.testing.assert_close(runs.parameters[name][0], value.detach())


@pytest.mark.parametrize("make", [Line, lambda: Line()], ids=["class", "function"])
def test_a_factory_draws_a_fresh_start_from_each_seed(make):
    X, y = line()
    p = ds.Problem.from_model(make, X, y, loss=nn.MSELoss())
    assert p.draws_start and p.names == ("inner.weight", "inner.bias")
    weights = descended(p, seed=[0, 1, 2, 0], steps=0).parameters["inner.weight"].flatten()
    assert len(set(weights.tolist())) == 3 and weights[0] == weights[3]
    again = descended(p, seed=2, steps=0).parameters["inner.weight"]
    assert again.item() == weights[2].item()


def test_an_objective_sees_the_model():
    X, y = line()
    net = nn.Linear(1, 1)

    def ridge(model, x, t):
        return F.mse_loss(model(x), t) + 0.5 * model.weight.square().sum()

    p = ds.Problem.from_model(net, X, y, objective=ridge)
    np.testing.assert_allclose(start_loss(p), ridge(net, X, y).item(), rtol=1e-6)
    runs = descended(p, lr=0.1, steps=400)
    x, t = X.numpy()[:, 0], y.numpy()[:, 0]  # mean x is 0, so slope and offset are apart
    slope = (x * t).mean() / ((x * x).mean() + 0.5)
    np.testing.assert_allclose(runs.parameters["weight"].item(), slope, rtol=1e-4)
    np.testing.assert_allclose(runs.parameters["bias"].item(), t.mean(), rtol=1e-4)


def test_an_objective_needs_no_target():
    X, _ = line()
    p = ds.Problem.from_model(nn.Linear(1, 2), X, objective=lambda m, x, y: m(x).square().mean())
    assert p.train.y is None and descended(p, steps=50).loss[0, -1] < start_loss(p)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "either loss= or objective="),
        ({"loss": nn.MSELoss(), "objective": lambda m, x, y: 0.0}, "either loss= or objective="),
        ({"loss": nn.MSELoss}, r"MSELoss\(\), not MSELoss"),
        ({"loss": nn.MSELoss(reduction="none")}, "reduction='none'"),
        ({"loss": 3.0}, "loss must be a torch loss or a function"),
        ({"loss": "msee"}, "did you mean 'mse'"),
        ({"loss": lambda p, t: (p - t) ** 2}, "tensor of one number, got shape"),
        ({"loss": lambda p, t: 1.0}, "tensor of one number, got float"),
        ({"loss": lambda p, t: p.undefined}, "fails with AttributeError"),
        ({"objective": lambda m, x, y: m(x)}, "tensor of one number, got shape"),
        ({"loss": nn.MSELoss(), "model": 5}, "model must be a torch.nn.Module or a function"),
        ({"loss": nn.MSELoss(), "model": lambda: 5}, "must make a torch.nn.Module, got int"),
        ({"loss": nn.MSELoss(), "model": nn.Flatten()}, "no parameter that requires a gradient"),
        (
            {"loss": nn.MSELoss(), "model": nn.Linear(2, 1)},
            "fails with RuntimeError: mat1 and mat2",
        ),
        ({"loss": nn.MSELoss(), "model": nn.LSTM(1, 1)}, "must give a tensor, got tuple"),
        ({"loss": nn.MSELoss(), "y": None}, "a loss needs targets"),
    ],
)
def test_what_a_model_cannot_be(changes, said):
    X, y = line()
    asked = {"model": nn.Linear(1, 1), "X": X, "y": y, **changes}
    with pytest.raises(ProblemError, match=said) as caught:
        ds.Problem.from_model(**asked)
    assert "\n" not in str(caught.value)


def test_a_loss_with_parameters_of_its_own_is_refused():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, p, t):
            return self.scale * (p - t).square().mean()

    X, y = line()
    with pytest.raises(ProblemError, match="parameters of its own"):
        ds.Problem.from_model(nn.Linear(1, 1), X, y, loss=Learnt())


def test_mixed_parameter_dtypes_are_refused():
    X, y = line()
    mixed = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double())
    with pytest.raises(ProblemError, match="share one floating-point dtype, got float32, float64"):
        ds.Problem.from_model(mixed, X, y, loss=nn.MSELoss())


def test_a_float64_model_takes_its_data_in_float64():
    X, y = line()
    p = ds.Problem.from_model(nn.Linear(1, 1).double(), X, y, loss=nn.MSELoss())
    assert p.dtype == p.train.x.dtype == p.train.y.dtype == DOUBLE
    assert p.notes == (
        "X was cast from float32 to the parameters' float64",
        "y was cast from float32 to the parameters' float64",
    )
    assert descended(p).loss.dtype == np.float64


def test_a_problem_in_another_dtype_leaves_the_first_alone():
    X, y = line()
    p = ds.Problem.from_model(nn.Linear(1, 1), X, y, loss=nn.MSELoss())
    q = p.to(dtype=DOUBLE)
    assert q.dtype == q.train.x.dtype == DOUBLE and p.dtype == p.train.x.dtype == torch.float32
    assert p.to(dtype=torch.float32) is p
    with pytest.raises(ProblemError, match="floating point"):
        p.to(dtype=torch.int64)


def test_frozen_parameters_stay_and_are_no_parameters():
    X, y = line()
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    net[0].requires_grad_(False)
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    assert p.names == ("2.weight", "2.bias")
    for engine in ("looped", "stacked"):
        runs = descended(p, lr=[0.1] * 4, steps=20, engine=engine)
        assert set(runs.parameters) == {"2.weight", "2.bias"}
        model = runs[0].model
        assert torch.equal(model[0].weight, net[0].weight)
        assert not model[0].weight.requires_grad
        expected = plain_loop(copy.deepcopy(net), nn.MSELoss(), X, y, steps=20)
        torch.testing.assert_close(model(X), expected(X))
    with pytest.raises(ProblemError, match="no parameter that requires a gradient"):
        ds.Problem.from_model(copy.deepcopy(net).requires_grad_(False), X, y, loss=nn.MSELoss())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@pytest.mark.parametrize("engine", ["looped", "stacked"])
def test_tied_weights_stay_tied(engine):
    torch.manual_seed(0)
    X = torch.randn(20, 2)
    net = Tied()
    p = ds.Problem.from_model(net, X, X.flip(1), loss=nn.MSELoss())
    assert p.names == ("first.weight", "first.bias", "second.bias")
    runs = descended(p, lr=[0.1] * 4, steps=10, engine=engine)
    model = runs[0].model
    assert model.first.weight is model.second.weight
    expected = plain_loop(copy.deepcopy(net), nn.MSELoss(), X, X.flip(1), steps=10)
    torch.testing.assert_close(model(X), expected(X))


@pytest.mark.parametrize("engine", ["looped", "stacked"])
def test_buffers_are_state_of_each_run(engine):
    torch.manual_seed(1)
    X = torch.randn(20, 2) + 5
    y = X.sum(1, keepdim=True)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    before = copy.deepcopy(net.state_dict())
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    runs = descended(p, lr=[0.01, 0.02, 0.03, 0.05], steps=6, engine=engine)
    assert torch.equal(net[1].running_mean, before["1.running_mean"])
    for run in runs:
        expected = plain_loop(copy.deepcopy(net), nn.MSELoss(), X, y, lr=run.row["lr"], steps=6)
        assert run.model[1].num_batches_tracked == 6
        torch.testing.assert_close(run.model[1].running_mean, expected[1].running_mean)
        torch.testing.assert_close(run.model(X), expected.eval()(X))


@pytest.mark.parametrize("as_factory", [False, True])
def test_a_module_in_eval_mode_is_trained(as_factory):
    X, y = line()
    net = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    p = ds.Problem.from_model(
        (lambda: copy.deepcopy(net)) if as_factory else net, X, y, loss=nn.MSELoss()
    )
    assert p.random
    runs = descended(p, keep=("loss", "batch_loss"))
    assert runs.batch_loss[0, 0] != runs.loss[0, 0]  # one with dropout, the other without
    assert not any(m.training for m in net.modules())
    assert not any(m.training for m in runs[0].model.modules())


def test_part_of_a_training_module_may_stay_in_eval_mode():
    X, y = line()
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    net[0].eval()
    runs = descended(ds.Problem.from_model(net, X + 3, y, loss=nn.MSELoss()))
    assert runs[0].state["0.running_mean"].item() == 0.0


def busy_net():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 1))
    net[2].eval()
    for p in net.parameters():
        p.grad = torch.full_like(p, 0.25)
    net[0].bias.requires_grad_(False)
    return net


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", ["instance", "factory"])
def test_the_users_module_is_never_changed(training, given):
    X, y = line()
    net = busy_net().train(training)
    flags = [m.training for m in net.modules()]
    before, grads = copy.deepcopy(net.state_dict()), [p.grad.clone() for p in net.parameters()]
    needs = [p.requires_grad for p in net.parameters()]
    X_before, y_before, random = X.clone(), y.clone(), torch.get_rng_state()
    p = ds.Problem.from_model(net if given == "instance" else lambda: net, X, y, loss=nn.MSELoss())
    runs = descended(p, lr=[0.1, 1e9], batch_size=5, seed=[0, 1])
    model = runs[0].model
    runs[0].predict(X)
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            value.zero_()
    assert torch.equal(random, torch.get_rng_state())
    assert flags == [m.training for m in net.modules()]
    assert needs == [p.requires_grad for p in net.parameters()]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    for p, grad in zip(net.parameters(), grads, strict=True):
        assert torch.equal(p.grad, grad)
    assert torch.equal(X, X_before) and torch.equal(y, y_before)
    assert not X.requires_grad


def test_later_changes_of_the_users_module_do_not_reach_the_problem():
    X, y = line()
    net = busy_net()
    p = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    expected = F.mse_loss(copy.deepcopy(net).eval()(X), y).item()
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(100)
    net[1].running_mean.fill_(50)
    net.eval()
    net[3].requires_grad_(False)
    np.testing.assert_allclose(start_loss(p), expected, rtol=1e-6)
    assert "3.weight" in p.names and p.random is False  # its dropout was in eval mode


def test_later_changes_of_the_users_loss_do_not_reach_the_problem():
    X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).long()
    loss, net = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), nn.Linear(2, 2)
    p = ds.Problem.from_model(net, X, y, loss=loss)
    expected = loss(net(X), y).item()
    loss.weight.fill_(7.0)
    loss.weight[0] = 0.5
    np.testing.assert_allclose(start_loss(p), expected, rtol=1e-6)


def test_a_lazy_module_works_or_is_refused_in_a_sentence():
    X, y = line()
    try:
        p = ds.Problem.from_model(nn.LazyLinear(1), X, y, loss=nn.MSELoss())
    except ProblemError:
        return
    assert np.isfinite(descended(p).loss).all()


# -- validation ------------------------------------------------------------------------------


def test_a_share_for_validation_is_the_same_whenever_asked():
    X, y = line(40)
    p = ds.Problem.from_model(nn.Linear(1, 1), X, y, loss=nn.MSELoss())
    runs = [descended(p, validation=0.25) for _ in range(2)]
    assert np.array_equal(runs[0].validation_loss, runs[1].validation_loss)
    kept = runs[0].plan.problem
    assert (len(kept.train), len(kept.validation)) == (30, 10)
    both = torch.cat([kept.train.x, kept.validation.x]).flatten().sort().values
    assert torch.equal(both, X.flatten())
    expected = F.mse_loss(runs[0][0].model(kept.validation.x), kept.validation.y).item()
    np.testing.assert_allclose(runs[0].validation_loss[0, -1], expected, rtol=1e-5)
    assert len(p.train) == 40 and p.validation is None


def test_a_pair_for_validation():
    X, y = line()
    p = ds.Problem.from_model(nn.Linear(1, 1), X, y, loss=nn.MSELoss())
    runs = descended(p, validation=(X.numpy()[:4].astype(float), (y[:4] + 1).tolist()))
    expected = F.mse_loss(runs[0].model(X[:4]), y[:4] + 1).item()
    np.testing.assert_allclose(runs.validation_loss[0, -1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "validation",
    [0.0, 1.0, -0.5, 0.001, "some", torch.ones(3, 1), (torch.ones(3, 1),),
     (torch.ones(3, 1), torch.ones(2, 1)), (torch.ones(3, 2), torch.ones(3, 1)),
     (torch.ones(3, 1), torch.ones(3))],
)  # fmt: skip
def test_what_validation_cannot_be(validation):
    X, y = line()
    p = ds.Problem.from_model(nn.Linear(1, 1), X, y, loss=nn.MSELoss())
    with pytest.raises(InputError, match="validation"):
        descended(p, validation=validation)


def test_a_function_without_data_has_nothing_to_validate_with():
    with pytest.raises(ProblemError, match="no rows for validation"):
        descended(ds.Problem.from_function(lambda x: x**2, start=1.0), validation=0.5)


# -- from_table ------------------------------------------------------------------------------


def frame_of(loaded):
    frame = pl.DataFrame(loaded.data, schema=[str(n) for n in loaded.feature_names])
    return frame.with_columns(target=pl.Series(loaded.target))


@pytest.fixture(scope="module")
def houses():
    """Price by size and by city, with a missing value of each kind and a row without a price."""
    random = np.random.default_rng(0)
    size, city = random.uniform(30, 200, 60), random.choice(["Lyon", "Nice", "Paris"], 60)
    price = 1000 * size + np.array([{"Lyon": 0, "Nice": 5e4, "Paris": 2e5}[c] for c in city])
    frame = pd.DataFrame({"size": size, "city": city, "price": price})
    frame.loc[7, "price"] = None
    return frame


def fitted(problem, steps=60, optimizer=optim.LBFGS, **changes):
    """Descended to the bottom."""
    asked = {"lr": 1.0, "steps": steps, "dtype": DOUBLE, "progress": False, **changes}
    return ds.descend(problem, optimizer, **asked)


def test_a_table_is_fitted_as_least_squares_fits_it(houses):
    p = ds.Problem.from_table(houses, target="price", model="linear")
    assert any("1 row" in note for note in p.notes)
    assert (len(p.train), len(p.validation), len(p.test)) == (35, 12, 12)
    usable = houses.dropna(subset="price").reset_index(drop=True)
    train = usable.iloc[p.table.split.train]
    dummies = pd.get_dummies(usable[["size", "city"]], columns=["city"]).astype(float)
    reference = LinearRegression().fit(dummies.iloc[p.table.split.train], train["price"])
    scaled = (train["size"] - train["size"].mean()) / train["size"].std(ddof=0)
    np.testing.assert_allclose(p.train.x[:, 0], scaled, rtol=1e-5, atol=1e-6)
    runs = fitted(p, batch_size="full")
    made = runs.best.predict(usable)
    assert made.shape == (59,)
    np.testing.assert_allclose(made, reference.predict(dummies), rtol=1e-3)
    np.testing.assert_allclose(made, usable["price"], rtol=1e-3)  # there is no noise


def test_new_rows_with_an_unknown_category_and_a_missing_number(houses):
    runs = fitted(ds.Problem.from_table(houses, target="price", model="linear"))
    new = pl.DataFrame({"city": ["Paris", "Oslo", "Nice"], "size": [100.0, 100.0, None]})
    with pytest.warns(UserWarning) as told:
        made = runs.best.predict(new)
    said = " ".join(str(warning.message) for warning in told)
    assert "Oslo" in said and "1 missing value" in said
    np.testing.assert_allclose(made[0], 300_000, rtol=1e-3)
    assert np.isfinite(made).all()
    split = runs.best.runs.plan.problem.table.split.train
    mean = houses.dropna(subset="price").iloc[split]["size"].mean()
    np.testing.assert_allclose(made[2], 1000 * mean + 5e4, rtol=1e-3)
    with pytest.raises(TableError, match="'size'"):
        runs.best.predict(pl.DataFrame({"city": ["Paris"]}))


@pytest.mark.parametrize("loss", ["bce", "cross_entropy", None])
def test_two_classes_as_logistic_regression_has_them(loss):
    loaded = datasets.load_breast_cancer()
    frame = frame_of(loaded)[["mean radius", "mean texture", "mean concavity", "target"]]
    p = ds.Problem.from_table(frame, target="target", model="linear", loss=loss)
    outputs = 1 if loss == "bce" else 2
    assert p.shapes["weight"] == (outputs, 3)
    assert p.train.y.shape == ((len(p.train), 1) if loss == "bce" else (len(p.train),))
    runs = fitted(p)
    train = frame[p.table.split.train]
    X, y = train.drop("target").to_numpy(), train["target"].to_numpy()
    centre, spread = X.mean(0), X.std(0)
    reference = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    reference.fit((X - centre) / spread, y)
    expected = reference.predict((frame.drop("target").to_numpy() - centre) / spread)
    made = runs.best.predict(frame)
    assert (made == expected.astype(str)).mean() > 0.998  # a row on the border may differ
    loss_there = -np.log(reference.predict_proba((X - centre) / spread)[np.arange(len(y)), y])
    np.testing.assert_allclose(runs.best.loss[-1], loss_there.mean(), rtol=1e-3)


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_many_classes(name):
    loaded = getattr(datasets, f"load_{name}")()
    named = frame_of(loaded).with_columns(
        target=pl.Series(np.asarray(loaded.target_names)[loaded.target])
    )
    p = ds.Problem.from_table(named.to_pandas(), target="target", model="mlp:8:tanh")
    assert p.train.y.dtype == torch.int64 and p.shapes["2.weight"] == (3, 8)
    runs = ds.descend(p, optim.Adam, lr=0.03, epochs=150, progress=False)
    test = named[p.table.split.test]
    made = runs.best.predict(test.drop("target"))
    assert set(made) <= set(loaded.target_names)
    assert (made == test["target"].to_numpy()).mean() > 0.85
    assert runs.validation_loss.shape == runs.loss.shape


def test_numbers_as_classes_keep_their_names():
    frame = pl.DataFrame({"a": np.arange(40.0), "grade": np.repeat([1, 5], 20)})
    p = ds.Problem.from_table(frame, target="grade", loss="cross_entropy")
    made = fitted(p, steps=10).best.predict(pl.DataFrame({"a": [0.0, 39.0]}))
    assert [float(m) for m in made] == [1.0, 5.0]


def test_bce_is_classification_too():
    frame = pl.DataFrame({"a": np.arange(40.0), "grade": np.repeat([1, 2], 20)})
    p = ds.Problem.from_table(frame, target="grade", loss="bce")
    made = fitted(p, steps=10).best.predict(pl.DataFrame({"a": [0.0, 39.0]}))
    assert [float(m) for m in made] == [1.0, 2.0]


def test_regression_on_zeros_and_ones_where_asked():
    frame = pl.DataFrame({"a": np.arange(40.0), "hit": np.repeat([0, 1], 20)})
    assert ds.Problem.from_table(frame, target="hit").table.schema.target.task == "classification"
    p = ds.Problem.from_table(frame, target="hit", task="regression")
    assert p.table.schema.target.task == "regression" and p.train.y.shape == (24, 1)


def test_rows_lacking_a_value_are_dropped_from_their_own_part(houses):
    gaps = houses.copy()
    gaps.loc[[0, 3, 20, 41], "size"] = None
    usable = gaps.dropna(subset="price").reset_index(drop=True)
    p = ds.Problem.from_table(gaps, target="price", missing="drop")
    split = p.table.split
    for rows, part in ((p.train, split.train), (p.validation, split.validation),
                       (p.test, split.test)):  # fmt: skip
        wanted = usable.iloc[part].dropna()["price"]
        own = p.table.schema.to_own_units(rows.y.numpy()[:, 0])
        np.testing.assert_allclose(own, wanted, rtol=1e-5)
    assert len(p.train) + len(p.validation) + len(p.test) == 55
    with pytest.raises(TableError, match="no value in row 8"):
        ds.Problem.from_table(gaps, target="price", missing="error")


def test_parts_may_be_left_out(houses):
    p = ds.Problem.from_table(houses, target="price", validation=0, test=0)
    assert len(p.train) == 59 and p.validation is None and p.test is None
    other = ds.Problem.from_table(houses, target="price", split_seed=1)
    assert not np.array_equal(
        other.table.split.train,
        ds.Problem.from_table(houses, target="price").table.split.train,
    )


def test_tables_from_files(houses, tmp_path):
    houses.to_csv(tmp_path / "h.csv", index=False)
    pl.from_pandas(houses).write_parquet(tmp_path / "h.parquet")
    frames = [
        ds.Problem.from_table(source, target="price").train.x
        for source in (houses, str(tmp_path / "h.csv"), tmp_path / "h.parquet")
    ]
    for other in frames[1:]:
        torch.testing.assert_close(other, frames[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "pric"}, "did you mean 'price'"),
        ({"loss": "poisson"}, "poisson needs counts"),
        ({"loss": nn.PoissonNLLLoss()}, "poisson needs counts"),
        ({"loss": "hubber"}, "did you mean 'huber'"),
        ({"loss": nn.MSELoss}, r"MSELoss\(\), not MSELoss"),
        ({"target": "city", "loss": "bce"}, "two classes, got 3"),
        ({"task": "ranking"}, "task is one of"),
        ({"missing": "mode"}, "missing is one of"),
        ({"validation": 0.6, "test": 0.5}, "must leave rows to train with"),
        ({"model": "lnear"}, "did you mean 'linear'"),
        ({"model": nn.Linear(7, 1)}, "fails with RuntimeError"),
    ],
)
def test_what_a_table_cannot_be(houses, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        ds.Problem.from_table(houses, **{"target": "price", **changes})
    assert "\n" not in str(caught.value)


def test_models_for_a_table_draw_their_start_or_stand_somewhere(houses):
    named = ds.Problem.from_table(houses, target="price", model="mlp:3")
    assert named.draws_start
    made = ds.Problem.from_table(houses, target="price", model=nn.Linear)  # of (inputs, outputs)
    assert made.draws_start and made.shapes["weight"] == (1, 4)
    net = nn.Linear(4, 1)
    fixed = ds.Problem.from_table(houses, target="price", model=net)
    assert not fixed.draws_start
    before = net.weight.detach().clone()
    descended(fixed)
    assert torch.equal(net.weight, before)


def test_the_users_frame_is_never_changed(houses):
    before = houses.copy(deep=True)
    runs = descended(ds.Problem.from_table(houses, target="price"))
    runs.best.predict(houses)
    pd.testing.assert_frame_equal(houses, before)
