"""Loss curves: studies in which most runs diverge, axes, bands, and any style the user has set."""

import numpy as np
import pytest
import torch
from drawn import png, words_in
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

import downslope as ds
from downslope.views.data.losses import limits, loss_curves, over_seeds
from downslope.views.data.settings import settings_of, thinned

ROWS = 23


def line_problem():
    x = torch.linspace(-1, 1, ROWS).reshape(-1, 1)
    return ds.Problem.from_model(lambda: nn.Linear(1, 1), x, 3 * x + 1, loss=nn.MSELoss())


def descend(problem, *args, **asked):
    return ds.descend(problem, *args, progress=False, **asked)


@pytest.fixture(scope="module", params=[1e8, None], ids=["as told", "only what is not finite"])
def wild(request):
    """20 rates × 5 seeds, of which 18 diverge: at step 1 or later, as high as floats reach."""
    rates = [0.05, 0.3, 1.4, *np.geomspace(2.1, 1e30, 17)]
    return descend(
        line_problem(),
        lr=rates,
        seed=range(5),
        steps=700,
        divergence=request.param,
        dtype=torch.float64,
    )


class TestWild:
    def test_nine_tenths_diverge_in_many_ways(self, wild):
        assert wild.diverged.sum() == 90
        ends = wild.first_bad_step[wild.diverged]
        assert ends.min() < 8 and ends.max() > 12 and len(set(ends.tolist())) >= 4

    def test_the_axis_is_that_of_the_runs_that_did_not(self, wild):
        data = loss_curves(wild)
        held = wild.loss[~wild.diverged]
        ends = limits(np.concatenate([held.ravel(), wild.loss[:, 0]]), log=True)
        assert data.limits == pytest.approx(ends)
        assert data.limits[1] < 10 * wild.loss[:, 0].max()

    def test_marks_stand_at_the_last_finite_loss(self, wild):
        data = loss_curves(wild)
        for curve in (*data.curves, *data.others):
            rows = [r for r in curve.setting.rows if wild.diverged[r]]
            last = [int(np.isfinite(wild.loss[row]).sum()) - 1 for row in rows]
            expected = [
                (wild.steps[row, at], wild.loss[row, at])
                for row, at in zip(rows, last, strict=True)
            ]
            np.testing.assert_array_equal(curve.ends, np.reshape(expected, (-1, 2)))

    def test_it_is_drawn_within_those_limits(self, wild):
        figure = wild.plot.losses()
        assert png(figure)
        assert figure.axes[0].get_ylim() == pytest.approx(loss_curves(wild).limits)
        assert " diverged (90 runs)" in words_in(figure)


def test_of_few_settings_those_that_diverged_need_no_name():
    runs = descend(line_problem(), lr=[0.1, *np.geomspace(10, 1e6, 6)], steps=50)
    data = loss_curves(runs)
    assert [c.setting.label for c in data.curves] == ["SGD, lr 0.1"]
    assert len(data.others) == 6
    assert " 6 settings that diverged" in words_in(runs.plot.losses())
    assert len(thinned([c for c in data.others])[0]) == 6  # where all did, each has a name


@pytest.mark.parametrize("every", ["epoch", "step", 2])
def test_epochs_and_steps_of_mixed_batch_sizes(every):
    runs = descend(line_problem(), batch_size=[5, 10, "full"], lr=0.05, epochs=4, every=every)
    each = {"5": 5, "10": 3, "full": 1}  # 23 rows: 5 batches, 3 batches, or one
    by_epoch, by_step = loss_curves(runs), loss_curves(runs, "step")
    for size, of_epoch, of_step in zip(each, by_epoch.curves, by_step.curves, strict=True):
        row = int(of_step.setting.rows[0])
        steps = runs.steps[row][runs.steps[row] >= 0]
        np.testing.assert_array_equal(of_step.x, steps)
        np.testing.assert_allclose(of_epoch.x, steps / each[size])
        assert of_epoch.x[-1] == 4 and of_step.x[-1] == 4 * each[size]
        np.testing.assert_array_equal(of_epoch.middle, runs.loss[row, : len(steps)])
    assert "step" in by_step.x_label.lower() and "Epoch" in by_epoch.x_label


def test_bands_say_of_how_many_seeds():
    runs = descend(line_problem(), lr=[0.1, 0.2], seed=range(7), epochs=10, batch_size=5)
    shown = words_in(runs.plot.losses())
    assert " SGD, lr 0.1 (7 seeds)" in shown
    assert any("Line: median of the seeds; band: their range" in words for words in shown)


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 5)),
        elements=st.one_of(st.floats(-1e100, 1e100), st.just(np.nan)),
    )
)
def test_over_seeds_is_what_numpy_says(values):
    middle, low, high = over_seeds(values)
    for column, seen in enumerate(values.T):
        known = seen[~np.isnan(seen)]
        if len(known):
            assert middle[column] == pytest.approx(np.median(known), rel=1e-12, abs=1e-200)
            assert (low[column], high[column]) == (known.min(), known.max())
        else:
            assert np.isnan([middle[column], low[column], high[column]]).all()


def test_settings_keep_their_order_when_thinned():
    runs = descend(line_problem(), lr=np.geomspace(1e-3, 0.1, 20), steps=3)
    shown, others = thinned(loss_curves(runs).curves + loss_curves(runs).others)
    assert len(shown) + len(others) == 20 == len(settings_of(runs))


def test_less_than_three_decades_are_written_as_numbers():
    runs = descend(line_problem(), lr=0.1, epochs=10)
    figure = runs.plot.losses()
    png(figure)
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks and all(tick == f"{float(tick):g}" for tick in ticks)


@pytest.mark.parametrize("log", [True, False])
def test_differences_of_rounding_do_not_fill_a_picture(log):
    low, high = limits(np.array([0.3, 0.1 + 0.2]), log)
    assert low < 0.298 and high > 0.302
