"""What makes a comparison fair: equal trials, fresh seeds, targets fixed beforehand."""

from math import inf, nan

import numpy as np
import polars as pl
import pytest
import torch
from comparisons import QUICK
from torch import optim

import downslope as ds
from downslope.comparing.cases import cases_of
from downslope.comparing.runs import Seen
from downslope.comparing.targets import steps_to, targets_of
from downslope.sampling import epoch_order
from downslope.search_spaces import space_of

# -- spaces, targets, choices ----------------------------------------------------------------------


def test_trials_are_the_same_draws_for_all():
    """The third of one log range is the third of another, and budgets only add trials."""
    sgd, other = space_of("sgd"), ds.Space(optim.Adadelta, lr=ds.Range(0.1, 5))
    for a, b in zip(sgd.trials(20, 5), other.trials(20, 5), strict=True):
        units = [
            np.log(trial["lr"] / low) / np.log(high / low)
            for trial, low, high in ((a, 1e-5, 10), (b, 0.1, 5))
        ]
        assert units[0] == pytest.approx(units[1], abs=1e-9) and 0 <= units[0] <= 1
    assert space_of("adam").trials(20, 5) == sgd.trials(20, 5)
    assert sgd.trials(20, 5)[:7] == sgd.trials(7, 5) != sgd.trials(7, 6)


def test_a_space_of_several_hyperparameters():
    space = ds.Space(
        optim.SGD, momentum=[0.0, 0.9], weight_decay=ds.Range(0, 0.1, log=False), nesterov=False
    )
    trials = space.trials(200, 0)
    assert {t["momentum"] for t in trials} == {0.0, 0.9} and all(not t["nesterov"] for t in trials)
    decays = np.array([t["weight_decay"] for t in trials])
    rates = np.log10([t["lr"] for t in trials])
    assert 0 <= decays.min() < 0.01 and 0.09 < decays.max() <= 0.1
    assert abs(np.corrcoef(decays, rates)[0, 1]) < 0.2, "dimensions are drawn apart"
    assert space.default() == {"lr": 1e-3, "momentum": 0, "weight_decay": 0, "nesterov": False}


def seen(score, first_bad_step=None, curve=None, steps=(0, 1)):
    score = np.asarray(score, float)
    curve = np.stack([np.ones_like(score), score], -1) if curve is None else np.asarray(curve)
    bad = np.full(score.shape, -1) if first_bad_step is None else np.asarray(first_bad_step)
    rows = [{"lr": 10.0**k} for k in range(len(score))]
    return Seen(rows, tuple(range(score.shape[1])), score, bad, np.full(score.shape, "finished"),
                np.asarray(steps), curve, "looped")  # fmt: skip


def test_a_setting_that_diverged_on_any_seed_ranks_last():
    assert seen([[1, 1, inf], [5, 5, 5], [4, 6, 7]]).chosen == 1
    assert seen([[1, inf, inf], [9, 9, inf], [8, 8, inf]]).chosen == 2, "fewest failures first"
    assert seen([[2, 2], [2, 2]]).chosen == 0
    assert seen([[1, 1, inf], [5, 5, 5]]).trial_scores.tolist() == [inf, 5]


def test_targets_and_steps_by_hand():
    """From 10 to 2 by the baseline: 90 % of the way is 2.8; a run that diverges never gets there,
    however low it once was."""
    case = cases_of("booth", epochs=None, steps=4, batch_size=None, order=None, validation=None)[0]
    curve = [[[10, 6, 2.8, 2.5, 2]], [[10, 1, nan, nan, nan]]]
    steps = (0, 1, 2, 3, 4)
    baseline = seen([[2.0], [inf]], [[-1], [2]], curve, steps)
    targets = targets_of(case, ["A"], [baseline], "A", [0.5, 0.9])
    assert [t.loss for t in targets] == [6, pytest.approx(2.8)]
    assert steps_to(baseline, 6).tolist() == [[1], [inf]]
    assert steps_to(baseline, 1.5).tolist() == [[inf], [inf]]
    worse = seen([[12.0]], None, [[[10, 10, 10, 11, 12]]], steps)
    assert targets_of(case, ["B", "A"], [worse, baseline], "B", [0.5])[0].baseline == "A"
    assert np.isnan(targets_of(case, ["B"], [worse], "B", [0.5])[0].loss)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 442, 500, "full"])
def test_gradient_evaluations_are_samples_seen(batch_size):
    case = cases_of("diabetes", epochs=None, steps=5, batch_size=batch_size, order=None,
                    validation=None)[0]  # fmt: skip
    size = 442 if batch_size == "full" else batch_size
    seen_ = 0
    for step in range(1, 200):
        begun = ((step - 1) * size) % (-(-442 // size) * size)
        seen_ += len(epoch_order("shuffle", 442, 0, 0)[begun : begun + size])
        assert case.evaluations(step) == seen_


# -- the protocol ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return ds.compare(
        ["booth", "quadratic-10", "regression-30"], ["sgd", "momentum", "adam"], **QUICK
    )


def test_reported_runs_are_those_of_descend(small):
    """The chosen setting, run from the fresh seeds by plain torch, gives the same final losses."""
    rows = small.results.filter(
        (pl.col("problem") == "regression-30")
        & (pl.col("optimizer") == "momentum")
        & (pl.col("setting") == "tuned")
    )
    problem = ds.problems.make("regression-30")
    x, y = problem.train.x, problem.train.y
    for row in rows.head(3).to_dicts():
        objective = problem.fresh(row["seed"])
        optimizer = optim.SGD(objective.parameters(), lr=row["lr"], momentum=0.9)
        for step in range(40):
            epoch, batch = divmod(step, 7)
            order = torch.from_numpy(epoch_order("shuffle", 200, row["seed"], epoch))
            some = order[32 * batch : 32 * batch + 32]
            optimizer.zero_grad()
            objective(x[some], y[some]).backward()
            optimizer.step()
        assert row["final_loss"] == pytest.approx(objective(x, y).item(), rel=1e-4)


def test_the_choice_is_the_best_trial(small):
    """By descents of our own, trial for trial, on the tuning seeds."""
    trials = small.sensitivity.filter(
        (pl.col("problem") == "quadratic-10") & (pl.col("optimizer") == "Adam")
    ).sort("trial")
    rates = [t["lr"] for t in space_of("adam").trials(6, 0)]
    assert trials["lr"].to_list() == rates
    assert small.sensitivity["lr"].to_list()[:6] == sorted(rates), (
        "a curve reads from left to right"
    )
    assert small.sensitivity["optimizer"].unique(maintain_order=True).to_list() == [
        "SGD",
        "momentum",
        "Adam",
    ]
    problem = ds.problems.make("quadratic-10", drawn=True)
    runs = ds.descend(problem, "Adam", lr=rates, seed=range(3), steps=40, every=40,
                      engine="looped", progress=False)  # fmt: skip
    medians = np.median(runs.table["final_loss"].to_numpy().reshape(6, 3), 1)
    assert trials["median"].to_numpy() == pytest.approx(medians, rel=1e-6)
    assert trials["chosen"].arg_max() == medians.argmin() and trials["chosen"].sum() == 1
    chosen = small.table.filter(
        (pl.col("problem") == "quadratic-10") & (pl.col("optimizer") == "Adam")
    )
    assert chosen["lr"][0] == rates[medians.argmin()]


def test_everyone_starts_at_the_same_place(small):
    starts = small.results.group_by("problem", "seed").agg(
        spread=pl.col("initial_loss").max() / pl.col("initial_loss").min() - 1
    )
    assert starts["spread"].max() < 1e-6, "within the rounding of what adds the losses up"
    fused = ds.compare("wine", ["sgd", "adam"], engine="fused", **QUICK).results
    assert (
        fused.group_by("seed").agg(pl.col("initial_loss").n_unique())["initial_loss"] == 1
    ).all()
    assert small.results["seed"].unique().sort().to_list() == list(range(3, 13))
    per_problem = small.results.group_by("problem").agg(pl.col("initial_loss").n_unique())
    assert (per_problem["initial_loss"] >= 10).all()


def test_the_tables_agree_with_the_runs(small):
    for row in small.table.to_dicts():
        mine = small.results.filter(
            (pl.col("problem") == row["problem"]) & (pl.col("optimizer") == row["optimizer"])
        )
        tuned, default = (mine.filter(pl.col("setting") == s) for s in ("tuned", "default"))
        assert row["median"] == pytest.approx(tuned["final_loss"].median())
        assert row["default_median"] == pytest.approx(default["final_loss"].median())
        ordered = tuned["final_loss"].sort()
        assert (row["low"], row["high"]) == (ordered[1], ordered[8]) and row["n"] == 10
    equal = small.sensitivity.group_by("problem", "optimizer").agg(pl.len(), pl.col("n").sum())
    assert (equal["len"] == 6).all() and (equal["n"] == 18).all()
    assert {"share", "optimizer", "tau", "problems"} == set(small.profiles.columns)
    assert small.expected_best.height == 9 * 6
    shares = small.wins.filter(pl.col("problem").is_not_null())
    both = shares.join(shares, left_on=["problem", "optimizer", "against"],
                       right_on=["problem", "against", "optimizer"])  # fmt: skip
    assert (both["wins"] == both["losses_right"]).all()
    assert ((both["share"] + both["share_right"]) - 1).abs().max() < 1e-12


def test_the_same_call_gives_the_same_digits(small):
    again = ds.compare(
        ["booth", "quadratic-10", "regression-30"], ["sgd", "momentum", "adam"], **QUICK
    )
    for name in ("results", "table", "targets", "profiles", "wins", "expected_best", "sensitivity",
                 "failures"):  # fmt: skip
        assert getattr(again, name).equals(getattr(small, name)), name
    assert str(again) == str(small) and again.summary() == small.summary()


def test_who_stands_beside_changes_nothing(small):
    alone = ds.compare(["booth", "quadratic-10", "regression-30"], "adam", **QUICK)
    assert alone.results.drop("steps_to_target", "gradient_evaluations").equals(
        small.results.filter(pl.col("optimizer") == "Adam").drop(
            "steps_to_target", "gradient_evaluations"
        )
    )


def test_the_text_fits_80_columns(small):
    text = str(small)
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "booth",
        "Rate curves",
        "40 updates, batches of 32: regression-30",
        "quartiles",
        "n = 10",
        "Summary",
        "Conditions",
        "no correction",
    ):
        assert words in text
    with pytest.raises(AttributeError):
        small.table = None


def test_engines_agree():
    asked = {**QUICK, "budget": 3, "seeds": 6}
    kinds = {
        engine: ds.compare("quadratic-10", ["sgd", "adam"], engine=engine, **asked)
        for engine in ("looped", "stacked", "fused")
    }
    losses = {e: found.results["final_loss"].to_numpy() for e, found in kinds.items()}
    assert losses["stacked"] == pytest.approx(losses["looped"], rel=1e-9)
    assert losses["fused"] == pytest.approx(losses["looped"], rel=1e-9)
    assert {e: found.results["engine"][0] for e, found in kinds.items()} == {e: e for e in kinds}


def test_bands_are_quartiles_of_the_runs(small):
    """Against descents of the chosen setting from the fresh seeds."""
    rows = small.table.filter(pl.col("problem") == "quadratic-10").to_dicts()
    problem = ds.problems.make("quadratic-10", drawn=True)
    runs = ds.descend(problem, "Adam", lr=rows[2]["lr"], seed=range(3, 13), steps=40,
                      every=1, progress=False)  # fmt: skip
    band = small.bands.filter(
        (pl.col("problem") == "quadratic-10") & (pl.col("optimizer") == "Adam")
    )
    assert band["step"].to_list() == list(range(41)) and (band["n"] == 10).all()
    ordered = np.sort(runs.loss, axis=0)
    assert band["median"].to_numpy() == pytest.approx((ordered[4] + ordered[5]) / 2, rel=1e-6)
    assert band["lower_quartile"].to_numpy() == pytest.approx(ordered[2], rel=1e-6)
    assert band["upper_quartile"].to_numpy() == pytest.approx(ordered[7], rel=1e-6)
    assert (band["diverged"] == 0).all()
