"""What pictures claim is so: of maximised losses, weight decay, bins, and lost surfaces."""

import copy
import io
import pickle
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text
from rich.console import Console
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.cells import cut
from downslope.views.data.chosen import names_of, shared_by
from downslope.views.data.comparisons import Panel, Panels, Rates
from downslope.views.data.fits import fit
from downslope.views.data.gradients import norm_curves
from downslope.views.data.grids import outcome_map
from downslope.views.data.losses import loss_curves
from downslope.views.data.paths import paths
from downslope.views.data.rates import sensitivity
from downslope.views.data.roofs import not_blown_up
from downslope.views.data.sharpness import sharpness
from downslope.views.drawing.comparisons import draw_rates
from downslope.views.drawing.panels import marker
from downslope.views.drawing.rates import _wide_enough
from downslope.views.drawing.style import WIDTH, legend, picture, strokes
from downslope.views.run_charts import print_losses

KEPT = ("loss", "parameters")


def descend(function, start, *args, **asked):
    problem = ds.Problem.from_function(function, start=start)
    return ds.descend(problem, *args, progress=False, **asked)


def line_problem(rows=40):
    x = torch.linspace(-1, 1, rows).reshape(-1, 1)
    return ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x + 1, loss=nn.MSELoss())


def hill(**lists):
    """-(x² - 4x + 5) from 7, maximised: at 1.1 it falls away for ever."""
    grid = ds.Grid(optim.SGD, lr=[0.1, 0.5, 0.9, 1.1], maximize=[True], **lists)
    return descend(lambda x: -(x**2) + 4 * x - 5, 7.0, grid, steps=20, every="step")


class TestMaximised:
    def test_a_run_that_falls_away_flattens_nothing(self):
        runs = hill()
        fallen = runs.loss[3]
        assert not runs.diverged.any() and fallen[-1] < -30_000
        for low, high in (loss_curves(runs).limits, sensitivity(runs).y_limits):
            assert -80 < low < -1 < high < 20
        assert loss_curves(runs).limits[0] < -26  # the start is seen

    def test_a_map_leaves_it_below_its_colours(self):
        data = outcome_map(hill(momentum=[0.0, 0.1]))
        assert data.capped and data.upward
        assert data.limits[0] > -270 and data.limits[1] == pytest.approx(-1, abs=1e-3)
        assert data.values[0, 3] < -30_000

    def test_a_chart_in_text_shows_the_others(self):
        out = Console(width=80, record=True, color_system=None, file=io.StringIO())
        print_losses(hill(), out)
        numbers = re.findall(r"^ *(-?[\d.,e+]+) │", out.export_text(), flags=re.MULTILINE)
        assert -80 < min(map(float, numbers)) < -26

    def test_minimised_losses_are_held_as_far_as_before(self):
        held = not_blown_up([0.5, 9.9, 10.1, np.nan, np.inf], [1.0, np.nan])
        np.testing.assert_array_equal(held, [0.5, 9.9])
        assert len(not_blown_up([0.0, 5.0], [0.0])) == 2  # nothing to go by
        mixed = not_blown_up([100.0, -100.0], [1.0, -1.0], [-1, 1], [-1, 1])
        np.testing.assert_array_equal(mixed, [100.0, -100.0][::-1])  # each on its better side


class TestCurvature:
    def test_that_with_weight_decay_is_called_so(self):
        grid = ds.Grid(optim.SGD, lr=[0.1, 0.2], weight_decay=[3.0])
        runs = descend(lambda x: x**2, 7.0, grid, steps=20, keep=KEPT)
        data = sharpness(runs)
        np.testing.assert_allclose(data.lines[0].largest, 2 + 3, rtol=1e-5)
        assert data.y_label == "Curvature of loss with weight decay (eigenvalue of its Hessian)"
        (found,) = sensitivity(runs).theory.found
        assert found.label == "threshold 2/(λ + weight decay) = 0.4"

    def test_that_of_the_negative_loss_is_called_so(self):
        grid = ds.Grid(optim.SGD, lr=[0.1, 0.2], maximize=[True])
        data = sharpness(descend(lambda x: -(x**2), 7.0, grid, steps=20, keep=KEPT))
        np.testing.assert_allclose(data.lines[0].largest, 2, rtol=1e-5)
        assert data.y_label == "Curvature of the negative loss (eigenvalue of its Hessian)"

    def test_without_either_it_is_that_of_the_loss(self):
        data = sharpness(descend(lambda x: x**2, 7.0, lr=[0.1], steps=20, keep=KEPT))
        assert data.y_label == "Curvature of the loss (eigenvalue of its Hessian)"


class TestLostSurfaces:
    def test_a_loss_that_is_nowhere_finite_is_missed_by_nothing(self):
        data = paths(descend(torch.log, -1.0, lr=[0.1], steps=5, keep=KEPT))
        assert data.warning == "" and data.paths[0].miss == 0
        assert data.notes == (
            "The loss is finite nowhere here, so that there is no surface to draw.",
        )

    def test_one_start_that_is_not_finite_hides_no_other_way(self):
        problem = ds.Problem.from_function(lambda x: torch.log(x) ** 2, start=2.0)
        starts = [{"x": 2.0}, {"x": -1.0}]
        runs = ds.descend(problem, lr=0.1, start=starts, steps=30, keep=KEPT, progress=False)
        data = paths(runs)
        whole = data.paths[0]
        assert np.isfinite(whole.losses).all() and whole.losses[-1] < 0.01
        assert data.axes[0][0] < -1 and data.axes[0][-1] > 2 and data.warning == ""


class TestMaps:
    def test_a_best_bin_is_not_called_a_setting(self):
        draw = np.random.default_rng(0)
        rows = [
            {"lr": float(10 ** draw.uniform(-4, 0)), "momentum": float(draw.uniform(0, 0.9))}
            for _ in range(200)
        ]
        grid = ds.Grid.of(optim.SGD, rows)
        data = outcome_map(ds.descend(line_problem(), grid, epochs=3, progress=False))
        assert data.x.binned and data.best_label.startswith("best bin: median ")
        row, column = data.best
        assert f" about lr {data.x.words[column]}, momentum {data.y.words[row]}" in data.best_label
        for scale in (data.x, data.y):  # a middle in few digits is still within its bin
            middles = np.array([float(word) for word in scale.words])
            assert ((scale.edges[:-1] < middles) & (middles < scale.edges[1:])).all()

    def test_neighbours_of_other_optimizers_are_mentioned(self):
        grids = [
            ds.Grid(optim.SGD, lr=ds.log_range(1e-3, 10, 7)),
            ds.Grid(optim.Adam, lr=ds.log_range(1e-4, 1e-3, 3)[:-1]),
        ]
        runs = ds.descend(line_problem(), grids, batch_size=[5, 20], epochs=1, progress=False)
        said = "neighbouring cells may differ in optimizer too"
        assert outcome_map(runs, "lr", "batch_size").title == said
        one = outcome_map(runs.where(optimizer="SGD"), "lr", "batch_size")
        assert one.title == ""

    def test_numbers_in_cells_leave_room_between_them(self):
        draw = np.random.default_rng(0)
        rows = [
            {"lr": float(10 ** draw.uniform(-4, 0)), "momentum": float(draw.uniform(0, 0.9))}
            for _ in range(300)
        ]
        runs = ds.descend(line_problem(), ds.Grid.of(optim.SGD, rows), epochs=40, progress=False)
        figure = runs.plot.map(verdicts=True)
        figure.canvas.draw()
        cells = [one for one in figure.axes[0].texts if one.get_text()]
        assert len(cells) > 60
        boxes = np.array([one.get_window_extent().extents for one in cells])
        for k, (left, low, right, high) in enumerate(boxes):
            beside = (boxes[:, 0] < right) & (boxes[:, 2] > left)
            beside &= (boxes[:, 1] < high - 2) & (boxes[:, 3] > low + 2)
            assert beside.sum() == 1, cells[k].get_text()


class TestClasses:
    def test_rows_kept_apart_are_counted_apart(self):
        x = torch.linspace(-1, 1, 60).reshape(-1, 1) ** torch.arange(1, 4)
        y = (x[:, 0] > 0.2).long()
        problem = ds.Problem.from_model(lambda: nn.Linear(3, 2), x, y, loss=nn.CrossEntropyLoss())
        runs = ds.descend(problem, lr=[0.3], epochs=5, validation=0.25, progress=False)
        data = fit(runs)
        (apart,) = data.apart
        assert (data.counts.sum(), apart.counts.sum()) == (45, 15)
        rows = runs.plan.problem.validation
        right = int((runs.best.predict(rows.x).argmax(1) == rows.y).sum())
        shown = [one.get_text() for one in runs.plot.fit().findobj(Text)]
        assert f"validation rows: {right} of 15 right" in shown
        assert f"training rows: {np.trace(data.counts)} of 45 right" in shown


class TestAxes:
    def test_thresholds_of_diverged_runs_stretch_no_axis(self):
        rates = ds.log_range(1e-2, 100, 40)
        runs = descend(lambda x: x**2 + 0.1 * x**4, 1.0, lr=rates, steps=40, keep=KEPT)
        data = sharpness(runs)
        assert any(line.diverged and line.bearable[0] < 0.2 for line in data.lines)
        assert not data.log and data.limits[0] == 0

    def test_only_optimizers_that_diverged_take_room_from_a_comparison(self):
        numbers = np.array([0.5, 1.0])
        none = np.zeros(2, dtype=np.int64)

        def line(name, diverged):
            seeds = none + 3
            return Rates(name, 0.1 * numbers, numbers, numbers, numbers, seeds, diverged, 0, True)

        names = tuple("abcdefgh")
        lines = (line("a", np.array([0, 3])), *(line(name, none) for name in names[1:]))
        data = Panels((Panel("p", lines, (0.0, 1.0), log=False),), 1, names)
        assert 1.0 < draw_rates(data).axes[0].get_ylim()[1] < 1.15


class TestNames:
    def test_what_all_drawn_runs_share_is_said_once(self):
        grid = ds.Grid(optim.SGD, lr=[0.1, 0.2], momentum=[0.0, 0.5])
        runs = descend(lambda x: x**2, 7.0, grid, steps=3, seed=range(2), keep=KEPT)
        lists = runs.settings.select("lr", "momentum", "seed").rows()
        some = [lists.index(row) for row in ((0.1, 0.5, 0), (0.2, 0.5, 1))]
        assert names_of(runs, some) == ["SGD, lr 0.1, seed 0", "SGD, lr 0.2, seed 1"]
        assert shared_by(runs, some) == "All of them: momentum 0.5."
        every = range(len(runs))
        assert names_of(runs, every)[some[0]] == "SGD, lr 0.1, momentum 0.5, seed 0"
        assert shared_by(runs, every) == ""

    def test_long_names_are_kept_whole_in_a_legend(self):
        name = "SGD, lr 0.0001234, momentum 0.9, weight decay 0.001, batch size full (2 seeds)"
        figure = picture(WIDTH, 3.0)
        legend(figure, [Line2D([], [], label=name), Line2D([], [], label="x" * 300)])
        first, second = [one.get_text() for one in figure.findobj(Text) if "\n" in one.get_text()]
        assert first.replace("\n", "") == f" {name}"
        assert first.endswith(",\n batch size full (2 seeds)")
        assert second.endswith("…") and second.count("\n") == 1

    @pytest.mark.parametrize("count", [7, 8, 12, 20])
    def test_lines_differ_in_colour_or_dashes(self, count):
        found = [(to_hex(colour), str(dashes)) for colour, dashes in strokes(count)]
        assert len(set(found)) == count
        assert len({(found[k][0], marker(k)) for k in range(count)}) == count


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_pictures_of_several_panels_are_no_wider(count):
    runs = descend(lambda x: x**2, 7.0, lr=np.linspace(0.1, 0.4, count), steps=5, keep=KEPT)
    for figure in (runs.plot.path(), runs.plot.parameters(run=list(range(count)))):
        assert figure.get_figwidth() == WIDTH


@pytest.fixture(scope="module")
def parabola():
    """x² - 4x + 5 from 7: 0.1 and 0.9 fall alike, 0.5 is there in one step."""
    return descend(
        lambda x: x**2 - 4 * x + 5, 7.0, lr=[0.1, 0.9, 0.5], steps=20, keep=(*KEPT, "gradient_norm")
    )


class TestLines:
    def test_those_in_one_place_can_all_be_seen(self, parabola):
        for figure in (parabola.plot.losses(), parabola.plot.gradient_norm()):
            first, second, apart = figure.axes[0].lines[:3]
            assert first.get_linewidth() > second.get_linewidth() == apart.get_linewidth()

    def test_a_norm_of_0_is_not_shown_as_a_number(self, parabola):
        assert parabola.gradient_norm[2, 1] == 0
        said = "At the foot: 0, or less than the axis holds"
        assert said in [one.get_text() for one in parabola.plot.gradient_norm().findobj(Text)]
        assert said not in [one.get_text() for one in parabola.plot.losses().findobj(Text)]

    def test_a_single_value_is_a_dot(self):
        runs = descend(
            lambda x: x**2, 3.0, lr=[0.1], steps=1, keep=("loss", "batch_loss", "gradient_norm")
        )
        for figure in (runs.plot.gradient_norm(), runs.plot.losses(which="batch_loss")):
            (line,) = figure.axes[0].lines[:1]
            assert len(line.get_xdata()) == 1 and line.get_marker() == "o"

    def test_thin_lines_move_no_axis_of_norms(self):
        rates = [*ds.log_range(1e-3, 0.9, 10), 1.05, 1.1, 1.15]
        runs = descend(lambda x: x**2, 1.0, lr=rates, steps=30, keep=("loss", "gradient_norm"))
        data = norm_curves(runs)
        assert data.others and not runs.diverged.any()
        assert runs.gradient_norm.max() > 1e3 and data.limits[1] < 100

    def test_a_least_curvature_above_0_is_not_drawn_as_negative(self):
        runs = descend(lambda x: x**4 - 2 * x**2, 0.1, lr=[0.05], steps=40, keep=KEPT)
        data = sharpness(runs)
        assert (data.lines[0].least > 0).any() and (data.lines[0].least < 0).any()
        (drawn,) = (
            one for one in runs.plot.sharpness().axes[0].lines if one.get_linestyle() == ":"
        )
        kept = np.asarray(drawn.get_ydata(), dtype=float)
        assert (kept[np.isfinite(kept)] < 0).all() and np.isfinite(kept).any()


class TestPictures:
    def test_they_can_be_kept_and_copied(self, parabola):
        plot = parabola.plot
        for figure in (plot.losses(), plot.sensitivity(), plot.gradient_norm(), plot.path()):
            again = pickle.loads(pickle.dumps(figure))
            assert again.get_figwidth() == copy.deepcopy(figure).get_figwidth() == WIDTH

    def test_no_runs_are_refused(self, parabola):
        none = parabola[[]].plot
        for draw in (none.losses, none.sensitivity, none.map):
            with pytest.raises(InputError, match="there are no runs to draw"):
                draw()

    @pytest.mark.parametrize("given", [1.0, "best", b"1", [1.5], [True], object()])
    def test_what_is_no_run_is_refused_in_a_sentence(self, parabola, given):
        with pytest.raises(InputError, match="run must be a number of the table's run column, a R"):
            parabola.plot.parameters(run=given)

    def test_a_threshold_that_is_not_drawn_is_explained(self):
        runs = descend(lambda x: x**2, 1.0, [optim.SGD, optim.Adam], lr=[0.1, 0.3], steps=5)
        words = [one.get_text() for one in runs.plot.sensitivity().findobj(Text)]
        assert "Threshold not drawn: theory has no cheap threshold for Adam" in words

    def test_a_bar_of_one_rate_can_be_seen(self):
        for log, limits in ((True, (1e-3, 1.0)), (False, (0.0, 2.0))):
            low, high = _wide_enough(np.array([0.5, 0.5]), limits, log)
            ends = np.log10([low, high, *limits]) if log else np.array([low, high, *limits])
            assert (ends[1] - ends[0]) / (ends[3] - ends[2]) == pytest.approx(0.01)
            np.testing.assert_allclose(_wide_enough(np.array([0.2, 0.5]), limits, log), [0.2, 0.5])


def test_brackets_and_backslashes_are_printed_as_they_are():
    for name in ("b[red]x[/red]", r"a\b", r"\[red]", r"two\\three", "x" * 60):
        assert cut(name, 76) == name
