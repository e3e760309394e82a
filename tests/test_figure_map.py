"""Maps: their cells against medians worked out here, their axes, and what cannot be drawn."""

import io
import random

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.data.grids import medians, outcome_map
from downslope.views.data.scales import scale_of
from downslope.views.data.trainability import CUT, summed
from downslope.views.drawing.grid_words import SYMBOLS
from downslope.views.drawing.grids import draw_map
from downslope.views.drawing.style import text

RATES, MOMENTA = (0.001, 0.01, 0.1, 1.0), (0.0, 0.5, 0.9)


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


def parabola(start=1.0):
    return ds.Problem.from_function(lambda x: x**2, start=torch.tensor(start).double())


def lines():
    x = torch.linspace(-2, 2, 20).reshape(-1, 1)
    return ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x + 1, loss=nn.MSELoss())


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png")
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text)]


@pytest.fixture(scope="module")
def bowl():
    """x² from 1, a run a cell: beyond a rate of 1 + momentum it diverges."""
    return descend(parabola(), lr=[*RATES, 2.5], momentum=list(MOMENTA), steps=60)


class TestCells:
    def test_each_run_has_its_cell(self, bowl):
        data = outcome_map(bowl)
        assert (data.x.name, data.y.name) == ("lr", "momentum")
        for row, momentum in enumerate(MOMENTA):
            for column, rate in enumerate([*RATES, 2.5]):
                (run,) = bowl.where(lr=rate, momentum=momentum)
                if run.status == "diverged":
                    assert np.isnan(data.values[row, column]) and data.lost[row, column]
                else:
                    assert data.values[row, column] == run.row["final_loss"]
        assert data.lost.any() and (data.runs == 1).all()
        best = bowl.best.row
        row, column = data.best
        assert (data.x.words[column], data.y.words[row]) == (
            f"{best['lr']:g}",
            f"{best['momentum']:g}",
        )

    def test_axes_may_be_turned(self, bowl):
        one, other = outcome_map(bowl), outcome_map(bowl, "momentum", "lr")
        np.testing.assert_array_equal(one.values, other.values.T)

    def test_the_median_is_over_what_else_differs_and_this_is_said(self):
        runs = descend(lines(), lr=[0.01, 0.1], batch_size=[5, "full"], seed=range(5), epochs=3)
        data = outcome_map(runs)
        for row, size in enumerate(["5", "full"]):
            for column, rate in enumerate([0.01, 0.1]):
                finals = runs.where(lr=rate, batch_size=size).table["final_loss"].to_numpy()
                expected = np.median(finals.astype(np.float64))
                assert data.values[row, column] == pytest.approx(expected)
        assert data.title == "median of 5 runs a cell (over seed)"
        both = outcome_map(runs, "lr", "seed")
        assert both.title == "median of 2 runs a cell (over batch size)"
        assert "Median of 5 runs a cell (over seed)" in drawn(runs.plot.map())

    def test_runs_that_diverged_are_the_worst_of_their_cell(self):
        # w⁴ from w between -1 and 1: w - 8 w³ leaves for good where |w| is above 1/2.
        problem = ds.Problem.from_model(
            lambda: nn.Linear(1, 1, bias=False), torch.ones(4, 1),
            objective=lambda model, x, y: (model(x) ** 4).mean(),
        )  # fmt: skip
        runs = descend(
            problem, lr=[0.1, 1.0, 2.0, 50.0], momentum=[0, 0.1], seed=range(11), steps=9
        )
        data = outcome_map(runs)
        for column, rate in enumerate([0.1, 1.0, 2.0, 50.0]):
            some = runs.where(lr=rate, momentum=0)
            finals = np.where(some.diverged, np.inf, some.table["final_loss"].to_numpy())
            expected = np.median(finals.astype(np.float64))
            assert data.diverged[0, column] == some.diverged.sum()
            if np.isfinite(expected):
                assert data.values[0, column] == pytest.approx(expected)
            else:
                assert data.lost[0, column]
        assert 0 < data.diverged[0, 2] < 11

    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.one_of(st.floats(-1e9, 1e9), st.just(np.nan))),
            min_size=1, max_size=30,
        )
    )  # fmt: skip
    def test_medians_are_numpys(self, pairs):
        cells, scores = np.array([c for c, _ in pairs]), np.array([s for _, s in pairs])
        made, counts = medians(scores, cells, (2, 3))
        for cell in range(6):
            own = np.where(np.isfinite(scores), scores, np.inf)[cells == cell]
            assert counts.ravel()[cell] == len(own)
            low, high = (np.sort(own)[[(len(own) - 1) // 2, len(own) // 2]] if len(own)
                         else (np.inf, np.inf))  # fmt: skip
            if np.isinf(high):
                assert np.isnan(made.ravel()[cell])
            else:
                assert made.ravel()[cell] == pytest.approx((low + high) / 2, rel=1e-9, abs=1e-5)

    def test_validation_loss_comes_first(self):
        runs = descend(lines(), lr=[0.01, 0.1], momentum=[0, 0.9], epochs=2, validation=0.2)
        data = outcome_map(runs)
        assert data.label == "Final validation mean squared error"
        finals = runs.table["final_validation_loss"].to_numpy().reshape(2, 2).T
        np.testing.assert_array_equal(data.values, finals)
        training = outcome_map(runs, of="final_loss").values
        np.testing.assert_array_equal(training, runs.table["final_loss"].to_numpy().reshape(2, 2).T)

    def test_what_is_maximised_is_best_where_it_is_highest(self):
        hill = ds.Problem.from_function(lambda x: 10 - x**2, start=1.0)
        runs = descend(hill, optim.SGD, lr=[0.01, 0.4], momentum=[0, 0.1], steps=5, maximize=True)
        data = outcome_map(runs)
        assert data.values[data.best] == data.values.max() > 9.9

    def test_settings_that_some_optimizers_lack_are_left_out_and_said(self):
        grids = [ds.Grid(optim.SGD, momentum=[0.0, 0.9]), ds.Grid(optim.Adam)]
        runs = descend(lines(), grids, lr=[0.01, 0.1], epochs=1)
        data = outcome_map(runs, y="momentum")
        assert data.runs.sum() == 4 and data.title == "2 runs without both settings left out"
        by_name = outcome_map(runs, y="optimizer")
        assert by_name.y.words == ("SGD", "Adam") and by_name.runs.tolist() == [[2, 2], [1, 1]]

    def test_what_differs_between_optimizers_alone_goes_with_them(self):
        three = [optim.SGD, optim.AdamW, optim.Adagrad]  # eps and weight_decay differ by default
        runs = descend(lines(), three, lr=[0.01, 0.1], seed=range(2), epochs=1)
        data = outcome_map(runs)
        assert data.y.words == ("SGD", "AdamW", "Adagrad")
        assert data.title == "median of 2 runs a cell (over seed)"
        assert outcome_map(runs, y="seed").title == "median of 3 runs a cell (over optimizer)"

    def test_rates_by_parameter_name(self):
        rates = [0.01, 0.1, 1.0]
        runs = descend(lines(), lr={"weight": rates, "bias": rates[:2]}, steps=2)
        data = outcome_map(runs)
        assert (data.x.label, data.y.label) == ("Learning rate of weight", "Learning rate of bias")
        finals = runs.table["final_loss"].to_numpy().reshape(3, 2).T
        np.testing.assert_array_equal(data.values, finals)

    def test_settings_drawn_at_random_are_put_in_bins(self):
        rng = random.Random(0)
        rows = [{"lr": 10 ** rng.uniform(-3, -1), "momentum": rng.random()} for _ in range(90)]
        runs = descend(parabola(), ds.Grid.of(optim.SGD, rows), steps=20)
        data = outcome_map(runs)
        assert data.x.binned and data.y.binned and data.x.kind == "log"
        assert data.x.label == "Learning rate, in 6 bins" and data.runs.sum() == 90
        edges = np.geomspace(*(f(row["lr"] for row in rows) for f in (min, max)), 7)
        expected = np.histogram([row["lr"] for row in rows], edges)[0]
        assert abs(data.runs.sum(0) - expected).max() <= 1  # the ends, by rounding


class TestScales:
    @pytest.mark.parametrize(
        ("values", "kind", "edges"),
        [
            ([0.01, 0.1, 1.0], "log", [10**-2.5, 10**-1.5, 10**-0.5, 10**0.5]),
            ([1, 2, 3], "linear", [0.5, 1.5, 2.5, 3.5]),
            ([0.0, 0.5, 0.9], "categories", [-0.5, 0.5, 1.5, 2.5]),
            ([1, 10], "log", [10**-0.5, 10**0.5, 10**1.5]),
            ([0.1, 0.2], "linear", [0.05, 0.15, 0.25]),
        ],
    )
    def test_kinds(self, values, kind, edges):
        runs = descend(parabola(), ds.Grid.of(optim.SGD, [{"lr": v} for v in values]), steps=1)
        scale, cells = scale_of(runs.settings["lr"])
        assert scale.kind == kind and cells.tolist() == list(range(len(values)))
        np.testing.assert_allclose(scale.edges, edges)

    def test_batch_sizes_are_in_order_and_all_rows_last(self):
        runs = descend(lines(), batch_size=["full", 10, 2], lr=0.1, epochs=1)
        scale, cells = scale_of(runs.settings["batch_size"])
        assert scale.words == ("2", "10", "full") and cells.tolist() == [2, 1, 0]
        assert scale.kind == "categories"
        numbers, _ = scale_of(runs.where(batch_size=["10", "2"]).settings["batch_size"])
        assert numbers.kind == "log" and numbers.words == ("2", "10")

    def test_tuples_and_switches_stand_side_by_side(self):
        betas = [(0.9, 0.99), (0.5, 0.9)]
        runs = descend(lines(), optim.Adam, betas=betas, amsgrad=[False, True], epochs=1)
        data = outcome_map(runs, "betas", "amsgrad")
        assert data.x.words == ("(0.9, 0.99)", "(0.5, 0.9)") and data.y.words == ("False", "True")


class TestSums:
    def test_runs_that_fall_and_runs_that_grow_by_hand(self):
        # x is multiplied by 1 − 2 η a step, x² by its square: ¼ and 4.
        runs = descend(parabola(3.0), lr=[0.25, 1.5], momentum=[0, 0.5], steps=40, divergence=None)
        plain = runs.where(momentum=0)
        sums, grown = summed(plain)
        assert grown.tolist() == [False, True]
        by_hand = sum(0.25**t for t in range(41))
        capped = sum(1 / min(4.0**t, CUT) for t in range(41))
        np.testing.assert_allclose(sums, [by_hand, capped], rtol=1e-12)
        data = outcome_map(runs, of="sum")
        assert data.grown[0].tolist() == [False, True]
        np.testing.assert_allclose(data.values[0], [by_hand, capped])
        assert data.best == (0, 0)

    def test_what_is_not_finite_counts_for_nothing(self):
        runs = descend(parabola(), lr=[10.0], steps=40)
        assert runs.diverged.all()
        sums, _ = summed(runs)
        finite = runs.loss[0][np.isfinite(runs.loss[0])] / runs.loss[0, 0]
        np.testing.assert_allclose(sums, [(1 / np.minimum(finite, CUT)).sum()])

    def test_runs_that_stop_early_are_held(self):
        above = ds.Problem.from_function(lambda x: x**2 + 1, start=1.0)
        runs = descend(above, lr=0.25, steps=200, tolerance=1e-3)
        assert runs.table["status"].to_list() == ["converged"]
        seen = runs.loss[0][np.isfinite(runs.loss[0])].astype(float) / runs.loss[0, 0]
        rest = runs.loss.shape[1] - len(seen)
        np.testing.assert_allclose(summed(runs)[0], [seen.sum() + rest * seen[-1]])

    @pytest.mark.parametrize("asked", [{}, {"tolerance": 1e-3}, {"steps": 1}])
    def test_losses_of_full_batches_are_those_at_every_step(self, asked):
        grid = {"lr": [0.01, 0.1, 0.3, 3.0], "momentum": [0, 0.5]} | {"steps": 50} | asked
        if "tolerance" not in asked:
            cheap = descend(lines(), **grid, every=grid["steps"], keep=("batch_loss",))
        else:  # which looks at records, so that both end at the same step
            cheap = descend(lines(), **grid, every="step", keep=("loss", "batch_loss"))
        at_steps = descend(lines(), **grid, every="step")
        (sums, grown), (expected, as_expected) = summed(cheap), summed(at_steps)
        assert grown.tolist() == as_expected.tolist()
        np.testing.assert_allclose(sums, expected, rtol=1e-4)

    def test_losses_of_other_batches_are_not(self):
        grid = {"lr": [0.01, 0.1], "momentum": [0, 0.5], "epochs": 9, "keep": ("batch_loss",)}
        for batch_size in (5, ["full", 5]):
            with pytest.raises(InputError, match="full batches and 'batch_loss'"):
                summed(descend(lines(), batch_size=batch_size, **grid))
        x = torch.linspace(-2, 2, 20).reshape(-1, 1)
        drops = ds.Problem.from_model(
            lambda: nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)), x, 3 * x + 1,
            loss=nn.MSELoss(),
        )  # fmt: skip
        with pytest.raises(InputError, match="at every record"):
            summed(descend(drops, **grid))
        recorded = descend(drops, **(grid | {"keep": ("loss", "batch_loss")}))
        rows = np.where(np.isnan(recorded.loss), np.inf, recorded.loss) / recorded.loss[:, :1]
        sums, grown = summed(recorded)
        np.testing.assert_allclose(sums[~grown], rows.astype(float).sum(1)[~grown], rtol=1e-6)

    def test_two_ramps_are_drawn(self):
        rates = ds.log_range(0.01, 3, 20)
        runs = descend(parabola(), lr=rates, momentum=[0, 0.2, 0.4], steps=40)
        figure = runs.plot.map(of="sum")
        words = drawn(figure)
        assert any("Went down" in w for w in words) and any("Blew up" in w for w in words)

    def test_what_has_no_sum_is_told(self):
        below = ds.Problem.from_function(lambda x: x**2 - 1, start=1.0)
        runs = descend(below, lr=[0.1, 0.2], momentum=[0, 0.5], steps=3)
        with pytest.raises(InputError, match="never below 0"):
            runs.plot.map(of="sum")
        kept = {"batch_size": 5, "epochs": 3, "keep": ("batch_loss",)}
        other = descend(lines(), lr=[0.1, 0.2], momentum=[0, 0.5], **kept)
        with pytest.raises(InputError, match="at every record"):
            other.plot.map(of="sum")


class TestVerdicts:
    def test_the_most_frequent_is_written(self):
        runs = descend(lines(), lr=[1e-5, 0.3, 10.0], momentum=[0, 0.5], seed=range(3), epochs=30)
        data, findings = outcome_map(runs, verdicts=True), runs.explain()
        for row, momentum in enumerate((0, 0.5)):
            for column, rate in enumerate((1e-5, 0.3, 10.0)):
                numbers = runs.where(lr=rate, momentum=momentum).settings["run"].to_list()
                own = [f.verdict for f in findings if f.run in numbers]
                assert own.count(data.verdicts[row][column]) == max(map(own.count, own))
        assert data.verdicts[0][2] == "diverged"
        words = " ".join(drawn(draw_map(data)))
        assert f"{SYMBOLS['diverged']}\N{NO-BREAK SPACE}diverged" in words

    def test_every_verdict_has_a_symbol_of_its_own(self):
        assert set(SYMBOLS) == set(ds.explain.findings.VERDICTS)
        assert len(set(SYMBOLS.values())) == len(SYMBOLS)
        assert [text(symbol) for symbol in SYMBOLS.values()] == list(SYMBOLS.values())

    def test_too_many_cells_are_told(self):
        many = np.linspace(0, 0.9, 21)
        runs = descend(parabola(), lr=ds.log_range(0.01, 1, 21), momentum=many, steps=1)
        with pytest.raises(InputError, match="400 cells at most, and this map has 441"):
            runs.plot.map(verdicts=True)
        assert len(drawn(runs[: 19 * 21].plot.map(verdicts=True))) > 399


class TestWrongUse:
    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"x": "momentm"}, r"got 'momentm' \(did you mean 'momentum'\?\); .* lr and momentum"),
            ({"y": "dampening"}, r"'dampening' does not differ between these runs \(0\)"),
            ({"x": "lr", "y": "lr"}, "two settings, got 'lr' for both"),
            ({"of": "final"}, "of must be one of final_loss, .* got 'final'"),
            ({"of": "final_validation_loss"}, "no validation loss"),
            ({"x": "run"}, "got 'run'"),
        ],
    )
    def test_names(self, bowl, asked, words):
        with pytest.raises(InputError, match=words):
            bowl.plot.map(**asked)

    def test_a_second_setting_must_be_found(self):
        alone = descend(parabola(), lr=[0.1, 0.2], steps=1)
        with pytest.raises(InputError, match=r"nothing else varies; runs.plot.sensitivity\(\)"):
            alone.plot.map()
        seeds = descend(lines(), lr=[0.1, 0.2], seed=range(2), epochs=1)
        with pytest.raises(InputError, match="choose y among seed"):
            seeds.plot.map()
        assert outcome_map(seeds, y="seed").runs.shape == (2, 2)
        three = descend(lines(), lr=[0.1, 0.2], momentum=[0, 0.1], batch_size=[5, 10], epochs=1)
        with pytest.raises(InputError, match="choose y among momentum and batch_size"):
            three.plot.map()


class TestDrawing:
    def test_small_maps_have_their_numbers(self, bowl):
        words = drawn(bowl.plot.map())
        data = outcome_map(bowl)
        for value in data.values[np.isfinite(data.values)]:
            assert any(_reads(word, value) for word in words)
        assert " diverged" in words and f" {data.best_label}" in words

    def test_colours_stand_where_the_cells_are(self, bowl):
        figure = bowl.plot.map()
        drawn(figure)
        mesh = next(m for m in figure.axes[0].collections if isinstance(m, QuadMesh))
        data = outcome_map(bowl)
        np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], data.x.edges)
        np.testing.assert_array_equal(mesh.get_array().mask, data.lost)

    def test_only_diverged_runs(self):
        runs = descend(parabola(), lr=[3.0, 30.0], momentum=[0, 0.1], steps=60)
        data = outcome_map(runs)
        assert data.best is None and data.lost.all()
        assert " diverged" in drawn(draw_map(data))

    def test_large_maps_keep_their_cells_in_vector_files(self):
        rates, momenta = ds.log_range(0.01, 1, 60), np.linspace(0, 0.9, 60)
        runs = descend(parabola(), lr=rates, momentum=momenta, steps=5)
        buffer = io.BytesIO()
        runs.plot.map().savefig(buffer, format="svg")
        assert buffer.tell() < 400_000 and b"<image" in buffer.getvalue()

    def test_names_from_a_table_are_drawn_as_they_are(self):
        class _Costs_5_dollars(optim.SGD):  # noqa: N801
            pass

        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_parameter("价格_" + "x" * 60, nn.Parameter(torch.ones(1)))
                self.register_parameter("other", nn.Parameter(torch.ones(1)))

            def forward(self, x):
                return sum(self.parameters()) * x

        x = torch.ones(4, 1)
        problem = ds.Problem.from_model(Odd(), x, 3 * x, loss=nn.MSELoss())
        rates = {"价格*": [0.1, 0.2], "other": [0.1, 0.2, 0.3]}
        assert drawn(descend(problem, _Costs_5_dollars, lr=rates, steps=2).plot.map())
        grids = [_Costs_5_dollars, optim.Adam]
        runs = descend(lines(), grids, lr=[0.1, 0.2], epochs=1)
        assert "_Costs_5_dollars" in drawn(runs.plot.map())


def _reads(word, value):
    try:
        return float(word.split("\n")[0]) == pytest.approx(value, rel=0.5)
    except ValueError:
        return False
