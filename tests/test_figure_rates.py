"""Sensitivity to the rate: thresholds against theory worked out here, and what a search found."""

import copy
import io
from dataclasses import replace

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.data.rates import sensitivity
from downslope.views.data.settings import settings_of
from downslope.views.data.thresholds import thresholds
from downslope.views.data.tunings import tuning_curve

X = torch.arange(-5, 5, 0.1, dtype=torch.float64).reshape(-1, 1)
LARGEST = float(
    np.linalg.eigvalsh(2 * np.cov(np.c_[X, np.ones(100)].T, bias=True) + 2 * np.outer(
        [float(X.mean()), 1.0], [float(X.mean()), 1.0]))[-1]
)  # fmt: skip
"""Of the Hessian 2/n Σ (x, 1)(x, 1)ᵀ of a straight line's mean squared error."""


def line_problem(model=None):
    model = model or nn.Linear(1, 1, dtype=torch.float64)
    return ds.Problem.from_model(model, X, -5 * X + 1, loss=nn.MSELoss())


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


def found(runs):
    return thresholds(runs, settings_of(runs, ("lr",)))


def shown(figure):
    figure.savefig(io.BytesIO(), format="png")
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text)]


class TestThresholds:
    @pytest.mark.parametrize(
        ("settings", "factor"),
        [
            ({}, 2.0),
            ({"dampening": 0.5}, 2.0),  # torch damps nothing without momentum
            ({"momentum": 0.9}, 2 * 1.9),
            ({"momentum": 0.5, "dampening": 0.5}, 2 * 1.5 / 0.5),
            ({"momentum": 0.5, "nesterov": True}, 3 / 2),
        ],
    )
    def test_full_batches(self, settings, factor):
        runs = descend(line_problem(), optim.SGD, lr=[0.01, 0.1], epochs=2, **settings)
        told = found(runs)
        assert told.unknown == ""
        (one,) = told.found
        assert one.rate == pytest.approx(factor / LARGEST, rel=1e-9)
        assert one.exact and one.label.startswith("threshold 2")

    @pytest.mark.parametrize(
        "settings",
        [{}, {"momentum": 0.7}, {"momentum": 0.7, "nesterov": True}, {"weight_decay": 3.0},
         {"momentum": 0.6, "dampening": 0.3}],
    )  # fmt: skip
    def test_runs_grow_above_it_and_shrink_below_it(self, settings):
        problem = line_problem()
        rate = found(descend(problem, optim.SGD, lr=0.01, epochs=1, **settings)).found[0].rate
        runs = descend(
            problem, optim.SGD, lr=[0.97 * rate, 1.03 * rate], steps=800, divergence=1e4, **settings
        )
        assert runs.table["status"].to_list() == ["finished", "diverged"]

    def test_each_line_has_its_own(self):
        runs = descend(line_problem(), optim.SGD, lr=[0.01, 0.1], momentum=[0.0, 0.9], epochs=2)
        data = sensitivity(runs)
        assert [t.lines for t in data.theory.found] == [(0,), (1,)]
        words = shown(runs.plot.sensitivity())
        assert " threshold 2/λ = 0.12" in words and " threshold 2(1+μ)/λ = 0.2279" in words

    def test_lines_that_share_one(self):
        runs = descend(
            line_problem(), optim.SGD, lr=[0.01, 0.1], batch_size=["full", 100, 200], epochs=2
        )
        (one,) = found(runs).found
        assert one.lines == tuple(range(len(settings_of(runs, ("lr",)))))

    def test_small_batches_of_one_parameter_by_hand(self):
        # E (1 − η h)² < 1 for h = 2 x², one sample at a time: η < 2 E[h] / E[h²].
        bends = 2 * X[:, 0].numpy() ** 2
        problem = ds.Problem.from_model(
            nn.Linear(1, 1, bias=False, dtype=torch.float64), X, 0 * X, loss=nn.MSELoss()
        )
        runs = descend(problem, lr=0.01, batch_size=1, order="replacement", epochs=1)
        (one,) = found(runs).found
        assert one.rate == pytest.approx(2 * bends.mean() / (bends**2).mean())
        assert one.label.startswith("threshold on average (batch size 1) = ")

    def test_where_the_loss_is_no_quadratic_it_is_that_of_the_starts(self):
        torch.manual_seed(0)
        problem = ds.Problem.from_model(
            lambda: nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)),
            X.float(), X.float(), loss=nn.MSELoss(),
        )  # fmt: skip
        runs = descend(problem, lr=[0.01, 0.1], seed=range(3), steps=1, keep=("loss", "parameters"))
        model = copy.deepcopy(problem.template.model).double()
        rates = []
        for run in runs.where(lr=0.01):
            start = {name: value[0].double() for name, value in run.path.items()}

            def loss(*values, names=tuple(start)):
                named = dict(zip(names, values, strict=True))
                made = torch.func.functional_call(model, named, (X,))
                return nn.functional.mse_loss(made, X)

            blocks = torch.autograd.functional.hessian(loss, tuple(start.values()))
            sizes = [v.numel() for v in start.values()]
            rows = [torch.cat([b.reshape(n, -1) for b in row], 1)
                    for n, row in zip(sizes, blocks, strict=True)]  # fmt: skip
            rates.append(2 / float(torch.linalg.eigvalsh(torch.cat(rows))[-1]))
        (one,) = found(runs).found
        assert not one.exact and "threshold at the start, 2/λ = " in one.label
        assert (one.rate, one.low, one.high) == pytest.approx(
            (np.median(rates), min(rates), max(rates)), rel=1e-4
        )

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"optimizer": optim.Adam}, "no cheap threshold for Adam"),
            ({"clip_norm": 1.0}, "clipped"),
            ({"schedule": ds.Schedule(optim.lr_scheduler.StepLR, step_size=1)}, "schedule"),
            ({"lr": {"weight": [0.01, 0.1], "bias": 0.1}}, "parameter name"),
            ({"batch_size": 5, "order": "cyclic"}, "fixed order"),
            ({"batch_size": 5, "momentum": 0.9}, "momentum"),
        ],
    )
    def test_none_is_said_to_be_none(self, asked, words):
        optimizer = asked.get("optimizer", optim.SGD)
        rest = {name: value for name, value in asked.items() if name != "optimizer"}
        runs = descend(line_problem(), optimizer, **{"lr": [0.01, 0.1], "epochs": 2, **rest})
        told = sensitivity(runs).theory
        assert told.found == () and words in told.unknown
        told = [said.replace("\n", " ") for said in shown(runs.plot.sensitivity())]
        assert not any(said.strip().startswith("threshold") for said in told)
        assert any("Threshold not drawn" in said and words in said for said in told)

    def test_models_that_cannot_be_measured(self, tmp_path):
        class Kinked(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x * 2

            @staticmethod
            def backward(context, gradient):
                return gradient * 2

        class Own(nn.Linear):
            def forward(self, x):
                return Kinked.apply(super().forward(x))

        narrow = nn.Linear(1, 1, dtype=torch.float64)
        wide = nn.Sequential(narrow, nn.Linear(1, 30_000).double(), nn.Linear(30_000, 1).double())
        for model, words in (
            (nn.Sequential(narrow, nn.Dropout(0.5)), "differs from one pass"),
            (Own(1, 1, dtype=torch.float64), "measuring failed with RuntimeError"),
            (wide, "too many to measure"),
        ):
            runs = descend(line_problem(model), lr=[1e-6, 1e-5], steps=1, engine="looped")
            assert words in sensitivity(runs).theory.unknown
        runs.save(tmp_path / "study")
        assert "without their problem" in found(ds.load(tmp_path / "study")).unknown
        assert shown(ds.load(tmp_path / "study").plot.sensitivity())

    def test_a_flat_start_and_what_is_maximised(self):
        flat = ds.Problem.from_function(lambda x: -(x**2), start=1.0)
        told = found(descend(flat, lr=0.1, steps=1))
        assert told.found == () and "flat or bends down" in told.unknown
        (one,) = found(descend(flat, optim.SGD, lr=0.1, maximize=True, steps=1)).found
        assert one.rate == pytest.approx(1.0)  # 2 / λ of x², whose λ is 2

    def test_measuring_changes_nothing(self):
        module = nn.Linear(1, 1, dtype=torch.float64)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        runs = descend(line_problem(module), lr=[0.01, 0.1], epochs=2)
        kept, random = runs.loss.copy(), torch.get_rng_state()
        sensitivity(runs)
        assert torch.equal(random, torch.get_rng_state())
        np.testing.assert_array_equal(runs.loss, kept)
        assert all(torch.equal(before[n], v) for n, v in module.state_dict().items())

    def test_one_close_by_widens_the_axis_and_one_far_off_does_not(self):
        near = sensitivity(descend(line_problem(), lr=[0.01, 0.05], epochs=2))
        far = sensitivity(descend(line_problem(), lr=[1e-6, 1e-5], epochs=2))
        assert near.x_limits[1] > 2 / LARGEST and far.x_limits[1] < 1e-4


@pytest.fixture(scope="module")
def tuning():
    return ds.tune(line_problem(), optim.SGD, epochs=15, batch_size=[10, "full"], progress=False)


class TestTuning:
    def test_the_curve_is_that_of_the_search(self, tuning):
        data = tuning_curve(tuning)
        (line,) = data.lines
        for mine, name in (
            (line.rates, "lr"), (line.middle, "median"), (line.low, "low"), (line.high, "high"),
            (line.runs, "seeds"), (line.diverged, "diverged"),
        ):  # fmt: skip
            np.testing.assert_array_equal(mine, tuning.curve[name].to_numpy())
        own = tuning.runs.where(lr=tuning.lr, batch_size=tuning.settings["batch_size"])
        assert data.best[:2] == (tuning.lr, pytest.approx(np.median(own.table["final_loss"])))
        assert data.best[2] == f"chosen rate: {tuning.lr:.4g}"

    def test_spans_are_those_of_the_search(self, tuning):
        told = tuning_curve(tuning).tuned
        assert (told.stable, told.flat) == (tuning.stable, tuning.flatness)
        assert told.first_unstable == tuning.first_unstable
        bad = tuning.curve.filter((pl.col("diverged") > 0) & (pl.col("lr") > tuning.lr))
        assert told.first_unstable == bad["lr"].min()

    def test_it_is_drawn_with_its_threshold(self, tuning):
        words = shown(tuning.plot())
        assert f" chosen rate: {tuning.lr:.4g}" in words
        assert any(w.startswith(" no run diverged: 1e-06 to ") for w in words)
        assert any(w.startswith(" about as good (within 10 %): ") for w in words)
        assert any(w.startswith(" first rate at which a run diverged: ") for w in words)
        assert any("threshold" in w for w in words)

    def test_no_stable_rate_is_drawn_too(self):
        tuned = ds.tune(line_problem(), lr=[10.0, 100.0], epochs=100, progress=False)
        assert tuned.lr is None
        data = tuning_curve(tuned)
        assert data.best is None and data.hopeless.shape == (1, 2)
        assert " rates where every run diverged" in shown(tuned.plot())

    def test_an_optimizer_without_a_rate_is_told(self, tuning):
        without = replace(tuning, curve=tuning.curve.with_columns(lr=pl.lit(float("nan"))))
        with pytest.raises(InputError, match=r"SGD has no learning rate"):
            without.plot()
