"""compare's statistics against enumeration, simulation and closed forms."""

import itertools
from fractions import Fraction
from math import comb, inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.comparing import stats
from downslope.comparing.shares import wins


@pytest.mark.parametrize("n", [6, 10, 11, 25])
def test_coverage_of_the_medians_interval(n):
    """By all ways in which n values can lie on either side of the true median."""
    interval = stats.median_interval(np.arange(1, n + 1))
    k = int(interval.low)
    assert interval.high == n + 1 - k
    held = sum(comb(n, below) for below in range(k, n - k + 1))
    assert interval.coverage == pytest.approx(held / 2**n) and interval.coverage >= 0.95
    narrower = sum(comb(n, below) for below in range(k + 1, n - k))
    assert narrower / 2**n < 0.95, "it is the narrowest"


def test_coverage_by_simulation():
    drawn = np.random.default_rng(0).exponential(size=(4000, 10))
    found = [stats.median_interval(row) for row in drawn]
    held = np.mean([one.low <= np.log(2) <= one.high for one in found])
    assert held == pytest.approx(found[0].coverage, abs=0.01)


def test_few_values_have_no_interval():
    assert not stats.median_interval(range(5)).known
    assert stats.median_interval(range(6)).known
    assert stats.median_interval([1, 2, 3, 4, 5, inf, inf, inf]).high == inf


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(inf)), min_size=1, max_size=12))
def test_the_median_counts_failures_as_the_worst(values):
    ordered = sorted(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    assert low <= stats.median(values) <= high
    if np.isfinite(values).all():
        assert stats.median(values) == pytest.approx(float(np.median(values)), abs=1e-9)
    first, third = stats.quartiles(values)
    assert first in values and third in values and first <= third


@pytest.mark.parametrize(("wins_", "n"), [(0, 10), (3, 10), (10, 10), (7, 23)])
def test_share_interval_is_exact(wins_, n):
    """At each bound the tail holds 2.5 %, in exact arithmetic."""
    found = stats.share_interval(wins_, n)

    def tail(chance, counts):
        p = Fraction(chance)
        return float(sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts))

    if wins_ > 0:
        assert tail(found.low, range(wins_, n + 1)) == pytest.approx(0.025)
    if wins_ < n:
        assert tail(found.high, range(wins_ + 1)) == pytest.approx(0.025)
    assert 0 <= found.low <= wins_ / n <= found.high <= 1


scores_with_failures = st.lists(
    st.one_of(st.integers(-5, 5).map(float), st.just(inf)), min_size=1, max_size=7
)


@given(scores_with_failures)
@settings(max_examples=60, deadline=None)
def test_expected_best_by_enumeration(scores):
    """Against every subset of every size."""
    for best in stats.expected_best(scores):
        bests = sorted(min(some) for some in itertools.combinations(scores, best.trials))
        finite = [value for value in bests if value < inf]
        assert best.all_diverged == pytest.approx(1 - len(finite) / len(bests))
        assert best.expected == pytest.approx(np.mean(finite) if finite else inf)
        quantiles = np.quantile(bests, [0.25, 0.5, 0.75], method="inverted_cdf")
        assert [best.low, best.middle, best.high] == quantiles.tolist()


def test_expected_best_never_gets_worse():
    drawn = np.random.default_rng(1).normal(size=32)
    expected = [best.expected for best in stats.expected_best(drawn)]
    assert expected[0] == pytest.approx(drawn.mean()) and expected[-1] == drawn.min()
    assert (np.diff(expected) <= 0).all()


def test_profiles_by_hand():
    """Dolan and Moré's, on three problems: one solved by both, one by B alone, one by nobody."""
    taus, shares = stats.performance_profile([[10, 30], [inf, 7], [inf, inf]])
    assert taus.tolist() == [1, 3]
    assert shares[:, 0] == pytest.approx([1 / 3, 1 / 3])
    assert shares[:, 1] == pytest.approx([1 / 3, 2 / 3])
    taus, shares = stats.performance_profile([[0, 2]])
    assert taus.tolist() == [1, 2] and shares.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("n", [6, 7, 10, 20])
def test_bounds_of_a_mean_share_hold_for_any_distribution(n):
    """Coverage by simulation, where a bootstrap over problems covers 64 to 93 %."""
    drawn = np.random.default_rng(0)
    for p in (0.5, 0.8, 0.9, 0.97):
        few = drawn.binomial(10, drawn.beta(p, 1 - p, (400, n))) / 10
        for values in (few, (drawn.random((400, n)) < p).astype(float)):
            found = [stats.mean_interval(row) for row in values]
            assert np.mean([one.low <= p <= one.high for one in found]) >= 0.95


def test_bounds_of_a_mean_share_are_hoeffdings():
    """At each bound, ((m/b)^m ((1 - m)/(1 - b))^(1 - m))^-n is 2.5 %."""
    values = np.array([1, 1, 0.5, 1, 0.8, 0.9, 1, 0.2])
    found, m = stats.mean_interval(values), values.mean()
    for bound in (found.low, found.high):
        tail = ((bound / m) ** m * ((1 - bound) / (1 - m)) ** (1 - m)) ** len(values)
        assert tail == pytest.approx(0.025)
    assert 0 < found.low < m < found.high < 1
    assert stats.mean_interval([1.0] * 6).low == pytest.approx(0.025 ** (1 / 6))
    assert stats.mean_interval([0.0] * 6).high == pytest.approx(1 - 0.025 ** (1 / 6))
    assert not stats.mean_interval([1.0] * 5).known


def test_wins_by_hand():
    tenth = stats.Resolution(absolute=0.1)
    assert wins([1, 2, 3, inf, inf, 5], [2, 2.05, 1, inf, 4, inf], tenth) == (2, 2)


def test_verdicts():
    def bounds(low, high):
        return stats.Interval(low, high, 0.95)

    fifth, tenth_of_it = stats.Resolution(absolute=0.2), stats.Resolution(relative=0.1)
    assert stats.verdict(bounds(1, 2), bounds(2.1, 3)) == "lower"
    assert stats.verdict(bounds(1, 2), bounds(2.1, 3), fifth) == "near"
    assert stats.verdict(bounds(1.9, 2), bounds(2.05, 2.06), fifth) == "equal"
    assert stats.verdict(bounds(0.19, 0.2), bounds(0.205, 0.206), tenth_of_it) == "equal"
    assert stats.verdict(bounds(1e-9, 2e-9), bounds(3e-9, 4e-9), tenth_of_it) == "lower"
    assert stats.verdict(bounds(4, inf), bounds(1, 2), tenth_of_it) == "higher"
    assert stats.verdict(bounds(inf, inf), bounds(inf, inf), fifth) == "overlap"
    assert stats.verdict(bounds(nan, nan), bounds(1, 2)) == "none"
