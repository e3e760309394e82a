"""Which rate to take, from the losses at which runs ended: pure functions of plain arrays.

The rule, in order:

1. A rate at which a seed diverged, or ended above where it began, is not taken, nor one so close
   below it that another order of the samples may diverge (`MARGIN`).
2. Losses count by their logarithm; where some are below zero, by their share of the way from the
   start to the best (`levels`).
3. The median over the seeds, smoothed over neighbouring rates (local quadratics, Cleveland 1979,
   "Robust locally weighted regression") where seeds differ, so that no lucky rate is taken.
4. Of all neighbours of the lowest that are as good within `TIE`, the middle one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MARGIN = 1.15
"""How far below a rate that diverged a rate must lie, where seeds differ."""

EXACT_MARGIN = 1.01
"""The same where all seeds give the same run."""

NOISE = 1e-3
"""Spread of the levels over seeds above which they count as different."""

TIE, EXACT_TIE = 0.01, 0.001
"""Levels that differ by less are as good as each other; the second where seeds do not differ."""

WINDOW = 0.15
"""Decades to each side over which levels are smoothed."""

FLAT = 0.0953
"""Levels up to this above the chosen are said to be about as good: log 1.1, 10 % of the loss."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The ends of runs at some rates.

    Attributes:
        rates: (rates,), ascending.
        ends: (rates, seeds) scores, lower is better; NaN where a seed diverged or was not tried.
        diverged: (rates, seeds), which diverged.
        start: (seeds,) scores at the start; NaN where unknown.
    """

    rates: Array
    ends: Array
    diverged: Mask
    start: Array

    @property
    def seeds(self) -> NDArray[np.int64]:
        """How many seeds were tried at each rate, (rates,)."""
        made: NDArray[np.int64] = (np.isfinite(self.ends) | self.diverged).sum(1)
        return made

    @property
    def stable(self) -> Mask:
        """At which rates no seed diverged, (rates,)."""
        bad, known = self.diverged.any(1), np.isfinite(self.ends).any(1)
        made: Mask = np.logical_and(known, ~bad)
        return made

    @property
    def medians(self) -> Array:
        """Over the seeds that did not diverge, (rates,); NaN where all did."""
        return over_seeds(self.ends, np.nanmedian)


@dataclass(frozen=True, eq=False)
class Choice:
    """A rate, by its place on the curve.

    Attributes:
        place: which rate; None if none is stable.
        low, high: places of the first and last rate that tie with the lowest.
        level: (rates,) what was compared; inf where a rate may not be taken.
        noisy: whether seeds differ.
        sharp: whether neighbours on the curve are so much worse that finer steps would gain.
        cut: whether rates outside the usual ones tie too, and were left out.
    """

    place: int | None
    low: int
    high: int
    level: Array
    noisy: bool
    sharp: bool
    cut: bool = False


def over_seeds(ends: Array, what: Callable[..., Array]) -> Array:
    """A number a rate from its finite ends, (rates,); NaN where there is none.

    Args:
        what: `numpy.nanmedian` and the like.
    """
    made = np.full(len(ends), np.nan)
    known = np.isfinite(ends)
    some = known.any(1)
    if some.any():
        made[some] = what(np.where(known, ends, np.nan)[some], axis=1)
    return made


def levels(ends: Array, start: Array, resolution: float) -> Array:
    """Scores on the scale on which they are compared, of the shape of `ends`.

    The logarithm where no score is below zero. Otherwise the share of the way from the start to
    the best of the medians, so that one is 100 %.

    Args:
        resolution: the spacing of floating-point numbers at 1; a loss below its square times the
            start's is zero within rounding, and not told apart from others.
    """
    begun = _start(start)
    finite = ends[np.isfinite(ends)]
    if not len(finite):
        return np.full_like(ends, np.nan)
    if finite.min() >= 0:
        least = max(resolution**2 * max(abs(begun), 1e-30), 1e-300)
        made: Array = np.log(np.maximum(ends, least))
        return made
    best = float(np.nanmin(over_seeds(ends, np.nanmedian)))
    way = max(abs(begun - best), resolution * max(abs(begun), abs(best)), 1e-300)
    shares: Array = (ends - best) / way
    return shares


def choose(
    curve: Curve,
    resolution: float = 2**-23,
    drawn: bool = False,
    usual: tuple[float, float] = (0.0, np.inf),
) -> Choice:
    """The rate to take; see the rule above.

    Args:
        drawn: whether seeds differ, where that cannot be seen since there is but one.
        usual: of rates that tie, those between these are taken, if there are such.

    >>> rates = np.array([0.1, 0.2, 0.3, 0.4])
    >>> ends = np.array([[4.0], [1.0], [2.0], [np.nan]])
    >>> curve = Curve(rates, ends, np.isnan(ends), np.array([9.0]))
    >>> choose(curve).place
    1
    """
    stable = curve.stable
    if not stable.any():
        return Choice(None, 0, 0, np.full(len(curve.rates), np.inf), False, False)
    well = curve.seeds >= curve.seeds[stable].max() / 2  # a few seeds alone choose nothing
    if not (well | ~stable).all() and (_allowed(curve, 1.0) & well).any():
        # nor do they part those that tie
        kept = np.flatnonzero(well | ~stable)
        part = Curve(curve.rates[kept], curve.ends[kept], curve.diverged[kept], curve.start)
        of_part = choose(part, resolution, drawn, usual)
        assert of_part.place is not None
        level = np.full(len(curve.rates), np.inf)
        level[kept] = of_part.level
        place, low, high = kept[[of_part.place, of_part.low, of_part.high]].tolist()
        return replace(of_part, place=place, low=low, high=high, level=level)
    level = levels(curve.ends, curve.start, resolution)
    spread = over_seeds(level, np.nanstd)
    median = over_seeds(level, np.nanmedian)
    near = stable & well
    near &= median <= np.nanmin(median[near], initial=np.inf) + FLAT
    noisy = bool(near.any() and np.median(spread[near]) > NOISE)
    noisy = noisy or (drawn and bool(curve.seeds.max() == 1))
    allowed = _allowed(curve, MARGIN if noisy else EXACT_MARGIN)
    allowed = allowed & well if (allowed & well).any() else allowed
    level = np.where(allowed, median, np.inf)
    if noisy:
        level = smoothed(np.log10(curve.rates), level)
    best = int(np.argmin(level))
    low, high = around(level <= level[best] + (TIE if noisy else EXACT_TIE), best)
    within = (curve.rates[low : high + 1] >= usual[0]) & (curve.rates[low : high + 1] <= usual[1])
    cut = bool(within.any() and not within.all())
    if cut:
        low, high = low + int(np.flatnonzero(within)[0]), low + int(np.flatnonzero(within)[-1])
    place = middle(curve.rates, low, high)
    beside = level[[p for p in (best - 1, best + 1) if 0 <= p < len(level)]]
    sharp = not noisy and bool((beside > level[best] + TIE).any())
    return Choice(place, low, high, level, noisy, sharp, cut)


def _allowed(curve: Curve, margin: float) -> Mask:
    """Which rates may be taken: with the margin and no seed above its start, if there are such."""
    stable = curve.stable
    with np.errstate(invalid="ignore"):
        grown = (curve.ends > curve.start).any(1) & stable
    strict = stable & ~grown & ~_close_below(curve.rates, ~stable, margin)
    if strict.any():
        return strict
    return stable if not (stable & ~grown).any() else stable & ~grown


def _close_below(rates: Array, bad: Mask, margin: float) -> Mask:
    """Which rates have a bad one less than a factor `margin` above them."""
    above = rates[None, :] / rates[:, None]
    close: Mask = (above > 1) & (above < margin) & bad[None, :]
    return np.asarray(close.any(1))


def _start(start: Array) -> float:
    finite = start[np.isfinite(start)]
    return float(np.median(finite)) if len(finite) else 1.0


def smoothed(places: Array, level: Array, window: float = WINDOW) -> Array:
    """Levels by local quadratics over `window` to each side; inf stays, and is never looked at.

    Args:
        places: (rates,) the logarithms of the rates; level: (rates,).
    """
    known = np.flatnonzero(np.isfinite(level))
    away = (places[known][None, :] - places[known][:, None]) / window  # (at, beside)
    weight = np.where(np.abs(away) < 1, (1 - np.minimum(np.abs(away), 1) ** 3) ** 3, 0.0)
    enough = (weight > 0).sum(1) >= 4  # a quadratic through three points is those points
    powers = away[enough][:, :, None] ** np.arange(3)
    weighted = weight[enough][:, :, None] * powers
    across = np.swapaxes(powers, 1, 2) @ weighted  # (at, 3, 3)
    aside = np.swapaxes(weighted, 1, 2) @ level[known][:, None]
    made = level.copy()
    made[known[enough]] = np.linalg.solve(across, aside)[:, 0, 0]
    return made


def around(good: Mask, place: int) -> tuple[int, int]:
    """The first and last place of the stretch of good ones around `place`."""
    low = high = place
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return low, high


def middle(rates: Array, low: int, high: int) -> int:
    """The rate between two places that is nearest to their geometric mean."""
    between = np.log(rates[low : high + 1])
    away = np.abs(between - (between[0] + between[-1]) / 2)
    return low + int(np.argmin(away.round(9)))  # of two as near, the lower, whatever the rounding


def stable_span(curve: Curve, place: int) -> tuple[int, int]:
    """Places of the lowest and highest rate around `place` between which no seed diverged.

    The highest is one that was tried with as many seeds as `place`: with few, luck may hide how
    near the end of stability is.
    """
    low, high = around(curve.stable, place)
    while curve.seeds[high] < curve.seeds[place]:
        high -= 1
    return low, high


def beside(curve: Curve, place: int, resolution: float) -> Array:
    """How much higher levels are than at `place`, (rates,): the median over the seeds that both
    were tried with, so that rates tried with other seeds can be compared; inf where unstable."""
    level = levels(curve.ends, curve.start, resolution)
    above = over_seeds(level - level[place], np.nanmedian)
    return np.where(curve.stable & np.isfinite(above), above, np.inf)


def flat_span(
    curve: Curve, place: int, noisy: bool, resolution: float
) -> tuple[tuple[int, int], bool]:
    """The rates around `place` about as good: see `FLAT`.

    Seed by seed a rate may be about as good, while its median is far off: it is not counted then.

    Returns:
        Places of the lowest and highest; whether a rate's median, far off, ends them.
    """
    above = beside(curve, place, resolution)
    if noisy:
        above = smoothed(np.log10(curve.rates), above)
    median = over_seeds(levels(curve.ends, curve.start, resolution), np.nanmedian)
    far = np.abs(median - median[place]) > FLAT
    far &= curve.seeds >= curve.seeds[place]
    span = around((above <= FLAT) & ~far, place)
    return span, span != around(above <= FLAT, place)


def alike(curve: Curve, resolution: float) -> bool:
    """Whether all rates end alike, each seed by itself."""
    level = levels(curve.ends, curve.start, resolution)
    spans = [float(np.ptp(seed[np.isfinite(seed)])) for seed in level.T]
    return bool(curve.stable.all()) and max(spans) <= TIE
