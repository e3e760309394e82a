"""Pictures of a comparison: their plain data against the runs, and that drawing them is sound."""

from math import comb, inf, nan

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch
from drawn import png, words_in
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.comparison_figures import ComparisonPlots
from downslope.views.data.budgets import expected_best, times
from downslope.views.data.comparisons import MOST_PANELS, rates, results
from downslope.views.data.contests import profiles, wins
from downslope.views.drawing.budgets import draw_times
from downslope.views.drawing.comparisons import draw_results
from downslope.views.drawing.contests import draw_profiles, draw_wins

PICTURES = ("profiles", "results", "wins", "expected_best", "sensitivity", "targets")


@pytest.fixture(scope="module")
def found():
    """A line with batches, under two names; SGD's higher rates diverge, Adam's do not."""
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    line = ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x, loss=nn.MSELoss())
    return ds.compare(
        {"价格 $x_1$, a name that is sixty letters long and more": line, "other": line},
        [ds.Space(optim.SGD, lr=ds.Range(1e-3, 1e3)), optim.Adam],
        epochs=4, batch_size=5, budget=5, seeds=6, divergence=100.0, progress=False,
    )  # fmt: skip


class TestData:
    def test_results_are_the_runs(self, found):
        data = results(found.table, found.results)
        assert [p.problem for p in data.panels] == found.table["problem"].unique(
            maintain_order=True
        ).to_list()
        assert data.optimizers == ("SGD", "Adam") and data.problems == 2
        one = data.panels[0].lines[1]
        own = found.results.filter(
            (pl.col("problem") == data.panels[0].problem)
            & (pl.col("optimizer") == "Adam")
            & (pl.col("setting") == "tuned")
        )["final_loss"].to_numpy()
        assert one.n == 6 and one.diverged == 0
        np.testing.assert_array_equal(one.losses, own)
        assert one.median == pytest.approx(np.median(own))
        assert (one.low, one.high) == (own.min(), own.max())  # of six, the only bounds of 95 %
        assert one.coverage == pytest.approx(1 - 2 / 2**6)

    def test_failures_are_counted_and_stretch_nothing(self):
        table = pl.DataFrame(
            {"problem": ["p"], "optimizer": ["SGD"], "n": [3], "diverged": [1], "median": [2.0],
             "low": [nan], "high": [nan], "coverage": [nan], "lower_quartile": [1.0],
             "upper_quartile": [inf], "default_median": [1e30], "default_diverged": [0]}
        )  # fmt: skip
        runs = pl.DataFrame(
            {"problem": ["p"] * 3, "optimizer": ["SGD"] * 3, "setting": ["tuned"] * 3,
             "initial_loss": [5.0] * 3, "final_loss": [1.0, 2.0, None]}
        )  # fmt: skip
        data = results(table, runs)
        (one,) = data.panels[0].lines
        assert one.losses.tolist() == [1.0, 2.0] and one.diverged == 1
        low, high = data.panels[0].limits
        assert low == pytest.approx(0.95) and high == pytest.approx(2.05)
        figure = draw_results(data)
        assert png(figure) and "× 1" in words_in(figure) and "◇ 1e+30" in words_in(figure)
        assert " median, no interval" in words_in(figure)

    def test_rates_are_the_trials(self, found):
        data = rates(found.sensitivity, found.table, found.results)
        sgd, adam = data.panels[1].lines
        assert (np.diff(sgd.rates) > 0).all() and len(sgd.rates) == 5
        assert sgd.diverged.any() and not adam.diverged.any()
        assert (sgd.diverged <= sgd.n).all() and set(sgd.n) == {3}
        chosen = found.table.filter(pl.col("optimizer") == "SGD")["lr"][1]
        assert sgd.rates[sgd.chosen] == chosen and sgd.joined
        assert data.panels[1].limits[1] < 100

    def test_more_than_the_rate_is_not_joined(self):
        space = ds.Space(optim.SGD, lr=ds.Range(1e-3, 0.1), momentum=[0.0, 0.9])
        made = ds.compare("booth", [space], steps=5, budget=4, seeds=2, progress=False)
        data = rates(made.sensitivity, made.table, made.results)
        assert not data.panels[0].lines[0].joined and png(made.plot.sensitivity())
        with pytest.raises(InputError, match="compare at least two"):
            made.plot.wins()

    def test_expected_best_by_counting_subsets(self, found):
        data = expected_best(found.expected_best, found.results)
        trials = found.sensitivity.filter(
            (pl.col("problem") == "other") & (pl.col("optimizer") == "Adam")
        )
        scores = np.sort(trials["median"].to_numpy())
        one = data.panels[1].lines[1]
        assert one.trials.tolist() == [1, 2, 3, 4, 5]
        for k in one.trials:
            chances = [comb(4 - i, k - 1) / comb(5, k) if 4 - i >= k - 1 else 0 for i in range(5)]
            assert one.expected[k - 1] == pytest.approx(np.dot(chances, scores))
        assert one.middle[-1] == scores[0] and one.middle[0] == pytest.approx(np.median(scores))

    def test_times_to_targets(self, found):
        data = times(found.targets)
        one = data.panels[0].lines[1]
        assert one.shares.tolist() == [0.5, 0.9, 0.99, 0.999] and one.n == 6
        reached = found.results.filter(
            (pl.col("problem") == data.panels[0].problem)
            & (pl.col("optimizer") == "Adam")
            & (pl.col("setting") == "tuned")
        )["steps_to_target"]
        assert one.reached[2] == reached.count()  # 0.99 is the comparison's own target
        there = np.isfinite(one.steps)
        np.testing.assert_array_equal(one.evaluations[there], 5 * one.steps[there])

    def test_profiles(self, found):
        data = profiles(found.profiles, found.table, 0.99)
        assert data.problems == 2 and data.seeds == (6, 6)
        for one in data.profiles:
            assert one.tau[0] == 1.0 and (np.diff(one.solved) >= 0).all()
        assert max(one.solved[0] for one in data.profiles) > 0  # somebody was the fastest
        with pytest.raises(InputError, match=r"share must be one of 0.5, .* got 0.7"):
            found.plot.profiles(share=0.7)

    def test_wins_of_each_pair_once(self, found):
        data = wins(found.wins)
        assert data.rows[0].problem is None and len(data.rows) == 3
        assert {(row.optimizer, row.against) for row in data.rows} == {("SGD", "Adam")}
        overall, *singles = data.rows
        assert overall.share == pytest.approx(np.mean([row.share for row in singles]))
        for row in singles:
            assert row.low <= row.share <= row.high

    def test_many_problems(self, found):
        many = [f"problem {k}" for k in range(20)]
        one = found.table["problem"][0]

        def grown(frame):
            own = frame.filter(pl.col("problem") == one)
            return pl.concat([own.with_columns(problem=pl.lit(name)) for name in many])

        data = results(grown(found.table), grown(found.results))
        assert len(data.panels) == MOST_PANELS and data.problems == 20
        assert f"The first {MOST_PANELS} of 20 problems" in words_in(draw_results(data))
        assert "The first 12 of 20 problems" in words_in(draw_times(times(grown(found.targets))))
        pairs = pl.concat([grown(found.wins), found.wins.filter(pl.col("problem").is_null())])
        assert [row.problem for row in wins(pairs).rows] == [None, *many]


class TestDrawing:
    @pytest.mark.parametrize("name", PICTURES)
    def test_pictures_are_figures(self, found, name):
        before = dict(matplotlib.rcParams)
        figure = getattr(found.plot, name)()
        assert isinstance(found.plot, ComparisonPlots) and isinstance(figure, Figure)
        assert png(figure) and dict(matplotlib.rcParams) == before

    def test_names_are_drawn_as_they_are(self, found):
        for name in PICTURES[1:]:
            assert any(r"\$x_1\$" in words for words in words_in(getattr(found.plot, name)()))

    def test_legends_say_what_stands_for_what(self, found):
        said = words_in(found.plot.results())
        assert " quartiles of the runs" in said and " median, 96.9 % interval" in said
        assert any("(n = 6)" in words for words in said)
        assert any("3 tuning seeds" in words for words in words_in(found.plot.sensitivity()))
        assert any("n = 6 seeds" in words for words in words_in(found.plot.profiles()))

    def test_panels_do_not_overlap(self, found):
        for name in ("results", "sensitivity", "targets", "expected_best"):
            figure = getattr(found.plot, name)()
            png(figure)
            shown = [axes for axes in figure.axes if axes.get_visible()]
            boxes = [axes.get_tightbbox() for axes in shown]
            boxes += [one.get_window_extent() for one in figure.legends]
            for place, one in enumerate(boxes):
                assert not any(one.overlaps(other) for other in boxes[place + 1 :]), name

    def test_nobody_solves_anything(self):
        frame = pl.DataFrame(
            {"share": [0.99, 0.99], "optimizer": ["a", "b"], "tau": [1.0, 1.0],
             "problems": [0.0, 0.0]}
        )  # fmt: skip
        table = pl.DataFrame({"problem": ["p", "p"], "n": [1, 1]})
        data = profiles(frame, table, 0.99)
        assert data.right == 2.0 and png(draw_profiles(data))

    def test_pairs_beyond_the_room_are_said(self):
        names = [f"optimizer {k}" for k in range(10)]
        rows = [
            {"problem": p, "optimizer": a, "against": b, "n": 2, "wins": 1, "ties": 0, "losses": 1,
             "share": 0.5, "low": nan, "high": nan}
            for a in names for b in names if a != b for p in ("p", "q", None)
        ]  # fmt: skip
        data = wins(pl.DataFrame(rows, infer_schema_length=None))
        assert (data.pairs, data.drawn_pairs, len(data.rows)) == (45, 36, 36)
        assert data.rows[0].single.tolist() == [0.5, 0.5]
        figure = draw_wins(data)
        assert png(figure) and "The first 36 of 45 pairs" in words_in(figure)
