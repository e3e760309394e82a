"""The close look of `tune`: all seeds where it is promising, fine steps, the edge of stability.

Each step takes a `Search` and gives the next one, by calls of `descend`.
"""

from __future__ import annotations

import numpy as np

from downslope.ranges import Range, rounded
from downslope.searching.curve import Array, Choice, Curve, around, levels, over_seeds
from downslope.searching.search import Asked, Row, Search

PROMISING = 1.4
"""Levels up to this above the best of the first look are looked at again: four times the loss."""

TURNS = 4
"""How often rates that became promising get all seeds."""


def spans(asked: Asked) -> dict[str, Range]:
    """The hyperparameters besides the rate that are searched in a range."""
    return {name: axis for name, axis in asked.axes.items() if isinstance(axis, Range)}


def confirmed(found: Search) -> Search:
    """The promising rates of the first look with all seeds: of few, the luckiest place may win.

    Where the luckiest falls back, others become promising: those get all seeds in their turn.
    """
    new = found.more_seeds
    if not new or found.effort.per_decade == 1 or not isinstance(found.asked.rates, Range):
        return found
    for _ in range(TURNS):
        rows = [
            (other, rate)
            for other in found.ranked[: found.effort.others]
            for rate in promising(found.curve(other), found.resolution, found.whole)
        ]
        if not rows:
            break
        found = found.tried(rows, new)
    return found


def promising(curve: Curve, resolution: float, whole: int) -> list[float]:
    """The stable rates with fewer than `whole` runs that may be as good as the best with all."""
    level = over_seeds(levels(curve.ends, curve.start, resolution), np.nanmedian)
    level = np.where(curve.stable, level, np.inf)
    done = curve.seeds >= whole
    best = level[done].min(initial=np.inf)
    best = best if np.isfinite(best) else level.min()
    wanted = ~done & np.isfinite(level) & (level <= best + PROMISING)
    return [float(rate) for rate in curve.rates[wanted]]


def second_look(found: Search) -> Search:
    """Fine steps around the best rate of the best few other settings, with more seeds."""
    rows: list[Row] = []
    for other in found.ranked[: found.effort.others]:
        choice, curve = found.choice(other), found.curve(other)
        if choice.place is None:
            continue
        if found.asked.rates is None:
            rows.append((other, None))
        elif isinstance(found.asked.rates, tuple):
            rows += [(other, rate) for rate in found.asked.rates]
        else:
            rows += [(other, rate) for rate in _fine(found, curve, choice)]
    given = isinstance(found.asked.rates, Range)
    if not given and found.all_seeds == found.stages[0].seeds:
        return found  # these very runs are there already
    seeds = found.all_seeds
    if not given:  # the first look's seeds are done
        seeds = tuple(s for s in seeds if s not in found.stages[0].seeds)
    return found.tried(rows, seeds)


def _fine(found: Search, curve: Curve, choice: Choice) -> list[float]:
    """New rates around those that tie with the best so far, a step of the first look beyond."""
    step = 10 ** (0.9 / found.effort.per_decade)
    low, high = curve.rates[choice.low] / step**2, curve.rates[choice.high] * step**2
    if found.effort.per_decade == 1:
        low, high = low * step, high / step
    middle = np.sqrt(curve.rates[choice.low] * curve.rates[choice.high])
    low, high = max(low, middle / 30), min(high, middle * 30)
    span = found.asked.rates
    if isinstance(span, Range) and not found.asked.free:
        low, high = max(low, span.low), min(high, span.high)
    return _new(np.geomspace(low, high, found.effort.fine), 3, curve.rates)


def _new(rates: Array, digits: int, known: Array) -> list[float]:
    """Rates that were not tried yet, to so many digits at least."""
    made = dict.fromkeys(rounded(rates, digits).tolist())
    return [rate for rate in made if rate > 0 and rate not in known]


def closer(found: Search) -> Search:
    """Between the neighbours of the best, while they are clearly worse and seeds do not differ."""
    if not isinstance(found.asked.rates, Range):
        return found
    for other in found.ranked[: found.effort.others]:
        for zoom in range(found.effort.zooms):
            choice, curve = found.choice(other), found.curve(other)
            if choice.place is None or not choice.sharp:
                break
            low = curve.rates[max(choice.place - 1, 0)]
            high = curve.rates[min(choice.place + 1, len(curve.rates) - 1)]
            rates = np.geomspace(low, high, found.effort.fine // 2 + 2)[1:-1]
            rows = [(other, rate) for rate in _new(rates, 4 + zoom, curve.rates)]
            found = found.tried(rows, found.all_seeds)
    return found


def wide_again(found: Search) -> Search:
    """The rates of the first look with the best other settings, if those were found later: where
    stability ends, and what lies beyond, is not known from other settings."""
    best = found.ranked[0]
    if not isinstance(found.asked.rates, Range) or not spans(found.asked):
        return found
    wide = dict.fromkeys(
        rate for stage in found.stages[: 1 + len(found.extended)] for _, rate in stage.rows
    )
    known = found.curve(best).rates
    rows: list[Row] = [(best, rate) for rate in wide if rate not in known]
    return found.tried(rows, found.stages[0].seeds)


def at_the_edge(found: Search) -> Search:
    """Where stability ends, with all seeds: the last stable rate, and between that and the first
    at which a run diverged."""
    best = found.ranked[0]
    if found.choice(best).place is None or not isinstance(found.asked.rates, Range):
        return found
    if not found.effort.edge:
        return found
    for _ in range(TURNS):
        curve, last = found.curve(best), _last_stable(found, best)
        if not found.more_seeds or curve.seeds[last] >= found.whole:
            break
        found = found.tried([(best, float(curve.rates[last]))], found.more_seeds)
    curve, last = found.curve(best), _last_stable(found, best)
    if last == len(curve.rates) - 1:
        return found
    between = np.geomspace(curve.rates[last], curve.rates[last + 1], found.effort.edge + 2)[1:-1]
    rates = _new(between, 3, curve.rates)
    return found.tried([(best, rate) for rate in rates], found.all_seeds)


def _last_stable(found: Search, other: int) -> int:
    """The place of the highest rate between which and the best no run diverged."""
    curve, place = found.curve(other), found.choice(other).place
    assert place is not None
    return around(curve.stable, place)[1]
