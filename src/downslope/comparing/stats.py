"""What a comparison computes from scores: intervals, best of a budget, profiles, shares of wins.

Lower scores are better, and infinity stands for a run that diverged: it takes part in every median,
interval and share as the worst there is, and is never left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, inf, isfinite, log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Bounds, and how surely they hold what they are for; NaN bounds where none are possible."""

    low: float
    high: float
    coverage: float

    @property
    def known(self) -> bool:
        """Whether there are bounds at all."""
        return self.low == self.low


@dataclass(frozen=True)
class Resolution:
    """What two losses must differ by to be called different.

    Attributes:
        absolute: a difference in the loss.
        relative: a share of the larger of the two.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def below(self, ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.bool_]:
        """Where ours is lower than theirs by more than that; any finite one is below infinity.

        >>> Resolution(0.1).below([1.0, 1.0, 1.0, inf], [1.05, 2.0, inf, inf]).tolist()
        [False, True, True, False]
        """
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        with np.errstate(invalid="ignore"):
            size = np.where(np.isinf(theirs), 0.0, np.maximum(np.abs(ours), np.abs(theirs)))
            found: NDArray[np.bool_] = theirs - ours > np.maximum(
                self.absolute, self.relative * size
            )
        return found


EXACT = Resolution()


def verdict(ours: Interval, theirs: Interval, resolution: Resolution = EXACT) -> str:
    """Whether what ours bounds is surely "lower" or "higher" than what theirs does.

    "equal" where everything between the lowest and the highest bound is within the resolution;
    "near" where the bounds are apart, but by less than it; "overlap" where they meet; "none" where
    one has none.

    >>> ours = Interval(1.0, 2.0, 0.95)
    >>> verdict(ours, Interval(3.0, 4.0, 0.95)), verdict(ours, Interval(2.0, 4.0, 0.95))
    ('lower', 'overlap')
    """
    if not (ours.known and theirs.known):
        return "none"
    if resolution.below(ours.high, theirs.low):
        return "lower"
    if resolution.below(theirs.high, ours.low):
        return "higher"
    least, most = min(ours.low, theirs.low), max(ours.high, theirs.high)
    if isfinite(most) and not resolution.below(least, most):
        return "equal"
    return "near" if ours.high < theirs.low or theirs.high < ours.low else "overlap"


def median(values: ArrayLike) -> float:
    """The middle of the values (n,), infinite ones too; NaN of none.

    >>> median([1.0, 2.0, inf]), median([1.0, inf])
    (2.0, inf)
    """
    ordered = np.sort(np.asarray(values, float))
    if not len(ordered):
        return nan
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low) if low == high else float(low + (high - low) / 2)


def median_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Bounds for the median of what the values (n,) were drawn from, exact for any distribution.

    The k-th lowest and k-th highest value hold the median between them with the probability
    1 − 2 P(B < k), B binomial of n throws and chance ½; the largest k with at least `level` is
    taken. Below 6 values there is none of 95 %. Source: H. A. David and H. N. Nagaraja, Order
    Statistics (2003), section 7.1.

    >>> median_interval(range(1, 11))
    Interval(low=2.0, high=9.0, coverage=0.978515625)
    """
    ordered = np.sort(np.asarray(values, float))
    n, below, best = len(ordered), 0, None
    for k in range(1, n // 2 + 1):
        below += comb(n, k - 1)
        coverage = 1 - 2 * below / 2**n
        if coverage < level:
            break
        best = Interval(float(ordered[k - 1]), float(ordered[n - k]), coverage)
    return best or Interval(nan, nan, nan)


def quartiles(values: ArrayLike) -> tuple[float, float]:
    """The values (n,) below which a quarter and three quarters lie: values that occurred."""
    low, high = np.quantile(np.asarray(values, float), [0.25, 0.75], method="inverted_cdf")
    return float(low), float(high)


def share_interval(wins: int, n: int, level: float = 0.95) -> Interval:
    """Bounds for a chance of which `wins` of `n` throws came true: Clopper and Pearson.

    Source: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934), 404–413. At least `level`,
    whatever the chance is.

    >>> found = share_interval(10, 10)
    >>> round(found.low, 4), found.high
    (0.6915, 1.0)
    """
    if not n:
        return Interval(nan, nan, nan)
    tail = (1 - level) / 2

    def at_least(chance: float) -> float:
        return sum(_binomial(n, k, chance) for k in range(wins, n + 1))

    def at_most(chance: float) -> float:
        return sum(_binomial(n, k, chance) for k in range(wins + 1))

    low = 0.0 if wins == 0 else _rising(lambda p: at_least(p) - tail)
    high = 1.0 if wins == n else _rising(lambda p: tail - at_most(p))
    return Interval(low, high, level)


def _binomial(n: int, k: int, chance: float) -> float:
    return float(comb(n, k) * chance**k * (1 - chance) ** (n - k))


def _rising(function: Callable[[float], float]) -> float:
    """Where a function that rises from below to above 0 on [0, 1] crosses it."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class BestOf:
    """The best of k trials taken at random, without putting back, from all that were made.

    Attributes:
        trials: k.
        expected: its mean, over those draws that hold a trial which did not diverge.
        low, middle, high: its quartiles and median over all draws; infinite where diverged.
        all_diverged: the chance that all k diverged.
    """

    trials: int
    expected: float
    low: float
    middle: float
    high: float
    all_diverged: float


def expected_best(scores: ArrayLike) -> list[BestOf]:
    """What a smaller budget would have found: the best of k trials, for k from 1 to all.

    Of n sorted scores, the i-th is the lowest of k draws with the probability
    C(n − i, k − 1) / C(n, k). Sources: J. Dodge et al., "Show Your Work", EMNLP 2019, arXiv
    1909.03004, in the unbiased form (draws without putting back) of R. Tang et al., ACL 2020,
    arXiv 2004.13705.

    Args:
        scores: (n,), infinite for a trial that diverged.

    >>> [round(best.expected, 3) for best in expected_best([3.0, 1.0, 2.0])]
    [2.0, 1.333, 1.0]
    """
    ordered = np.sort(np.asarray(scores, float))
    n, finite = len(ordered), np.isfinite(np.sort(np.asarray(scores, float)))
    found = []
    for k in range(1, n + 1):
        chances = np.array([comb(n - i, k - 1) / comb(n, k) for i in range(1, n + 1)])
        some = float(chances[finite].sum())
        mean = float(chances[finite] @ ordered[finite]) / some if some else inf
        summed = np.cumsum(chances)
        low, middle, high = (
            float(ordered[min(int(np.searchsorted(summed, q - 1e-12)), n - 1)])
            for q in (0.25, 0.5, 0.75)
        )
        lost = comb(n - int(finite.sum()), k) / comb(n, k)
        found.append(BestOf(k, mean, low, middle, high, lost))
    return found


def performance_profile(costs: ArrayLike) -> tuple[Array, Array]:
    """For each contender the share of problems that it solves within τ times the least cost.

    Source: E. D. Dolan and J. J. Moré, Mathematical Programming 91 (2002), 201–213. A problem that
    nobody solves counts in every share's denominator. A cost of 0 counts as 1 step.

    Args:
        costs: (problems, contenders), infinite where not solved.

    Returns:
        τ (k,): 1 and every finite ratio, rising; shares (k, contenders).

    >>> taus, shares = performance_profile([[1, 2], [inf, 5]])
    >>> taus.tolist(), shares.tolist()
    ([1.0, 2.0], [[0.5, 0.5], [0.5, 1.0]])
    """
    steps = np.maximum(np.asarray(costs, float), 1.0)
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isfinite(steps), steps / steps.min(1, keepdims=True), inf)
    taus = np.unique(np.append(ratios[np.isfinite(ratios)], 1.0))
    return taus, (ratios[None] <= taus[:, None, None]).mean(1)


FEWEST_OF_MEAN = 6
"""Of fewer values even the highest bound of a mean cannot leave one half out."""


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Bounds for the mean of what the values (n,), each from 0 to 1, were drawn from.

    At least `level`, whatever the distribution is and however few the values are: a mean m is
    ruled out where n KL(mean of the values ‖ m) > log(2 / (1 − level)), KL between two chances.
    Source: W. Hoeffding, J. Amer. Statist. Assoc. 58 (1963), 13–30, theorem 1. Of fewer than 6
    values the bounds could not leave ½ out: NaN.

    >>> found = mean_interval([1.0] * 10)
    >>> round(found.low, 4), found.high
    (0.6915, 1.0)
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < FEWEST_OF_MEAN:
        return Interval(nan, nan, nan)
    mean, most = float(values.mean()), log(2 / (1 - level)) / n
    low = 0.0 if mean <= 0 else mean * _rising(lambda p: most - _divergence(mean, p * mean))
    rest = 1 - mean
    high = (
        1.0
        if rest <= 0
        else mean + rest * _rising(lambda p: _divergence(mean, mean + p * rest) - most)
    )
    return Interval(low, high, level)


def _divergence(p: float, q: float) -> float:
    """Kullback and Leibler's, of a throw of chance p from one of chance q."""
    found = 0.0
    for ours, theirs in ((p, q), (1 - p, 1 - q)):
        if ours > 0:
            found += ours * log(ours / theirs) if theirs > 0 else inf
    return found
