"""The steps of the search of `tune`: a wide look, then a close one (`closely`).

Each step takes a `Search` and gives the next one, by one call of `descend`. Rates are searched
coarse to fine; other ranges by halving the step twice around the best; lists are tried whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from downslope.errors import EngineError
from downslope.optimizers import why_looped
from downslope.ranges import Range
from downslope.searching.closely import (
    at_the_edge,
    closer,
    confirmed,
    second_look,
    spans,
    wide_again,
)
from downslope.searching.curve import alike
from downslope.searching.search import EFFORTS, Asked, Effort, Row, Search, Stage, carried_out

LOWEST, HIGHEST = 1e-18, 1e10
"""How far the search goes on by itself where the best lies at its edge."""


def search(asked: Asked) -> Search:
    """All of it: a wide look, the other ranges, a close look, and the edge of stability."""
    found = wider(first_look(asked))
    for halving in range(1, 3):
        found = closer_others(found, halving)
    return at_the_edge(wide_again(closer(second_look(confirmed(found)))))


def first_look(asked: Asked) -> Search:
    """A wide grid of rates with all other settings, by the fastest engine that serves."""
    others = tuple(
        dict(zip(asked.axes, values, strict=True))
        for values in product(*(_values(axis, len(spans(asked))) for axis in asked.axes.values()))
    )
    engine, reason, runs = asked.engine, "asked for", None
    kind = "fused" if engine == "auto" else engine
    if engine == "auto":
        try:  # compiled even if these runs alone would not need it: more will follow
            rows, seeds = _first_rows(asked, others, EFFORTS["fused"])
            runs = carried_out(asked, others, rows, seeds, "fused")
            engine = "fused"
        except EngineError as error:
            reason = str(error).removeprefix("engine 'fused' cannot serve: ")
            kind = "looped"
    if runs is None:
        rows, seeds = _first_rows(asked, others, EFFORTS.get(kind, EFFORTS["looped"]))
        runs = carried_out(asked, others, rows, seeds, engine)
        kind = "looped" if "looped" in runs.settings["engine"] else kind
        if asked.engine == "auto" and "looped" not in runs.settings["engine"]:
            kind = "stacked"
        if asked.engine == "auto" and kind == "looped" and runs.plan is not None:
            reason = why_looped(asked.optimizer) or runs.plan.reasons[0]
    assert runs.plan is not None
    settled = {"dtype": None, "device": None, "validation": None}  # the plan's problem has them
    asked = replace(asked, problem=runs.plan.problem, options={**asked.options, **settled})
    return Search(asked, others, (Stage(rows, seeds, runs),), EFFORTS[kind], engine, reason)


def _first_rows(
    asked: Asked, others: Sequence[Any], effort: Effort
) -> tuple[tuple[Row, ...], tuple[int, ...]]:
    rates: Sequence[float | None]
    seeds = tuple(range(effort.first)) if asked.seeds is None else asked.seeds[: effort.first]
    if isinstance(asked.rates, Range):
        span = asked.rates.place(np.array([asked.rates.low, asked.rates.high]))
        decades = span[1] - span[0] if asked.rates.log else 2.0
        count = max(round(decades * effort.per_decade), 4) + 1
        rates = asked.rates.spread(count).tolist()
    else:
        rates = (None,) if asked.rates is None else asked.rates
    return tuple((which, rate) for which in range(len(others)) for rate in rates), seeds


def _values(axis: Range | Sequence[Any], ranges: int) -> Sequence[Any]:
    """A list's values; of a range so many that all ranges together stay few."""
    if isinstance(axis, Range):
        ends = axis.place(np.array([axis.low, axis.high], np.float64))
        return axis.values(np.linspace(ends[0], ends[1], _count(ranges)))
    return axis


def _count(ranges: int) -> int:
    """Values of a range in the first look."""
    return {1: 9, 2: 5}.get(ranges, 3)


def wider(found: Search) -> Search:
    """On beyond an end of the range at which the best lies, or below it where nothing is stable."""
    if not found.asked.free or not isinstance(found.asked.rates, Range):
        return found
    low, high = found.asked.rates.low, found.asked.rates.high
    while (end := beyond(found)) is not None:
        reached = low * 1e-4 if end == "lower" else high * 1e4
        if not LOWEST * 0.99 <= reached <= HIGHEST * 1.01:
            break
        span = Range(reached, low) if end == "lower" else Range(high, reached)
        rates = span.spread(4 * found.effort.per_decade + 1)
        new = rates[:-1] if end == "lower" else rates[1:]
        low, high = min(low, reached), max(high, reached)
        rows = [(w, float(rate)) for w in range(len(found.others)) for rate in new]
        found = replace(found, extended=(*found.extended, end))
        found = found.tried(rows, found.stages[0].seeds)
    return found


def beyond(found: Search) -> str | None:
    """The end of the rates tried at which the best lies: "lower", "upper" or None."""
    best = found.ranked[0]
    curve, choice = found.curve(best), found.choice(best)
    if choice.place is None:
        return "lower"
    if alike(curve, found.resolution):  # no rate matters, or none is large enough
        gained = np.nanmedian(curve.ends[0] - curve.ends[-1])
        seen = gained > 8 * found.resolution * np.nanmedian(np.abs(curve.start))
        return "upper" if seen and (curve.medians[-1] <= curve.medians).all() else None
    if choice.high == len(curve.rates) - 1:
        return "upper"
    moved = np.nanmedian(np.abs(curve.start - curve.ends[0]))
    seen = moved > 8 * found.resolution * np.nanmedian(np.abs(curve.start))
    return "lower" if choice.low == 0 and seen else None


def closer_others(found: Search, halving: int) -> Search:
    """The other ranges again, around the best so far, with half the step."""
    ranges = spans(found.asked)
    best = found.ranked[0]
    choice, curve = found.choice(best), found.curve(best)
    if not ranges or choice.place is None:
        return found
    here = found.others[best]
    options: list[list[Any]] = []
    for name, axis in found.asked.axes.items():
        if not isinstance(axis, Range):
            options.append([here[name]])
            continue
        ends = axis.place(np.array([axis.low, axis.high]))
        step = (ends[1] - ends[0]) / (_count(len(ranges)) - 1) / 2**halving
        place = axis.place(np.array([here[name]]))[0]
        options.append(axis.values(place + step * np.arange(-1, 2)))
    new = [dict(zip(found.asked.axes, values, strict=True)) for values in product(*options)]
    new = [settings for settings in new if settings not in found.others]
    near = np.abs(np.log10(curve.rates / curve.rates[choice.place])) <= 0.8
    if isinstance(found.asked.rates, tuple):
        near[:] = True
    rates = [None] if found.asked.rates is None else curve.rates[near].tolist()
    first = len(found.others)
    rows = [(first + at, rate) for at in range(len(new)) for rate in rates]
    found = replace(found, others=(*found.others, *new))
    return found.tried(rows, found.stages[0].seeds)
