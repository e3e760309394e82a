"""The rate finder: against closed forms and theory, and what it says of hard cases."""

import random
from dataclasses import FrozenInstanceError

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.explain import stability
from downslope.problem import Problem

matplotlib.use("Agg")


def quadratic(*curvatures, start=1.0):
    """½ Σ λᵢ xᵢ², from `start` in every direction, in float64."""
    scale = torch.tensor(curvatures, dtype=torch.float64)
    return Problem.from_function(
        lambda x: 0.5 * (scale * x**2).sum(), start=[start] * len(curvatures)
    ).to(dtype=torch.float64)


def rows(seed=0, count=120):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(count, 3, generator=generator)
    y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.2 * torch.randn(count, 1, generator=generator)
    return X, y


@pytest.fixture(scope="module")
def regression():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
    return Problem.from_model(model, *rows(), loss=nn.MSELoss())


@pytest.fixture(scope="module")
def network():
    def make():
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    return Problem.from_model(make, *rows(), loss=nn.MSELoss())


def said(found, *words):
    """That one of the notes holds all these words."""
    assert any(all(word in note for word in words) for note in found.notes), found.notes


class SignDescent(optim.Optimizer):
    """An optimizer of a user's own."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad.sign())


class NoRate(optim.Optimizer):
    """One without lr."""

    def __init__(self, params, size=0.1):
        super().__init__(params, {"size": size})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["size"] * p.grad)


# -- against closed forms and theory ---------------------------------------------------------------


@pytest.mark.parametrize(("curvatures", "steps"), [((1, 10), 15), ((0.3, 2, 40), 60), ((5,), 3)])
def test_a_quadratics_best_rate(curvatures, steps):
    """The loss after n steps is ½ Σ λ (1 - ηλ)²ⁿ; its minimum over η by brute force."""
    values = np.array(curvatures, float)
    rates = np.geomspace(1e-3, 2.2 / values.max(), 200_001)[:, None]
    exact = (0.5 * values * (1 - rates * values) ** (2 * steps)).sum(1)
    found = ds.tune(quadratic(*curvatures), optim.SGD, steps=steps, progress=False)
    reached = (0.5 * values * (1 - found.lr * values) ** (2 * steps)).sum()
    if len(curvatures) == 1:  # any rate near 1 / λ comes down to nothing
        assert found.lr == pytest.approx(1 / values[0], rel=0.01)
    else:
        assert reached <= 1.02 * exact.min()
        assert found.lr == pytest.approx(float(rates[exact.argmin(), 0]), rel=0.01)
    assert found.score == pytest.approx(reached, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}])
def test_the_stable_edge_is_the_threshold(settings):
    """In 3,000 steps a run that is barely above the threshold has diverged."""
    found = ds.tune(quadratic(1, 8), optim.SGD, steps=3000, progress=False, **settings)
    threshold = float(stability.threshold(8.0, **settings))
    assert found.stable[1] <= 1.01 * threshold
    assert found.first_unstable >= 0.99 * threshold
    assert found.first_unstable / found.stable[1] < 1.03


def test_a_range_of_momentum_comes_as_far_as_polyaks_settings():
    """His are the best in the long run; at a given length others may do better, not worse."""
    problem, steps = quadratic(1, 100), 60
    best = stability.best_heavy_ball(1, 100)
    known = ds.descend(problem, optim.SGD, lr=best.rate, momentum=best.momentum, steps=steps,
                       progress=False)  # fmt: skip
    found = ds.tune(problem, optim.SGD, momentum=ds.Range(0, 0.99, log=False), steps=steps,
                    progress=False)  # fmt: skip
    assert found.score <= 1.5 * known.table["final_loss"][0]
    assert 0.5 < found.settings["momentum"] < 0.95
    assert len(found.runs) < 10_000


def test_the_chosen_rate_does_well_on_other_orders(regression):
    """With 40 seeds that were not tried, no rate of a grid has a much lower median."""
    found = ds.tune(regression, optim.SGD, epochs=6, batch_size=4, progress=False)
    rates = [found.lr, *ds.log_range(1e-4, 1, 33)]
    runs = ds.descend(regression, optim.SGD, lr=rates, seed=range(500, 540), epochs=6,
                      batch_size=4, progress=False)  # fmt: skip
    medians = np.nanmedian(np.where(runs.diverged, np.inf, runs.score).reshape(34, 40), axis=1)
    assert medians[0] <= 1.02 * medians[1:].min()


# -- what is returned ------------------------------------------------------------------------------


def test_what_is_returned(network):
    found = ds.tune(network, optim.Adam, epochs=4, batch_size=8, validation=0.25, progress=False)
    assert len(set(found.runs.settings["seed"])) >= 3
    chosen = found.runs.where(lr=found.lr)
    assert found.score == pytest.approx(float(np.median(chosen.score)))
    row = found.curve.filter(found.curve["lr"] == found.lr).row(0, named=True)
    assert row["median"] == pytest.approx(found.score)
    assert row["low"] <= row["median"] <= row["high"] and row["diverged"] == 0
    assert row["seeds"] == found.seeds == len(chosen) >= 3
    assert found.curve["lr"].is_sorted()
    low, high = found.stable
    inside = found.curve.filter(found.curve["lr"].is_between(low, high))
    assert inside["diverged"].sum() == 0 and low <= found.lr <= high
    assert found.flatness[0] <= found.lr <= found.flatness[1]
    assert found.flatness_factor == found.flatness[1] / found.flatness[0]
    assert found.settings == {"lr": found.lr, "batch_size": 8}
    assert "Adam" in repr(found) and f"{found.lr:.4g}" in repr(found)
    for words in ("take lr=", "final validation loss", "Stable:", "Flat:"):
        assert words in found.summary
    with pytest.raises(FrozenInstanceError):
        found.lr = 1.0


def test_the_settings_can_be_given_to_descend(network):
    found = ds.tune(network, optim.SGD, epochs=4, batch_size=[8, 40], momentum=[0, 0.9],
                    nesterov=False, progress=False)  # fmt: skip
    assert set(found.settings) == {"lr", "batch_size", "momentum", "nesterov"}
    runs = ds.descend(network, optim.SGD, epochs=4, seed=range(found.seeds), progress=False,
                      **found.settings)  # fmt: skip
    assert float(np.median(runs.score)) == pytest.approx(found.score, rel=1e-4)


def test_the_best_run_is_one_of_the_chosen_settings(network):
    found = ds.tune(network, optim.Adam, lr=[0.01, 0.1], epochs=2, clip_norm=[None, 0.5],
                    betas=[(0.9, 0.99), (0.5, 0.9)], batch_size=["full", 8],
                    progress=False)  # fmt: skip
    row = found.best.row
    assert row["lr"] == found.lr and tuple(row["betas"]) == found.settings["betas"]
    assert row["batch_size"] == str(found.settings["batch_size"])
    assert row["clip_norm"] == (found.settings["clip_norm"] or float("inf"))


def test_all_runs_of_the_sweep_are_one_runs(network, tmp_path):
    found = ds.tune(network, optim.SGD, epochs=3, batch_size=16, progress=False)
    runs = found.runs
    assert runs.settings["run"].to_list() == list(range(len(runs)))
    settings = runs.settings.select("lr", "seed")
    assert settings.is_duplicated().sum() == 0
    assert runs.plot.sensitivity() is not None
    last = runs.where(lr=found.lr, seed=found.seeds - 1)[0]
    assert last.number > 99  # of the second look
    again = last.replay()
    for name, values in last.parameters.items():
        assert torch.equal(values, again.parameters[name])
    assert found.best.number in runs.where(lr=found.lr).settings["run"]
    assert found.best.predict(rows()[0]).shape == (120, 1)
    runs.save(tmp_path / "sweep")
    assert len(ds.load(tmp_path / "sweep", problem=network)) == len(runs)


def test_twice_the_same(network):
    options = {"epochs": 3, "batch_size": 16, "progress": False}
    found = [ds.tune(network, optim.SGD, **options) for _ in range(2)]
    assert found[0].curve.equals(found[1].curve) and found[0].lr == found[1].lr
    looped = [ds.tune(network, optim.SGD, engine="looped", **options) for _ in range(2)]
    assert looped[0].curve.equals(looped[1].curve) and looped[0].lr == looped[1].lr


def test_nothing_of_the_users_is_changed():
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
    X, y = rows(count=24)
    model.eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    before = X.clone(), y.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    state = random.getstate()
    problem = Problem.from_model(model, X, y, loss=nn.MSELoss())
    found = ds.tune(problem, optim.Adam, steps=4, batch_size=8, progress=False)
    assert found.lr is not None
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(kept[n], value) for n, value in model.state_dict().items())
    assert torch.equal(before[0], X) and torch.equal(before[1], y)
    assert torch.equal(before[2], torch.get_rng_state())
    assert (before[3] == np.random.get_state()[1]).all() and state == random.getstate()
    said(found, "draws random numbers of its own")
    said(found, "one at a time", "draws random numbers in training", f"only {len(found.runs)}")


# -- handled and said ------------------------------------------------------------------------------


def test_no_stable_rate():
    """The square root's slope at 0 is infinite, whatever the rate."""
    found = ds.tune(Problem.from_function(lambda x: x.sqrt(), start=0.0), steps=5, progress=False)
    assert found.lr is None and found.stable is None and found.score is None
    assert found.flatness is None and found.flatness_factor is None
    assert found.curve["lr"].min() < 1e-17  # it looked below what it began with
    assert (found.curve["diverged"] == found.curve["seeds"]).all()
    said(found, "No stable rate", "1e-18", "100")
    assert "no stable rate" in repr(found) and "no stable rate" in found.summary
    with pytest.raises(ds.DownslopeError, match="no stable rate"):
        _ = found.best


@pytest.mark.parametrize(("curvature", "end"), [(1e11, "lower"), (1e-7, "upper")])
def test_the_range_is_left_where_the_best_lies_beyond(curvature, end):
    found = ds.tune(quadratic(curvature), optim.SGD, steps=4, progress=False)
    assert found.lr == pytest.approx(1 / curvature, rel=0.02)
    said(found, f"{end} edge")


def test_without_bounds_it_stops_and_says_so():
    found = ds.tune(Problem.from_function(lambda x: -x, start=1.0), steps=5, progress=False)
    assert found.lr >= 1e10
    said(found, "chosen rate is the highest of the rates that were tried", "a higher one")
    said(found, "below zero", "share of the way")


def test_a_given_range_is_not_left(regression):
    options = {"epochs": 2, "batch_size": 8, "progress": False}
    found = ds.tune(regression, optim.SGD, lr=ds.Range(1e-6, 1e-4), **options)
    assert found.curve["lr"].min() == 1e-6 and found.curve["lr"].max() == 1e-4
    said(found, "highest of the rates given", "a higher one")
    found = ds.tune(regression, optim.SGD, lr=[1e-4, 1e-3], seed=range(4), **options)
    assert found.curve["lr"].to_list() == [1e-4, 1e-3] and found.lr == 1e-3
    assert set(found.runs.settings["seed"]) == {0, 1, 2, 3} and found.seeds == 4


def test_negative_losses():
    found = ds.tune(
        Problem.from_function(lambda x: (x - 2) ** 2 - 7, start=5.0).to(dtype=torch.float64),
        optim.SGD, steps=8, progress=False,
    )  # fmt: skip
    assert found.score == pytest.approx(-7, abs=1e-3)
    said(found, "below zero")


def test_maximised():
    problem = Problem.from_function(lambda x: 3 - (x - 2) ** 2, start=5.0)
    found = ds.tune(problem, optim.SGD, maximize=True, steps=8, progress=False)
    assert found.score == pytest.approx(3, abs=0.01)
    assert found.curve["high"].max() <= 3 and found.curve["median"][0] < -5
    said(found, "maximised")


def test_noisy_losses(network):
    found = ds.tune(network, optim.SGD, steps=6, batch_size=2, progress=False)
    said(found, "Noisy", "smoothed")


def test_where_the_rate_does_not_matter_the_default_is_taken():
    """A start at the optimum: no gradient, no step."""
    options = {"steps": 5, "progress": False}
    found = ds.tune(quadratic(1, start=0.0), optim.Adam, seed=range(3), **options)
    assert found.lr == pytest.approx(1e-3)
    said(found, "does not matter")
    said(found, "No rate does better than the start")
    said(found, "All seeds give the same")
    found = ds.tune(quadratic(1, start=0.0), optim.Adam, **options)  # none was asked for
    assert not any("All seeds" in note for note in found.notes)


def test_a_rate_that_the_schedule_overrides(regression):
    schedule = ds.Schedule(optim.lr_scheduler.OneCycleLR, per="step", max_lr=0.1, total_steps=20)
    found = ds.tune(regression, optim.SGD, steps=20, batch_size=8, schedule=schedule,
                    progress=False)  # fmt: skip
    said(found, "does not matter", "schedule")


@pytest.mark.parametrize("optimizer", [optim.Adadelta, optim.Rprop, optim.LBFGS])
def test_optimizers_with_ways_of_their_own(optimizer):
    found = ds.tune(quadratic(1, 3), optimizer, steps=3, progress=False)
    assert found.lr is not None and found.score < 2.0
    if optimizer is optim.LBFGS:
        said(found, "one at a time", "LBFGS is not elementwise")


def test_an_optimizer_of_the_users_own(regression):
    found = ds.tune(regression, SignDescent, steps=30, progress=False)
    assert 0.01 < found.lr < 0.3  # 30 steps of it must cover about 2, and not overshoot
    said(found, "one at a time", "SignDescent")


def test_runs_that_are_not_compiled_are_fewer_and_that_is_said():
    def normalised():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    problem = Problem.from_model(normalised, *rows(count=40), loss=nn.MSELoss())
    found = ds.tune(problem, optim.SGD, steps=6, batch_size=10, progress=False)
    assert len(found.runs) < 150
    said(found, "side by side in torch, not compiled", f"only {len(found.runs)} were tried")
    assert not any("it serves" in note for note in found.notes)


def test_an_optimizer_without_lr():
    found = ds.tune(quadratic(4), NoRate, size=ds.Range(1e-3, 10), steps=5, progress=False)
    assert found.lr is None and found.stable is None and found.score < 0.1
    assert 0.05 < found.settings["size"] < 0.5
    said(found, "NoRate has no lr")
    with pytest.raises(ds.InputError, match=r"nothing to search: NoRate has no hyperparameter"):
        ds.tune(quadratic(4), NoRate, steps=5)


def test_too_few_seeds_are_said(regression):
    found = ds.tune(regression, optim.SGD, steps=5, batch_size=8, seed=7, progress=False)
    assert set(found.runs.settings["seed"]) == {7}
    said(found, "Fewer than three seeds")


def test_settings_that_cannot_be_told_apart():
    """Without momentum dampening is idle: both give the same runs."""
    found = ds.tune(quadratic(1, 3), optim.SGD, dampening=[0.0, 0.5], steps=8, progress=False)
    said(found, "does as well within 1 %", "dampening=0.5")


def test_an_interrupted_search_chooses_nothing(regression, monkeypatch):
    from downslope.searching import search

    def interrupted(*given, **options):
        runs = ds.descend(regression, optim.SGD, lr=0.1, steps=1, progress=False)
        from dataclasses import replace

        return replace(runs, interrupted=3)

    monkeypatch.setattr(search, "descend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ds.tune(regression, optim.SGD, steps=3)


# -- wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give epochs= or steps="),
        ({"steps": 3, "lr": {"x": 0.1}}, "parameter-name pattern"),
        ({"steps": 0}, "steps must be at least 1 to find a rate"),
        ({"steps": 3, "maximize": [False, True]}, "maximize must be True or False"),
        ({"steps": 3, "lr": "aut"}, "did you mean 'auto'"),
        ({"steps": 3, "lr": [0.1, -1]}, "above 0"),
        ({"steps": 3, "lr": 0.1}, "nothing to search"),
        ({"steps": 3, "lr": ds.Range(-1, 1, log=False)}, "starts above 0"),
        ({"step": 3}, "did you mean 'steps'"),
        ({"steps": 3, "momentun": 0.9}, "did you mean 'momentum'"),
        ({"steps": 3, "momentum": -1}, "Invalid momentum"),
        ({"steps": 3, "batch_size": ds.Range(1, 10)}, "a list of values"),
        ({"steps": 3, "weight_decay": {"x": [0, 1]}}, "not searched"),
        ({"steps": 3, "study": "folder"}, "tuning.runs.save"),
        ({"steps": 3, "engine": "fats"}, "engine must be one of"),
    ],
)
def test_wrong_use(settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ds.InputError, match=words):
        ds.tune(quadratic(1), optim.SGD, progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_several_optimizers_or_rows_are_refused():
    with pytest.raises(ds.InputError, match="one optimizer at a time"):
        ds.tune(quadratic(1), [optim.SGD, optim.Adam], steps=3)
    with pytest.raises(ds.InputError, match=r"not one of rows"):
        ds.tune(quadratic(1), ds.Grid.of(optim.SGD, [{"lr": 0.1}]), steps=3)
    found = ds.tune(quadratic(1), ds.Grid("sgd", lr=[0.5, 1.0]), steps=3, progress=False)
    assert found.lr == 1.0


@pytest.mark.parametrize(
    ("low", "high", "log", "words"),
    [(1, 0.1, True, "lower to a higher"), (0, 1, True, "log=False"), ("a", 1, True, "number"),
     (1, float("inf"), True, "number")],
)  # fmt: skip
def test_a_range_that_is_none(low, high, log, words):
    with pytest.raises(ds.InputError, match=words):
        ds.Range(low, high, log=log)


def test_descend_takes_no_range():
    with pytest.raises(ds.InputError, match=r"lr is a Range, which tune\(\) searches"):
        ds.descend(quadratic(1), optim.SGD, lr=ds.Range(0.1, 1), steps=3)


# -- luck ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "optimizer", "settings"),
    [("beale", optim.RMSprop, {}), ("wood", optim.SGD, {"momentum": 0.9})],
)
def test_a_lucky_first_look_does_not_decide(name, optimizer, settings):
    """With 60 seeds that were not tried, no stable rate of a grid has half the median."""
    problem, steps = ds.problems.make(name, drawn=True), 300
    found = ds.tune(problem, optimizer, steps=steps, progress=False, **settings)
    rates = [found.lr, *ds.log_range(1e-6, 1, 25)]
    runs = ds.descend(problem, optimizer, lr=rates, seed=range(700, 760), steps=steps, every=steps,
                      progress=False, **settings)  # fmt: skip
    ends = np.where(runs.diverged, np.inf, runs.score).reshape(len(rates), -1)
    medians = np.where(np.isfinite(ends).all(1), np.median(ends, 1), np.inf)
    assert medians[0] <= 2 * medians[1:].min()


def test_the_upper_end_of_stability_has_all_seeds():
    """At the end that is told, 60 other seeds hardly ever diverge."""
    problem = ds.problems.make("wood", drawn=True)
    found = ds.tune(problem, optim.SGD, momentum=0.9, steps=200, progress=False)
    at = found.curve.filter(found.curve["lr"] == found.stable[1])
    assert at["seeds"][0] == found.seeds == 24 and at["diverged"][0] == 0
    assert "(24 runs there)" in found.summary


def test_with_a_range_stability_is_that_of_the_settings_chosen():
    """Those were found late, close to the best rates alone: the others are tried again."""
    found = ds.tune(quadratic(1, 100), optim.SGD, momentum=ds.Range(0, 0.99, log=False), steps=60,
                    progress=False)  # fmt: skip
    first = ds.Range(0, 0.99, log=False).spread(9)
    assert found.settings["momentum"] not in first  # else nothing would be shown
    assert found.stable[0] == found.curve["lr"].min() == 1e-6 and found.curve["lr"].max() == 100
    assert found.first_unstable < 1.05 * found.stable[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("rosenbrock", r"got str: downslope.problems.make\('rosenbrock'\)"),
        (nn.Linear(1, 1), "got Linear: Problem.from_model"),
        (torch.sin, "Problem.from_function"),
        (3, "got int: Problem.from_model, from_function or from_table"),
    ],
)
def test_what_is_no_problem_is_refused(given, words):
    for entry in (ds.tune, ds.descend):
        with pytest.raises(ds.InputError, match=words):
            entry(given, optim.SGD, steps=3)


def test_an_order_that_is_not_drawn_needs_no_seeds():
    """In cyclic order from a fixed start all seeds give the same runs: 3 are enough to see."""
    torch.manual_seed(0)
    model, (X, y) = nn.Linear(3, 1), rows(count=24)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch_size=8)
    for problem, options in (
        (Problem.from_model(model, X, y, loss=nn.MSELoss()), {"order": "cyclic", "batch_size": 8}),
        (Problem.from_model(model, loader, loss=nn.MSELoss()), {}),
    ):
        found = ds.tune(problem, optim.SGD, epochs=3, progress=False, **options)
        assert set(found.runs.settings["seed"]) == {0, 1, 2}
    shuffled = ds.tune(problem, optim.SGD, epochs=3, order="shuffle", progress=False)
    assert set(shuffled.runs.settings["seed"]) == set(range(24))


def test_the_reason_for_one_run_at_a_time_is_the_optimizers():
    """Not that the runs are few: more would be carried out so too."""
    found = ds.tune(quadratic(1, 3), optim.LBFGS, lr=[0.5, 1.0], seed=1, steps=3, progress=False)
    said(found, "one at a time (LBFGS is not elementwise)")


class Repeated(optim.Optimizer):
    """Gradient descent of a user's own with a count: so many equal steps at once."""

    def __init__(self, params, lr=0.1, repeats=2):
        assert isinstance(repeats, int), repeats
        super().__init__(params, {"lr": lr, "repeats": repeats})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * group["repeats"] * p.grad)


def test_counts_are_searched_in_whole_numbers():
    found = ds.tune(quadratic(4), Repeated, lr=0.05, repeats=ds.Range(1, 12), seed=1, steps=3,
                    progress=False)  # fmt: skip
    assert found.settings["repeats"] == 5 and type(found.settings["repeats"]) is int
    tried = set(found.runs.settings["repeats"])
    assert tried <= set(range(1, 13)) and len(tried) < 12
    with pytest.raises(ds.InputError, match="no whole number"):
        ds.tune(quadratic(4), Repeated, repeats=ds.Range(2.2, 2.8), steps=3)


def test_values_stay_in_their_range():
    """Rounded to four digits they would leave it."""
    for low, high, log in ((0.123444, 0.765456, True), (0.9999891, 0.9999899, False)):
        inside = ds.Range(low, high, log=log).spread(5)
        assert ((inside >= low) & (inside <= high)).all()


def test_ties_far_beyond_the_usual_rates_are_left_out():
    """Separated classes: the larger the rate the sooner the loss is zero, whatever the rate."""
    X = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    y = (X > 0).float()
    problem = Problem.from_model(nn.Linear(1, 1, bias=False), X, y, loss=nn.BCEWithLogitsLoss())
    found = ds.tune(problem, optim.SGD, steps=20, progress=False)
    assert found.curve["lr"].max() > 1e3  # they were tried
    assert found.lr <= 100
    said(found, "Rates outside those first tried do as well", "1e-06 to 100")


def test_a_lower_median_that_was_not_taken_is_said():
    """Two starts in the same bowl; from the far one the largest rate leads away."""

    def loss(x):
        return torch.where(x.abs() < 2, 0.5 * x**2, 0.5 * x**4 - 6)

    problem = Problem.from_function(loss, start=1.0).to(dtype=torch.float64)
    starts = [{"x": value} for value in (1.0, 1.1, 2.5)]
    found = ds.tune(problem, optim.SGD, lr=[0.01, 0.9], start=starts, steps=5, progress=False)
    assert found.lr == 0.01
    row = found.curve.row(1, named=True)
    assert row["median"] < found.score and 0 < row["diverged"] < row["seeds"]
    said(found, "At 0.9 the median is", f"of {row['seeds']} runs {row['diverged']} diverged",
         "it was not taken")  # fmt: skip


def test_a_coarse_rate_is_said(regression):
    found = ds.tune(regression, SignDescent, steps=10, progress=False)
    rates = found.curve["lr"].to_list()
    below = rates[rates.index(found.lr) - 1]
    said(found, "The rate is coarse", f"nearest that were tried are {below:.4g}")
