"""Parameters, gradient norms and sharpness over time."""

import numpy as np
import pytest
import torch
from drawn import png, text_in
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.data.gradients import norm_curves
from downslope.views.data.histories import parameter_histories
from downslope.views.data.sharpness import sharpness
from downslope.views.drawing.histories import draw_histories, draw_norms
from downslope.views.drawing.sharpness import draw_sharpness

KEPT = ("loss", "parameters", "gradient_norm")


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **{"keep": KEPT, **asked})


def bowl(*bends):
    """½ Σ bend p², from 1 everywhere."""
    weights = torch.tensor(bends).double()
    start = torch.ones(len(bends)).double()
    return ds.Problem.from_function(lambda p: 0.5 * (weights * p**2).sum(), start=start)


def net_problem():
    x = torch.linspace(-2, 2, 40).reshape(-1, 1)

    def make():
        return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

    return ds.Problem.from_model(make, x, torch.sin(2 * x), loss=nn.MSELoss())


@pytest.fixture(scope="module")
def nets():
    """Batches of 10 of 40 rows: four updates an epoch. SGD at 30 diverges."""
    grids = [ds.Grid(optim.SGD, lr=[0.05, 0.3, 30.0]), ds.Grid(optim.Adam, lr=0.05)]
    return descend(net_problem(), grids, seed=range(2), batch_size=10, epochs=50)


class TestParameters:
    def test_few_numbers_each_have_a_line(self):
        runs = descend(bowl(1.0, 3.0), lr=[0.1, 0.2], steps=10)
        data = parameter_histories(runs)
        assert data.numbers and data.y_label == "Parameter"
        (history,) = data.histories
        assert history.label == "SGD, lr 0.2"  # the best
        assert [t.name for t in history.traces] == ["p[0]", "p[1]"]
        steps = np.arange(11)
        np.testing.assert_allclose(history.traces[0].values, 0.8**steps)
        np.testing.assert_allclose(history.traces[1].values, 0.4**steps)
        np.testing.assert_array_equal(history.x, steps)

    def test_of_many_numbers_each_tensor_has_its_norm(self, nets):
        data = parameter_histories(nets)
        (history,) = data.histories
        assert not data.numbers and data.y_label == "Norm of each parameter tensor"
        best = nets.best
        assert [t.name for t in history.traces] == list(best.path)
        for trace, values in zip(history.traces, best.path.values(), strict=True):
            lengths = [float((v.double() ** 2).sum() ** 0.5) for v in values]
            np.testing.assert_allclose(trace.values, lengths, rtol=1e-6)

    def test_epochs_and_steps(self, nets):
        by_epoch, by_step = (parameter_histories(nets, a) for a in ("epoch", "step"))
        np.testing.assert_array_equal(by_epoch.histories[0].x, np.arange(51))
        np.testing.assert_array_equal(by_step.histories[0].x, 4 * np.arange(51))
        assert by_step.x_label == "Step (updates of the parameters)"

    def test_runs_are_chosen_by_number(self, nets):
        data = parameter_histories(nets[2:], run=[2, nets[7]])
        assert [h.label for h in data.histories] == ["SGD, lr 0.3, seed 0", "Adam, lr 0.05, seed 1"]
        first = next(iter(nets[2].path.values()))
        assert data.histories[0].traces[0].values[0] == pytest.approx(float(first[0].norm()))
        assert png(draw_histories(data))

    def test_diverged_runs_stretch_nothing(self, nets):
        data = parameter_histories(nets, run=[0, 4])
        assert [h.diverged for h in data.histories] == [False, True]
        alone = parameter_histories(nets, run=0)
        assert data.limits == alone.limits
        assert "diverged" in text_in(draw_histories(data))
        runs = descend(bowl(1.0, 3.0), lr=1e3, steps=50)
        lost = parameter_histories(runs)
        assert lost.histories[0].diverged and -11 < lost.limits[0] < lost.limits[1] < 11
        assert png(draw_histories(lost))

    def test_of_many_tensors_those_that_move_most_are_named(self):
        start = {f"p{i}": torch.full((2,), 1.0).double() for i in range(15)}
        problem = ds.Problem.from_function(
            lambda **p: sum(i * v.square().sum() for i, v in enumerate(p.values())), start=start
        )
        (history,) = parameter_histories(descend(problem, lr=0.01, steps=5)).histories
        assert [t.name for t in history.traces] == [f"p{i}" for i in range(3, 15)]
        assert [t.name for t in history.others] == ["p0", "p1", "p2"]

    @pytest.mark.parametrize(
        ("asked", "said"),
        [({"axis": "time"}, "axis must be 'epoch' or 'step'"), ({"run": 99}, "no run 99"),
         ({"run": []}, "from 1 to 6 runs"), ({"run": list(range(7))}, "from 1 to 6 runs, got 7")],
    )  # fmt: skip
    def test_wrong_use_is_told(self, nets, asked, said):
        with pytest.raises(InputError, match=said):
            nets.plot.parameters(**asked)

    @pytest.mark.parametrize("name", ["path", "parameters", "gradient_norm", "sharpness"])
    def test_no_runs_at_all(self, nets, name):
        with pytest.raises(InputError, match="there are no runs to draw"):
            getattr(nets.where(lr=99.0).plot, name)()

    def test_what_was_not_kept_is_told(self):
        runs = descend(bowl(1.0), steps=2, keep=("loss",))
        for draw in (runs.plot.parameters, runs.plot.sharpness):
            with pytest.raises(InputError, match=r"keep=\('loss', 'parameters'\)"):
                draw()
        with pytest.raises(InputError, match=r"keep=\('loss', 'gradient_norm'\)"):
            runs.plot.gradient_norm()


class TestGradientNorm:
    def test_a_quadratic_follows_the_closed_form(self):
        data = norm_curves(descend(bowl(4.0), lr=[0.1, 0.2], steps=30))
        np.testing.assert_allclose(data.curves[0].middle, 4 * 0.6 ** np.arange(30))
        np.testing.assert_allclose(data.curves[1].middle, 4 * 0.2 ** np.arange(30), rtol=1e-9)
        np.testing.assert_array_equal(data.curves[0].x, np.arange(30))
        assert data.log and data.window == 0

    def test_seeds_are_a_band(self, nets):
        curve = norm_curves(nets).curves[0]
        values = nets.gradient_norm[:2].astype(float)
        np.testing.assert_allclose(curve.middle, values.mean(0))  # the median of two
        np.testing.assert_array_equal(curve.low, values.min(0))
        np.testing.assert_array_equal(curve.high, values.max(0))
        by_epoch = norm_curves(nets, "epoch").curves[0]
        np.testing.assert_allclose(by_epoch.x, np.arange(200) / 4)

    def test_a_noisy_line_is_smoothed(self, nets):
        data = norm_curves(nets)
        assert data.window == 9
        curve = data.curves[0]
        at = 100
        near = np.log10(curve.middle[at - 4 : at + 5])
        assert np.log10(curve.smooth[at]) == pytest.approx(near.mean())
        assert curve.smooth[0] == pytest.approx(curve.middle[0])
        assert "Thick: mean of the logarithm over 9 updates" in text_in(draw_norms(data))

    def test_diverged_runs_end_in_a_mark_and_stretch_nothing(self, nets):
        data = norm_curves(nets)
        lost = data.curves[2]
        assert lost.setting.diverged == 2 and len(lost.ends) == 2
        for (x, norm), own in zip(lost.ends, nets.gradient_norm[4:6], strict=True):
            last = np.flatnonzero(np.isfinite(own))[-1]
            assert (x, norm) == (last, own[last])
        steady = nets.gradient_norm[~nets.diverged]
        first = nets.gradient_norm[:, 0].max()
        assert data.limits[1] < 2 * max(np.nanmax(steady), first)
        assert "diverged (2 runs)" in text_in(nets.plot.gradient_norm())

    def test_norms_of_zero_are_drawn(self):
        runs = descend(bowl(1.0), lr=1.0, steps=5)
        assert (runs.gradient_norm[0, 1:] == 0).all()
        assert png(runs.plot.gradient_norm())

    def test_only_diverged_runs(self, nets):
        assert png(nets[4:6].plot.gradient_norm())

    def test_clipping_is_said(self):
        runs = descend(bowl(4.0), lr=0.1, clip_norm=1.0, steps=5)
        data = norm_curves(runs)
        assert data.y_label.endswith("(before clipping)") and data.curves[0].middle[0] == 4


class TestSharpness:
    def test_that_of_a_quadratic_is_its_largest_eigenvalue(self):
        data = sharpness(descend(bowl(4.0, 1.0), lr=[0.1, 0.3], steps=30), places=5)
        for line, rate in zip(data.lines, (0.1, 0.3), strict=True):
            np.testing.assert_allclose(line.largest, 4)
            np.testing.assert_allclose(line.least, 1)
            np.testing.assert_allclose(line.bearable, 2 / rate)
            assert line.x[0] == 0 and line.x[-1] == 30 and len(line.x) == 5
        assert data.bearable_label == "2 / learning rate"
        assert "least curvature" not in text_in(draw_sharpness(data))

    @pytest.mark.parametrize("settings", [
        {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.3},
    ])  # fmt: skip
    def test_what_a_rate_bears_parts_runs_that_fall_from_those_that_leave(self, settings):
        """Found by descents alone: just below the line runs come home, just above they leave."""
        line = sharpness(descend(bowl(1.0), lr=0.7, steps=3, **settings), places=2).lines[0]
        for factor, leaves in ((0.97, False), (1.03, True)):
            bend = float(line.bearable[0]) * factor
            far = descend(bowl(bend), lr=0.7, steps=3000, divergence=1e6, **settings)
            assert bool(far.diverged[0]) == leaves

    def test_the_line_follows_a_schedule(self):
        schedule = ds.Schedule(optim.lr_scheduler.StepLR, step_size=10, gamma=0.5)
        runs = descend(bowl(4.0), lr=0.2, steps=30, schedule=schedule)
        (line,) = sharpness(runs, places=4).lines
        rates = 0.2 * 0.5 ** (np.arange(30) // 10)
        np.testing.assert_allclose(line.bearable, 2 / rates)
        np.testing.assert_array_equal(line.bearable_x, np.arange(30))

    def test_a_schedule_that_moves_momentum(self):
        schedule = ds.Schedule(optim.lr_scheduler.OneCycleLR, per="step", max_lr=0.1)
        runs = descend(bowl(4.0), lr=0.1, momentum=0.9, steps=20, schedule=schedule)
        data = sharpness(runs, places=2)
        parameter = torch.zeros(1, requires_grad=True)
        optimizer = optim.SGD([parameter], lr=0.1, momentum=0.9)
        stepped = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
        expected = []
        for _ in range(20):
            group = optimizer.param_groups[0]
            expected.append(2 * (1 + group["momentum"]) / group["lr"])
            optimizer.step()
            if len(expected) < 20:
                stepped.step()
        np.testing.assert_allclose(data.lines[0].bearable, expected)
        assert data.bearable_label == "what rate and momentum bear"

    def test_epochs_and_small_batches(self, nets):
        by_step, by_epoch = (sharpness(nets[:2], 3, axis) for axis in ("step", "epoch"))
        assert by_step.lines[0].x.tolist() == [0, 100, 200]
        assert by_epoch.lines[0].x.tolist() == [0, 25, 50]
        np.testing.assert_allclose(by_epoch.lines[0].bearable_x, np.arange(200) / 4)
        assert by_step.bearable_label == "2 / learning rate (with full batches)"

    def test_what_has_no_threshold_is_said(self, nets):
        adam = sharpness(nets.where(optimizer="Adam"), places=2)
        assert adam.bearable_label == "" and adam.lines[0].bearable is None
        assert "No threshold for Adam" in text_in(draw_sharpness(adam))
        adagrad = sharpness(descend(bowl(1.0), optim.Adagrad, lr=0.1, steps=2), places=2)
        assert "no theory" in adagrad.notes[0]
        plateau = ds.Schedule(optim.lr_scheduler.ReduceLROnPlateau)
        looked = sharpness(descend(bowl(1.0), lr=0.1, steps=2, schedule=plateau), places=2)
        assert "looks at the loss" in looked.notes[0]
        by_name = descend(net_problem(), lr={"0.*": 0.1, "2.*": 0.2}, epochs=2)
        assert "by parameter name" in sharpness(by_name, places=2).notes[0]

    def test_a_negative_least_curvature_is_drawn(self):
        problem = ds.Problem.from_function(
            lambda x, y: x**2 - y**2 / 2 + y**4, start={"x": 1.0, "y": 0.01}
        )
        data = sharpness(descend(problem, lr=0.1, steps=5), places=3)
        assert data.lines[0].least[0] == pytest.approx(-1, abs=0.01) and data.limits[0] < -1
        assert "least curvature (negative)" in text_in(draw_sharpness(data))

    def test_far_thresholds_and_diverged_runs_stretch_nothing(self):
        data = sharpness(descend(bowl(4.0), lr=[1e-3, 0.1, 1e3], steps=30), places=4)
        assert data.limits[1] < 15 and data.lines[2].diverged
        shown = text_in(draw_sharpness(data))
        assert "SGD, lr 0.001 (bears 2000)" in shown and "diverged" in shown

    def test_up_to_six_runs(self):
        data = sharpness(descend(bowl(4.0), lr=ds.log_range(0.01, 0.4, 20), steps=3), places=2)
        assert len(data.lines) == 6 and data.runs == 20
        assert "6 of 20 runs" in text_in(draw_sharpness(data))

    @pytest.mark.parametrize("places", [1, 2.5, True, "many", 5000])
    def test_places_are_a_whole_number(self, nets, places):
        with pytest.raises(InputError, match=r"places must be a whole number from 2 to 1,000"):
            nets.plot.sharpness(places)

    def test_the_problem_is_needed(self, tmp_path):
        descend(bowl(1.0), steps=2).save(tmp_path / "study")
        with pytest.raises(InputError, match="without their problem"):
            ds.load(tmp_path / "study").plot.sharpness()
        assert ds.load(tmp_path / "study").plot.parameters()
