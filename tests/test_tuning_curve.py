"""The choice of a rate on curves made by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.searching.closely import promising
from downslope.searching.curve import (
    MARGIN,
    Curve,
    alike,
    choose,
    flat_span,
    levels,
    smoothed,
    stable_span,
)

FINE = np.geomspace(0.01, 1, 65)
EPS = 2.0**-23


def curve(rates, ends, start=100.0):
    """Ends (rates, seeds) as a curve; NaN: diverged."""
    ends = np.asarray(ends, float)
    return Curve(np.asarray(rates, float), ends, np.isnan(ends), np.full(ends.shape[1], start))


def bowl(rates, best, width=1.0):
    return np.exp((np.log10(rates / best) / width) ** 2)


def test_without_noise_the_lowest_is_taken():
    ends = bowl(FINE, 0.1, 0.1)[:, None]
    place = choose(curve(FINE, ends)).place
    assert place == ends[:, 0].argmin()


def test_a_lucky_rate_is_not_taken():
    """One rate dips below a smooth bowl by more than noise should let it."""
    rng = np.random.default_rng(0)
    ends = bowl(FINE, 0.1)[:, None] * np.exp(0.05 * rng.standard_normal((65, 9)))
    lucky = 55
    ends[lucky] = 0.97 * ends[32]
    assert np.median(ends, 1).argmin() == lucky or np.median(ends, 1)[lucky] < 1.02
    chosen = FINE[choose(curve(FINE, ends)).place]
    assert 0.05 < chosen < 0.2


def test_no_rate_is_taken_at_which_a_seed_diverged_or_just_below():
    """Losses fall right up to the cliff: the margin is kept where seeds differ."""
    rng = np.random.default_rng(1)
    ends = (1 / FINE)[:, None] * np.exp(0.1 * rng.standard_normal(7))
    cliff = 50
    ends[cliff:, 3] = np.nan  # one seed of seven
    chosen = FINE[choose(curve(FINE, ends)).place]
    assert FINE[cliff] / MARGIN**2 < chosen <= FINE[cliff] / MARGIN


def test_where_all_seeds_are_the_same_the_cliff_may_be_near():
    ends = np.repeat((1 / FINE)[:, None], 3, axis=1)
    ends[50:] = np.nan
    assert choose(curve(FINE, ends)).place == 49


def test_a_rate_that_ends_above_its_start_is_not_taken_unless_all_do():
    ends = np.array([[5.0, 5.0], [1.0, 300.0], [4.0, 4.1]])
    assert choose(curve([0.1, 0.2, 0.4], ends)).place == 2
    assert choose(curve([0.1, 0.2, 0.4], ends, start=0.5)).place == 2  # lowest median, 4.05


def test_of_a_flat_optimum_the_middle_is_taken():
    ends = np.where((FINE > 0.02) & (FINE < 0.5), 1.0, 2.0)[:, None]
    chosen = FINE[choose(curve(FINE, ends)).place]
    assert abs(np.log10(chosen / np.sqrt(0.02 * 0.5))) < 0.04


def test_nothing_stable():
    assert choose(curve([0.1, 1.0], [[np.nan], [np.nan]])).place is None


def test_negative_losses_count_by_the_way_from_the_start():
    ends = np.array([[-1.0], [-5.0], [-4.8], [3.0]])
    level = levels(ends, np.array([5.0]), EPS)
    assert level[:, 0].tolist() == pytest.approx([0.4, 0.0, 0.02, 0.8])
    assert choose(curve([1e-3, 1e-2, 1e-1, 1.0], ends, start=5.0)).place == 1


def test_losses_below_rounding_are_not_told_apart():
    ends = np.array([[1e-3], [1e-20], [1e-30], [0.0], [1e-25], [1.0]])
    assert choose(curve([1, 2, 3, 4, 5, 6], ends, start=1.0)).place == 2  # the middle of four


def test_a_rate_with_few_seeds_decides_nothing():
    ends = np.full((3, 8), 2.0) * np.exp(0.1 * np.random.default_rng(2).standard_normal(8))
    few = np.full((1, 8), np.nan)
    few[0, 0] = 0.1
    table = np.concatenate([ends, few])
    made = Curve(np.array([0.1, 0.2, 0.3, 0.4]), table, np.zeros((4, 8), bool), np.full(8, 9.0))
    assert choose(made).place != 3


def test_spans():
    ends = np.array([[3.0], [1.05], [1.0], [1.09], [1.2], [np.nan], [1.0], [np.nan]])
    made = curve([1, 2, 3, 4, 5, 6, 7, 8], ends)
    assert stable_span(made, 2) == (0, 4)
    assert flat_span(made, 2, False, EPS) == ((1, 3), False)


def test_flatness_is_measured_over_the_same_seeds():
    """A seed that always ends high must not make the rates without it look better."""
    ends = np.array([[1.0, np.nan], [1.0, 9.0], [1.0, 9.0]])
    made = Curve(np.array([1.0, 2, 3]), ends, np.zeros((3, 2), bool), np.full(2, 99.0))
    assert flat_span(made, 1, False, EPS) == ((0, 2), False)
    assert alike(made, EPS)


def test_smoothing_gives_back_quadratics_exactly():
    """Local quadratics reproduce a quadratic whatever the weights; infinities stay."""
    x = np.linspace(-1, 1, 41)
    y = 3 * x**2 - x + 2
    y[7] = np.inf
    made = smoothed(x, y, 0.3)
    assert np.isinf(made[7])
    np.testing.assert_allclose(np.delete(made, 7), np.delete(y, 7), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1e-6, 1e6),
    factor=st.floats(1e-6, 1e6),
    noise=st.floats(0.01, 0.3),
)
def test_the_choice_depends_on_neither_units_nor_the_order_of_seeds(seed, scale, factor, noise):
    rng = np.random.default_rng(seed)
    ends = bowl(FINE, 0.1)[:, None] * np.exp(noise * rng.standard_normal((65, 5)))
    ends[60:, 0] = np.nan
    place = choose(curve(FINE, ends)).place
    assert choose(curve(FINE * factor, ends)).place == place
    assert choose(curve(FINE, ends[:, ::-1])).place == place
    assert choose(curve(FINE, ends * scale, 100 * scale)).place == place


def test_rates_with_few_seeds_do_not_part_those_that_tie():
    """Between the rates that were tried with all seeds lie some of the first look."""
    rates = np.geomspace(0.01, 1, 21)
    ends = np.full((21, 8), 2.0) * np.exp(0.001 * np.arange(8))
    ends[5, 3:] = np.nan
    ends[5, :3] = 0.2  # lucky, in the middle of the stretch
    made = Curve(rates, ends, np.zeros((21, 8), bool), np.full(8, 9.0))
    chosen = choose(made)
    assert (chosen.place, chosen.low, chosen.high) == (10, 0, 20)
    assert np.isinf(chosen.level[5])
    made.diverged[5, 3] = True  # this one does: it is not stable
    assert choose(made).low == 6 or choose(made).high == 4


def test_a_few_seeds_can_show_that_a_rate_is_unstable():
    ends = np.full((4, 8), 2.0) / np.arange(1, 5)[:, None] * np.exp(0.1 * np.arange(8))
    ends[3] = np.nan
    diverged = np.zeros((4, 8), bool)
    diverged[3, 0] = True
    made = Curve(np.array([0.1, 0.2, 0.3, 0.31]), ends, diverged, np.full(8, 9.0))
    assert choose(made).place == 1  # 0.3 lies too close below


def test_flatness_needs_the_medians_too():
    """Seed by seed alike, but the median of an even number of seeds in two heaps jumps."""
    low, high = np.full(9, 1.0), np.full(9, 10.0)
    ends = np.where(np.arange(9) < 5, low, high) * np.ones((3, 1))
    ends[0, 0] = 10.0  # the fifth of nine is now in the upper heap
    made = curve([1, 2, 3], ends)
    assert flat_span(made, 1, False, EPS) == ((1, 2), True)


def test_stability_ends_where_all_seeds_were_tried():
    ends = np.ones((4, 6))
    ends[2, 3:] = np.nan  # three seeds alone
    diverged = np.zeros((4, 6), bool)
    diverged[3, 0], ends[3, 0] = True, np.nan
    made = Curve(np.array([1.0, 2, 3, 4]), ends, diverged, np.full(6, 9.0))
    assert stable_span(made, 0) == (0, 1)


def test_rates_become_promising_when_the_luckiest_falls_back():
    """Two rates look alike until all seeds are in; then what was 30 times worse is the best."""
    ends = np.full((3, 6), np.nan)
    ends[:, :3] = [[100.0], [1.0], [30.0]]
    made = Curve(np.array([1.0, 2, 3]), ends, np.zeros((3, 6), bool), np.full(6, 1e3))
    assert promising(made, EPS, 6) == [2.0]
    ends[1, 3:] = 900.0  # of the logarithms of six the median is now that of 30
    assert promising(made, EPS, 6) == [1.0, 3.0]
    ends[[0, 2], 3:] = 40.0
    assert promising(made, EPS, 6) == []
