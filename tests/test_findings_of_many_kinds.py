"""Findings for models, losses and settings of many kinds: none ends in an error, none says what is
not so."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine
from torch import nn, optim

import downslope as ds


def table(load):
    X, y = load(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return torch.tensor(X, dtype=torch.float32), torch.tensor(y)


@pytest.fixture(scope="module")
def diabetes():
    X, y = table(load_diabetes)
    y = y.float()[:, None]
    return X[:120], ((y - y.mean()) / y.std())[:120]


@pytest.fixture(scope="module")
def wine():
    return table(load_wine)


def function(f, start, **settings):
    problem = ds.Problem.from_function(f, start=torch.tensor(start, dtype=torch.float64))
    runs = ds.descend(problem, settings.pop("optimizer", optim.SGD), progress=False, **settings)
    return runs.explain()[0]


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(10, 1)

    def forward(self, x):
        return self.layer(x).squeeze()


class Guarded(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(10, 1)

    def forward(self, x):
        made = self.layer(x)
        if torch.isnan(made).any():
            raise ValueError("not a number")
        return made


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(10, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(10, 1)

    def forward(self, x):
        return self.head(self.layer(x[:, None])[:, 0])


class Centred(nn.Module):
    """Looks at the whole batch, so that rows have no gradients of their own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(10, 1)

    def forward(self, x):
        return self.layer((x - x.mean(0)) / (x.std(0) + 1e-3))


def normed():
    return nn.Sequential(nn.Linear(10, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


@pytest.mark.parametrize("make", [Squeezed, Guarded, Attentive, Centred, normed])
@pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")
def test_models_that_measuring_is_hard_on(diabetes, make):
    X, y = diabetes
    target = y[:, 0] if make is Squeezed else y
    torch.manual_seed(0)
    problem = ds.Problem.from_model(make, X, target, loss=nn.MSELoss())
    runs = ds.descend(problem, optim.SGD, lr=[0.01, 30.0], batch_size=30, epochs=12, progress=False)
    before = torch.get_rng_state()
    findings = runs.explain()
    assert torch.equal(before, torch.get_rng_state())
    assert all("could not be measured" not in f.sentence for f in findings)
    # No rate, no number that is none, in what is said.
    for finding in findings:
        for word in ("nan", "inf ", "None"):
            assert word not in finding.sentence, finding.sentence


def test_code_that_cannot_be_measured_is_said(diabetes):
    X, y = diabetes

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient

    problem = ds.Problem.from_model(
        nn.Linear(10, 1), X, y, objective=lambda m, x, y: (Once.apply(m(x)) - y).square().mean()
    )
    runs = ds.descend(problem, optim.SGD, lr=0.01, epochs=12, engine="looped", progress=False)
    finding = runs.explain()[0]
    assert finding.cause == "unknown" and "could not be measured" in finding.sentence


def test_classes_that_are_left_out(wine):
    X, y = wine
    y = y.clone()
    y[::7] = -100
    problem = ds.Problem.from_model(lambda: nn.Linear(13, 3), X, y, loss=nn.CrossEntropyLoss())
    runs = ds.descend(problem, optim.SGD, lr=0.5, epochs=300, progress=False)
    assert runs.explain()[0].cause == "separable-data"


def test_a_penalty_gives_separable_data_a_minimum(wine):
    X, y = wine
    problem = ds.Problem.from_model(lambda: nn.Linear(13, 3), X, y, loss=nn.CrossEntropyLoss())
    runs = ds.descend(problem, optim.SGD, lr=0.5, weight_decay=[0.0, 0.05], epochs=600,
                      progress=False)  # fmt: skip
    plain, decayed = runs.explain()
    assert plain.cause == "separable-data"
    assert decayed.verdict == "converged" and decayed.cause == "minimum"


def test_no_minimum_below_what_a_loss_can_be(wine):
    X, y = wine
    net = lambda: nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))  # noqa: E731
    problem = ds.Problem.from_model(net, X, y, loss=nn.CrossEntropyLoss())
    runs = ds.descend(problem, optim.Adam, lr=[1e-3, 0.3], batch_size=16, epochs=15, progress=False)
    for finding in runs.explain():
        assert "near \N{MINUS SIGN}" not in finding.sentence


def test_minima_that_are_flat_or_kinked():
    for f in (lambda x: x**4, abs, lambda x: torch.relu(x - 1)):
        finding = function(f, 0.0, lr=0.1, steps=40)
        assert (finding.verdict, finding.confidence) == ("converged", "likely"), finding.sentence
    assert function(lambda x: x**4 - x**2, 0.0, lr=0.1, steps=40).verdict == "stuck"


def test_an_offset_changes_no_verdict():
    for offset in (0.0, 1e7):
        finding = function(lambda x, c=offset: (x - 3) ** 2 + c, 0.0, lr=0.1, steps=200)
        assert (finding.verdict, finding.cause) == ("converged", "minimum")
        assert "started" not in finding.sentence


def test_a_long_way_down_is_no_convergence():
    runs = ds.descend(
        ds.Problem.from_function(
            lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, start={"x": -100.0, "y": 100.0}
        ),
        optim.Adam, lr=0.5, steps=2000, progress=False,
    )  # fmt: skip
    assert runs.explain()[0].verdict == "converging"  # at 2,000 of 10¹⁰, where the minimum is 0


def test_clipped_steps_that_march():
    finding = function(lambda x: 5 * x**2, 1e4, lr=0.3, clip_norm=1.0, steps=100)
    assert (finding.verdict, finding.cause) == ("converging", "clipping-slows")
    assert finding.try_it().held


def test_a_schedule_that_stops_too_soon():
    schedule = ds.Schedule(optim.lr_scheduler.StepLR, per="step", step_size=5, gamma=0.1)
    finding = function(lambda x: x**2, 3.0, lr=0.03, schedule=schedule, steps=200)
    assert (finding.cause, finding.confidence) == ("rate-fell", "likely")
    warm = ds.Schedule(optim.lr_scheduler.OneCycleLR, per="step", max_lr=8.0, total_steps=200)
    finding = function(lambda x: x**2, 3.0, lr=1e-4, schedule=warm, steps=200)
    assert finding.cause == "rate-above-threshold"
    assert "Rates follow a schedule" in finding.sentence
    with pytest.raises(ds.DownslopeError, match="only you can follow"):
        finding.try_it()


def test_at_the_threshold_after_an_even_number_of_updates():
    finding = function(lambda x: (x - 1) ** 2, 3.0, lr=1.0, steps=100)
    assert (finding.verdict, finding.cause) == ("cycling", "rate-at-threshold")


def test_what_falls_without_end():
    problem = ds.Problem.from_function(lambda x, y: x**2 - y**2, start={"x": 3.0, "y": 1e-3})
    runs = ds.descend(problem, optim.SGD, lr=0.1, steps=100, progress=False)
    assert runs.explain()[0].cause == "unbounded"


def test_rates_by_pattern_name_no_rate():
    problem = ds.Problem.from_function(lambda x, y: x**2 + y**2, start={"x": 3.0, "y": 3.0})
    runs = ds.descend(problem, optim.SGD, lr={"x": [0.99, 1.1], "y": [0.1]}, steps=60,
                      progress=False)  # fmt: skip
    for finding in runs.explain():
        assert "None" not in finding.sentence and finding.confidence != "certain"


def test_columns_alike_are_not_blamed_on_each_other():
    X, y = load_diabetes(return_X_y=True)  # every column has a root mean square of 0.0476
    y = torch.tensor(y, dtype=torch.float32)[:, None]
    problem = ds.Problem.from_model(
        nn.Linear(10, 1), torch.tensor(X, dtype=torch.float32), y, loss=nn.MSELoss()
    )
    runs = ds.descend(problem, optim.SGD, lr=0.1, epochs=200, progress=False)
    finding = runs.explain()[0]
    assert finding.cause == "feature-scales" and "times as large as" not in finding.sentence


def test_steep_directions_that_are_down_are_not_blamed(diabetes):
    X, y = diabetes
    problem = ds.Problem.from_model(nn.Linear(10, 1), X, y, loss=nn.MSELoss())
    limit = 2 / float(np.linalg.eigvalsh(2 * (np.c_[X, np.ones(120)].T @ np.c_[X, np.ones(120)])
                                         / 120)[-1])  # fmt: skip
    runs = ds.descend(problem, optim.SGD, lr=0.9 * limit, epochs=150, progress=False)
    assert runs.explain()[0].verdict in ("converging", "creeping")


def test_validation_that_rises_is_told():
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.normal(size=(40, 10)), dtype=torch.float32)
    y = torch.tensor(rng.normal(size=(40, 1)), dtype=torch.float32)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    problem = ds.Problem.from_model(net, X, y, loss=nn.MSELoss())
    runs = ds.descend(problem, optim.Adam, lr=0.005, epochs=150, validation=0.3, progress=False)
    finding = runs.explain()[0]
    assert "The validation loss was lowest after step" in finding.sentence
    assert finding.advice is None or "steps" not in finding.advice.change
