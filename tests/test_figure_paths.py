"""Paths: over one number, over two, and on the plane of their main directions."""

import numpy as np
import pytest
import torch
from drawn import png, text_in
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn, optim

import downslope as ds
from downslope.errors import InputError
from downslope.views.data.chosen import number_names, spread
from downslope.views.data.paths import MISS, paths
from downslope.views.data.planes import MOST_POINTS, main_plane
from downslope.views.data.surfaces import effort, loss_at
from downslope.views.drawing.paths import draw_paths

KEPT = ("loss", "parameters")


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **{"keep": KEPT, **asked})


def line_problem():
    x = torch.linspace(-1, 1, 20).reshape(-1, 1)
    noise = 0.1 * torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    return ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x + 1 + noise, loss=nn.MSELoss())


def net_problem(*layers):
    x = torch.linspace(-2, 2, 40).reshape(-1, 1)

    def make():
        return nn.Sequential(nn.Linear(1, 6), *layers, nn.Tanh(), nn.Linear(6, 1))

    return ds.Problem.from_model(make, x, torch.sin(2 * x), loss=nn.MSELoss())


@pytest.fixture(scope="module")
def bowls():
    """x² - 4x + 5 from 7 at rates of which the last diverges: x - 2 grows by -19 a step."""
    problem = ds.Problem.from_function(lambda x: x**2 - 4 * x + 5, start=torch.tensor(7.0).double())
    return descend(problem, lr=[0.1, 0.7, 10.0], steps=20)


@pytest.fixture(scope="module")
def flat_way():
    """A bowl in five numbers that only two bend: gradients, and so all ways, lie in a plane."""
    weights = torch.tensor([[1.0, 2, 0, -1, 3], [0, 1, -1, 2, 1]]).double()
    problem = ds.Problem.from_function(
        lambda p: 0.5 * (weights @ p - torch.tensor([1.0, -2.0]).double()).square().sum(),
        start=torch.tensor([3.0, 1, -1, 2, -2]).double(),
    )
    return descend(problem, lr=[0.01, 0.1], steps=40)


@pytest.fixture(scope="module")
def nets():
    return descend(
        net_problem(), [ds.Grid(optim.SGD, lr=[0.3, 30.0]), ds.Grid(optim.Adam, lr=0.05)], epochs=60
    )


class TestFewNumbers:
    def test_points_follow_the_closed_form(self, bowls):
        data = paths(bowls)
        assert data.names == ("x",) and data.y_label == "f(x)"
        steps = np.arange(21)
        np.testing.assert_allclose(data.paths[0].points[:, 0], 2 + 5 * 0.8**steps)
        np.testing.assert_allclose(data.surface, (data.axes[0] - 2) ** 2 + 1)
        assert data.paths[2].diverged
        assert -20 < data.axes[0][0] < data.axes[0][-1] < 20  # whatever the diverged run did
        assert data.warning == "" and all(way.miss == 0 for way in data.paths)

    def test_the_surface_of_two_numbers_is_the_loss(self):
        grids = [ds.Grid(optim.SGD, lr=[0.01, 0.1, 1e3]), ds.Grid(optim.Adam, lr=[0.01, 0.1])]
        runs = descend(line_problem(), grids, batch_size=5, epochs=6)
        data = paths(runs)
        assert data.names == ("weight", "bias") and data.plane is None
        problem = runs.plan.problem
        x, y = (t.double().numpy() for t in (problem.train.x, problem.train.y))
        w, b = np.meshgrid(*data.axes)
        dense = ((w[..., None] * x[:, 0] + b[..., None] - y[:, 0]) ** 2).mean(-1)
        np.testing.assert_allclose(data.surface, dense, rtol=1e-4)
        assert len(data.paths) == 5 and data.runs == 5

    def test_one_parameter_of_two_elements(self):
        problem = ds.Problem.from_function(lambda p: (p**2).sum(), start=[1.0, 2.0])
        assert paths(descend(problem, lr=0.1, steps=3)).names == ("p[0]", "p[1]")

    def test_what_is_maximised_is_framed_upside_down(self):
        problem = ds.Problem.from_function(lambda x: 1 - (x - 2) ** 2, start=7.0)
        runs = descend(problem, optim.SGD, maximize=True, lr=[0.1, 0.4], steps=20)
        data = paths(runs)
        assert data.upward
        assert data.axes[0][0] < 2 < 7 < data.axes[0][-1]
        assert png(draw_paths(data))

    def test_buffers_are_those_of_the_end(self):
        x = torch.linspace(1, 5, 30).reshape(-1, 1)
        problem = ds.Problem.from_model(lambda: nn.BatchNorm1d(1), x, 3 * x, loss=nn.MSELoss())
        runs = descend(problem, lr=0.1, epochs=60)
        data = paths(runs)
        at_end = loss_at(problem, data.paths[0].points[-1:], runs[0].state)
        assert at_end[0] == pytest.approx(runs.table["final_loss"][0], rel=1e-5)
        assert data.paths[0].miss > MISS  # the running mean was another at the start
        assert "the model's buffers moved" in data.warning

    def test_what_cannot_be_drawn_is_told(self, tmp_path):
        runs = descend(line_problem(), epochs=1, keep=("loss",))
        with pytest.raises(InputError, match=r"keep=\('loss', 'parameters'\)"):
            runs.plot.path()
        kept = descend(line_problem(), epochs=1)
        kept.save(tmp_path / "study")
        with pytest.raises(InputError, match="without their problem"):
            ds.load(tmp_path / "study").plot.path()


class TestPlane:
    def test_a_way_in_a_plane_is_held_whole(self, flat_way):
        data = paths(flat_way)
        assert data.plane.shares.sum() == pytest.approx(1, abs=1e-12)
        assert len(data.names) == 2 and data.numbers == 5
        for way, run in zip(data.paths, flat_way, strict=True):
            assert way.share == pytest.approx(1, abs=1e-12)
            assert way.off.max() < 1e-12
            assert way.miss == 0
            back = np.stack(list(data.plane.points(way.points)))
            np.testing.assert_allclose(back, run.path["p"].numpy(), atol=1e-12)
        assert data.warning == ""

    def test_the_surface_is_the_loss_on_the_plane(self, flat_way):
        data = paths(flat_way)
        weights = np.array([[1.0, 2, 0, -1, 3], [0, 1, -1, 2, 1]])
        u, v = np.meshgrid(*data.axes)
        places = (
            data.plane.centre
            + u[..., None] * data.plane.directions[0]
            + (v[..., None] * data.plane.directions[1])
        )
        missed = places @ weights.T - [1.0, -2.0]
        np.testing.assert_allclose(data.surface, 0.5 * (missed**2).sum(-1), rtol=1e-9, atol=1e-12)

    def test_it_goes_through_the_end_of_the_best_run(self, nets):
        data = paths(nets)
        best = nets.best
        end = torch.cat([t.flatten() for t in best.parameters.values()]).double().numpy()
        np.testing.assert_allclose(data.plane.centre, end, atol=1e-7)
        np.testing.assert_allclose(data.paths[best.place].points[-1], 0, atol=1e-6)
        np.testing.assert_allclose(
            data.plane.directions @ data.plane.directions.T, np.eye(2), atol=1e-12
        )

    def test_distances_and_shares_are_those_of_the_points(self, nets):
        data = paths(nets)
        for way, run in zip(data.paths, nets, strict=True):
            if way.diverged:
                continue
            flat = torch.cat([t.flatten(1) for t in run.path.values()], dim=1).double().numpy()
            away = flat - data.plane.centre
            projector = np.eye(19) - data.plane.directions.T @ data.plane.directions
            np.testing.assert_allclose(way.off, np.linalg.norm(away @ projector, axis=1), atol=1e-9)
            assert way.share == pytest.approx(1 - (way.off**2).sum() / (away**2).sum())

    def test_a_surface_that_misses_is_told(self, nets):
        data = paths(nets)
        missed = [way for way in data.paths if way.miss > MISS]
        assert missed, "ways of a net leave any plane"
        assert "misses the recorded loss" in data.warning
        shown = text_in(draw_paths(data))
        assert "Mind:" in shown and "on the plane" in shown and "off it: at most" in shown
        assert f"{data.plane.shares.sum():.1%}" in shown

    def test_the_miss_is_that_of_the_farthest_record(self, nets):
        data = paths(nets[[0]])
        (way,) = data.paths
        points = np.stack(list(data.plane.points(way.points)))
        drawn = loss_at(nets.plan.problem, points)
        worst = np.abs(drawn - way.losses).max() / np.ptp(way.losses)
        assert way.miss == pytest.approx(worst, rel=0.1)  # not every record is looked at

    def test_diverged_runs_do_not_turn_the_plane(self, nets):
        data = paths(nets)
        assert data.paths[1].diverged
        without = paths(nets[[0, 2]])
        np.testing.assert_allclose(data.plane.directions, without.plane.directions, atol=1e-2)
        assert np.abs(np.concatenate(data.axes)).max() < 100

    def test_runs_of_different_starts(self):
        runs = descend(net_problem(nn.BatchNorm1d(6)), lr=0.1, seed=range(9), epochs=20)
        data = paths(runs)
        assert len(data.paths) == 6 and data.runs == 9
        assert any("buffers" in note for note in data.notes)
        assert len({tuple(way.points[0]) for way in data.paths}) == 6
        assert "6 of 9 runs" in text_in(draw_paths(data))

    def test_a_way_along_a_line(self):
        problem = ds.Problem.from_function(lambda p: ((p - 1) ** 2).sum(), start=[3.0, 2.0, 7.0])
        data = paths(descend(problem, lr=0.1, steps=10))
        assert data.plane.shares == pytest.approx([1, 0], abs=1e-9)
        assert np.ptp(data.axes[1]) > 0.1
        assert png(draw_paths(data))

    def test_runs_that_go_nowhere(self):
        problem = ds.Problem.from_function(lambda p: (p * 0).sum(), start=[3.0, 2.0, 7.0])
        data = paths(descend(problem, lr=0.1, steps=3))
        assert data.paths[0].share == 1 and data.warning == ""
        assert png(draw_paths(data))

    def test_only_diverged_runs(self, nets):
        assert png(draw_paths(paths(nets[[1]])))

    def test_global_random_state_stays(self, nets):
        before = torch.get_rng_state()
        paths(nets)
        assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=40, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 12), st.integers(2, 9)), elements=st.floats(-9, 9)))
def test_a_plane_holds_what_the_two_largest_singular_values_do(points):
    plane = main_plane([points], points[-1])
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-9)
    values = np.linalg.svd(points - points[-1], compute_uv=False) ** 2
    if values.sum() > 1e-12:
        assert plane.shares.sum() == pytest.approx(values[:2].sum() / values.sum(), abs=1e-8)
    on, off = plane.laid(points)
    total = ((points - points[-1]) ** 2).sum()
    assert (on**2).sum() + (off**2).sum() == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_long_ways_are_seen_in_even_parts():
    t = np.linspace(0, 3, 5 * MOST_POINTS)
    spiral = np.stack([np.cos(t), np.sin(t), np.zeros_like(t), np.ones_like(t)], axis=1)
    plane = main_plane([spiral], spiral[-1])
    assert plane.shares.sum() == pytest.approx(1, abs=1e-12)


class TestSurfaces:
    def test_loss_at_agrees_with_the_recorded_losses(self, nets):
        run = nets[0]
        points = torch.cat([t.flatten(1) for t in run.path.values()], dim=1).double().numpy()
        np.testing.assert_allclose(loss_at(nets.plan.problem, points), run.loss, rtol=1e-4)

    def test_the_cost_is_bounded(self):
        def problem(rows, width):
            model = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 1))
            x = torch.zeros(rows, 10)
            return ds.Problem.from_model(model, x, x[:, :1], loss=nn.MSELoss())

        assert effort(problem(100, 10)).side == 61
        for rows, width in ((1000, 1000), (20_000, 3000)):
            cost = effort(problem(rows, width))
            assert cost.side**2 * cost.rows * 22 * width <= 1.01 * 2.5e10 or cost.rows == 200
        assert cost.rows < 20_000

    def test_some_rows_stand_for_all(self):
        for reduction in ("mean", "sum"):
            x = torch.linspace(-1, 1, 5001).reshape(-1, 1).double()
            problem = ds.Problem.from_model(
                nn.Linear(1, 1).double(), x, 3 * x, loss=nn.MSELoss(reduction=reduction)
            )
            points = np.array([[1.0, 0.5], [-2.0, 3.0]])
            np.testing.assert_allclose(
                loss_at(problem, points, rows=500), loss_at(problem, points), rtol=1e-2
            )


def test_the_best_run_is_among_those_shown():
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    runs = descend(problem, lr=[0.01, 0.45, *ds.log_range(0.02, 0.3, 18)], steps=5)
    places = spread(runs)
    assert len(places) == 6 and runs.best.place == 1 and 1 in places
    assert (np.diff(places) > 0).all()


def test_numbers_are_named_by_their_place():
    path = {"w": torch.zeros(2, 3, 1, 2), "b": torch.zeros(2, 3, 1), "s": torch.zeros(2, 3)}
    assert number_names(path) == ["w[0, 0]", "w[0, 1]", "b", "s"]
