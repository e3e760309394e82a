"""Pictures: their plain data against numbers counted by hand, and that drawing them is sound."""

import io
import warnings

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.data.losses import limits, loss_curves, over_seeds
from downslope.views.data.paths import paths
from downslope.views.data.rates import sensitivity
from downslope.views.data.settings import settings_of, thinned
from downslope.views.drawing.paths import draw_paths
from downslope.views.drawing.style import Picture, strokes, text
from downslope.views.figures import Plots, fit_figure

ROWS = 20


def line_problem(**given):
    x = torch.linspace(-1, 1, ROWS).reshape(-1, 1)
    noise = 0.1 * torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(0))
    return ds.Problem.from_model(
        lambda: nn.Linear(1, 1), x, 3 * x + 1 + noise, loss=nn.MSELoss(), **given
    )


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


@pytest.fixture(scope="module")
def bowls():
    """x² - 4x + 5 from 7 at rates of which the last diverges: x - 2 grows by -19 a step."""
    problem = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=torch.tensor(7.0).double())
    return descend(problem, lr=[0.1, 0.7, 10.0], steps=20, keep=("loss", "parameters"))


@pytest.fixture(scope="module")
def lines():
    """Two optimizers, three rates, three seeds, batches of 5; SGD at 1e3 diverges."""
    grids = [ds.Grid(optim.SGD, lr=[0.01, 0.1, 1e3]), ds.Grid(optim.Adam, lr=[0.01, 0.1])]
    kept = ("loss", "batch_loss", "parameters")
    return descend(
        line_problem(), grids, seed=range(3), batch_size=5, epochs=6, keep=kept, validation=0.25
    )


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def words_in(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text)]


class TestSettings:
    def test_seeds_make_one_setting(self, lines):
        found = settings_of(lines)
        assert [s.label for s in found] == [
            "SGD, lr 0.01", "SGD, lr 0.1", "SGD, lr 1000", "Adam, lr 0.01", "Adam, lr 0.1",
        ]  # fmt: skip
        assert [len(s.rows) for s in found] == [3] * 5
        assert [s.diverged for s in found] == [0, 0, 3, 0, 0]
        assert found[2].score == np.inf
        assert found[2].counted_label == "SGD, lr 1000 (3 seeds, all diverged)"
        assert found[0].counted_label == "SGD, lr 0.01 (3 seeds)"

    def test_labels_say_what_varies_and_no_more(self):
        runs = descend(
            line_problem(),
            [ds.Grid(optim.SGD, momentum=[0.0, 0.9]), ds.Grid(optim.Adam)],
            lr=0.1, batch_size=[5, "full"], epochs=1,
        )  # fmt: skip
        assert [s.label for s in settings_of(runs)] == [
            "SGD, lr 0.1, momentum 0, batch size 5",
            "SGD, lr 0.1, momentum 0, batch size full",
            "SGD, lr 0.1, momentum 0.9, batch size 5",
            "SGD, lr 0.1, momentum 0.9, batch size full",
            "Adam, lr 0.1, batch size 5",
            "Adam, lr 0.1, batch size full",
        ]

    def test_a_tuple_is_one_value(self):
        runs = descend(line_problem(), optim.Adam, betas=[(0.9, 0.99), (0.5, 0.9)], epochs=1)
        assert [s.label for s in settings_of(runs)] == [
            "Adam, lr 0.001, betas (0.9, 0.99)", "Adam, lr 0.001, betas (0.5, 0.9)",
        ]  # fmt: skip

    def test_of_many_the_best_of_each_optimizer_is_shown(self):
        rates = ds.log_range(1e-3, 0.1, 10)
        runs = descend(line_problem(), [optim.SGD, optim.Adam], lr=rates, epochs=10)
        shown, others = thinned(loss_curves(runs).curves + loss_curves(runs).others)
        assert [c.setting.optimizer for c in shown] == ["SGD", "Adam"]
        assert len(others) == 18
        for curve in shown:
            own = runs.where(optimizer=curve.setting.optimizer)
            assert curve.middle[-1] == pytest.approx(own.table["final_loss"].min())


class TestLossCurves:
    def test_middle_and_band_are_those_of_the_seeds(self, lines):
        curve = loss_curves(lines).curves[0]
        values = lines.loss[:3].astype(float)
        np.testing.assert_array_equal(curve.middle, np.median(values, axis=0))
        np.testing.assert_array_equal(curve.low, values.min(0))
        np.testing.assert_array_equal(curve.high, values.max(0))
        np.testing.assert_array_equal(curve.validation, np.median(lines.validation_loss[:3], 0))

    def test_epochs_and_steps(self, lines):
        by_epoch, by_step = (loss_curves(lines, axis).curves[0] for axis in ("epoch", "step"))
        np.testing.assert_array_equal(by_epoch.x, np.arange(7))
        np.testing.assert_array_equal(by_step.x, 3 * np.arange(7))  # 15 rows in batches of 5
        assert loss_curves(lines).x_label == "Epoch (passes over the training rows)"

    def test_batch_sizes_share_the_epoch_axis(self):
        runs = descend(line_problem(), batch_size=[1, 7, "full"], lr=0.01, epochs=4)
        ends = [curve.x[-1] for curve in loss_curves(runs).curves]
        assert ends == [4, 4, 4]
        assert [c.x[-1] for c in loss_curves(runs, "step").curves] == [80, 12, 4]

    def test_without_the_problem_records_are_counted(self, lines, tmp_path):
        lines.save(tmp_path / "study")
        data = loss_curves(ds.load(tmp_path / "study"))
        assert data.x_label == "Record" and data.curves[0].x[-1] == 6
        assert loss_curves(ds.load(tmp_path / "study"), "step").curves[0].x[-1] == 18

    def test_batch_losses_stand_at_the_updates_done_before_them(self, lines):
        curve = loss_curves(lines, "step", which="batch_loss").curves[0]
        np.testing.assert_array_equal(curve.x, np.arange(18))
        np.testing.assert_array_equal(curve.middle, np.median(lines.batch_loss[:3], 0))

    def test_diverged_runs_end_in_a_mark_and_stretch_nothing(self, bowls):
        data = loss_curves(bowls)
        diverged = data.curves[2]
        last = np.flatnonzero(np.isfinite(bowls.loss[2]))[-1]
        assert bowls.loss[2, last] > 1e6
        np.testing.assert_array_equal(diverged.ends, [[last, bowls.loss[2, last]]])
        assert data.limits[0] < 1 and 26 < data.limits[1] < 40

    def test_if_all_diverged_ten_times_the_start_bounds_the_axis(self, bowls):
        data = loss_curves(bowls[2:])
        assert 260 <= data.limits[1] < 600

    def test_thin_lines_above_their_start_stretch_nothing(self):
        problem = ds.Problem.from_function(lambda x: x**2, start=torch.tensor(1.0).double())
        runs = descend(problem, lr=[*ds.log_range(1e-3, 0.5, 14), 1.05], steps=60)
        assert runs.loss[-1, -1] > 100 and not runs.diverged.any()
        assert loss_curves(runs).limits[1] < 50
        few = loss_curves(runs[10:])
        assert few.limits[1] > runs.loss[-1, -1]

    def test_losses_below_zero_are_not_drawn_on_logarithms(self):
        problem = ds.Problem.from_function(lambda x: x**2 - 1, start=1.0)
        data = loss_curves(descend(problem, lr=0.1, steps=5))
        assert not data.log and data.limits[0] < data.curves[0].middle.min()

    def test_runs_that_stopped_early_are_held_in_the_median(self):
        runs = descend(
            line_problem(), lr=0.5, seed=range(5), epochs=60, batch_size=2, patience=2
        )  # fmt: skip
        assert len(set(runs.steps_done.tolist())) > 1
        curve = loss_curves(runs).curves[0]
        finals = runs.table["final_loss"].to_numpy()
        assert curve.middle[-1] == pytest.approx(np.median(finals))

    def test_a_seed_that_diverges_does_not_end_the_others(self):
        # w⁴ from w between -1 and 1: w - 2 · 4 w³ leaves for good where |w| is above 1/2.
        problem = ds.Problem.from_model(
            lambda: nn.Linear(1, 1, bias=False), torch.ones(4, 1),
            objective=lambda model, x, y: (model(x) ** 4).mean(),
        )  # fmt: skip
        runs = descend(problem, lr=2.0, seed=range(12), epochs=15)
        assert 0 < runs.diverged.sum() < 12
        curve = loss_curves(runs).curves[0]
        assert curve.x[-1] == 15 and len(curve.ends) == curve.setting.diverged
        assert curve.middle[-1] == pytest.approx(np.median(runs.loss[~runs.diverged, -1]))

    @pytest.mark.parametrize(
        ("asked", "words"),
        [({"axis": "time"}, "axis must be"), ({"which": "gradient"}, "which must be"),
         ({"which": "batch_loss"}, "not kept")],
    )  # fmt: skip
    def test_wrong_use_is_told(self, bowls, asked, words):
        with pytest.raises(InputError, match=words):
            bowls.plot.losses(**asked)

    def test_a_loss_that_was_not_kept_is_told(self):
        runs = descend(line_problem(), epochs=4, keep=("batch_loss",))
        with pytest.raises(InputError, match="not kept"):
            runs.plot.losses()
        assert runs.plot.losses(which="batch_loss")


def test_over_seeds_leaves_out_what_is_not_there():
    values = np.array([[1.0, np.nan, np.nan], [5.0, 2.0, np.nan], [3.0, 8.0, np.nan]])
    middle, low, high = over_seeds(values)
    np.testing.assert_array_equal(middle, [3, 5, np.nan])
    np.testing.assert_array_equal(low, [1, 2, np.nan])
    np.testing.assert_array_equal(high, [5, 8, np.nan])


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [[], [3.0], [0.0], [1.0, 1e300], [0.0, 1e-40, 1.0]])
def test_limits_hold_the_values_and_are_an_interval(values, log):
    values = np.asarray(values, dtype=float)
    low, high = limits(values, log)
    assert np.isfinite([low, high]).all() and low < high
    assert not len(values) or high >= values.max()
    assert not log or low > 0


class TestSensitivity:
    def test_median_and_range_at_each_rate(self, lines):
        data = sensitivity(lines)
        sgd, adam = data.lines
        assert sgd.rates.tolist() == [0.01, 0.1, 1e3] and adam.rates.tolist() == [0.01, 0.1]
        assert sgd.runs.tolist() == [3, 3, 3] and sgd.diverged.tolist() == [0, 0, 3]
        final = lines.validation_loss[:6, -1].astype(float).reshape(2, 3)
        np.testing.assert_array_equal(sgd.middle, [*np.median(final, axis=1), np.nan])
        np.testing.assert_array_equal(sgd.high, [*final.max(1), np.nan])
        assert data.y_label == "Final validation mean squared error"
        assert sgd.counted_label == "SGD (3 seeds)"

    def test_the_best_run_is_marked(self, lines):
        rate, loss, _ = sensitivity(lines).best
        assert rate == lines.best.row["lr"]
        assert loss == pytest.approx(lines.best.row["final_validation_loss"])

    def test_rates_without_hope_are_shaded_out_to_half_way(self, lines, bowls):
        np.testing.assert_allclose(sensitivity(lines).hopeless, [[10.0, np.inf]])  # √(0.1 · 1000)
        assert sensitivity(lines.where(optimizer="Adam")).hopeless.shape == (0, 2)
        np.testing.assert_allclose(sensitivity(bowls[2:]).hopeless, [[0, np.inf]])

    def test_diverged_and_blown_up_runs_stretch_nothing(self, bowls):
        assert sensitivity(bowls).y_limits[1] < 26
        problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
        runs = descend(problem, lr=[0.1, 1.1], steps=30)
        assert runs.loss[1, -1] > 1e4 and not runs.diverged.any()
        assert sensitivity(runs).y_limits[1] < 10

    def test_other_settings_that_vary_make_lines(self):
        runs = descend(line_problem(), lr=[0.01, 0.1], momentum=[0.0, 0.9], epochs=2)
        labels = [line.counted_label for line in sensitivity(runs).lines]
        assert labels == ["SGD, momentum 0", "SGD, momentum 0.9"]

    def test_rates_by_pattern(self):
        runs = descend(line_problem(), lr={"weight": [0.1, 0.2], "bias": 0.1}, epochs=2)
        data = sensitivity(runs)
        assert data.x_label == "Learning rate of weight"
        assert data.lines[0].rates.tolist() == [0.1, 0.2]


class TestDrawing:
    @pytest.mark.parametrize("name", ["losses", "sensitivity", "path", "fit"])
    def test_pictures_show_and_save_themselves(self, lines, name, tmp_path):
        figure = getattr(lines.plot, name)()
        assert isinstance(lines.plot, Plots) and isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")
        figure.savefig(tmp_path / "picture.svg")
        assert (tmp_path / "picture.svg").stat().st_size > 1000

    def test_nothing_global_is_touched(self, lines):
        before = dict(matplotlib.rcParams)
        lines.plot.losses()
        png(fit_figure(lines))
        assert dict(matplotlib.rcParams) == before
        pyplot = __import__("sys").modules.get("matplotlib.pyplot")
        assert pyplot is None or not pyplot.get_fignums()

    def test_the_legend_says_how_many_seeds_and_how_many_diverged(self, lines):
        shown = words_in(lines.plot.losses())
        assert " SGD, lr 1000 (3 seeds, all diverged)" in shown
        assert " diverged (3 runs)" in shown and " validation rows" in shown
        assert " rates where every run diverged" in words_in(lines.plot.sensitivity())

    def test_drawn_limits_are_those_of_the_data(self, bowls):
        axes = bowls.plot.losses().axes[0]
        assert axes.get_ylim() == pytest.approx(loss_curves(bowls).limits)
        assert bowls.plot.sensitivity().axes[0].get_ylim()[1] < 100

    def test_hostile_names_are_drawn_as_they_are(self):
        class _Costs_5_dollars(optim.SGD):  # noqa: N801
            pass

        frame = pl.DataFrame({"a $x_1$": np.arange(30.0), "价格 $\n{": 2 * np.arange(30.0)})
        problem = ds.Problem.from_table(frame, target="价格 $\n{")
        runs = descend(problem, _Costs_5_dollars, lr=0.1, epochs=3, seed=range(2))
        for figure in (runs.plot.losses(), runs.plot.sensitivity(), runs.plot.fit()):
            assert png(figure)
        assert " _Costs_5_dollars, lr 0.1 (2 seeds)" in words_in(runs.plot.losses())
        assert text("50 $ and 5 $") == r"50 \$ and 5 \$"
        assert len(text("x" * 1000)) < 60

    def test_only_diverged_runs(self, bowls):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert png(fit_figure(bowls[2:])) and png(draw_paths(paths(bowls[2:])))

    def test_a_loss_of_zero_is_drawn(self):
        problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
        runs = descend(problem, lr=[0.5, 0.1], steps=5, keep=("loss", "parameters"))
        assert runs.best.row["final_loss"] == 0
        for figure in (runs.plot.losses(), runs.plot.sensitivity(), runs.plot.path()):
            assert png(figure)

    def test_side_by_side(self, lines):
        figure = fit_figure(lines)
        assert figure.get_figwidth() == 12 and 4 <= figure.get_figheight() <= 7
        png(figure)
        boxes = [axes.get_tightbbox() for axes in figure.findobj(matplotlib.axes.Axes)]
        legends = [one.get_window_extent() for one in figure.findobj(matplotlib.legend.Legend)]
        assert len(boxes) == len(legends) == 2
        everything = [*boxes, *legends]
        for place, one in enumerate(everything):
            assert not any(one.overlaps(other) for other in everything[place + 1 :])

    def test_strokes_differ(self):
        for count in range(1, 15):
            assert len(set(map(str, strokes(count)))) == count


def test_pictures_are_figures():
    assert issubclass(Picture, Figure)
