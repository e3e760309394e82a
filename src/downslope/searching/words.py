"""What a search says: notes and summary, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from downslope.optimizers import hyperparameters, is_number
from downslope.ranges import Range
from downslope.searching.curve import TIE, Choice, Curve, alike, levels, over_seeds
from downslope.searching.search import WIDE, Asked, Search

if TYPE_CHECKING:
    from downslope.tuning import Tuning

Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Found:
    """A search, and what was taken of it: the attributes of `Tuning`, and where they lie."""

    search: Search
    other: int
    curve: Curve
    choice: Choice
    place: int | None
    lr: float | None
    stable: Span | None
    unstable: float | None
    flatness: Span | None
    jumps: bool


def short(value: Any) -> str:
    """A value in the shortest form that people read at once."""
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def shown(settings: Mapping[str, Any]) -> str:
    """Settings as they are written in a call."""
    return ", ".join(f"{name}={short(value)}" for name, value in settings.items())


def default_rate(asked: Asked) -> float | None:
    """The rate that the optimizer's class takes by itself, if that is a number above 0."""
    default: Any = hyperparameters(asked.optimizer).defaults.get("lr")
    return float(default) if is_number(default) and default > 0 else None


def rate_matters(search: Search, other: int) -> bool:
    """Whether some rate ends otherwise than the rest, by more than nothing."""
    return not alike(search.curve(other), search.resolution)


def notes_of(found: Found) -> tuple[str, ...]:
    """All that must be known of a search."""
    return tuple((*_on_the_rate(found), *_on_the_losses(found), *_on_the_rest(found)))


def _on_the_rate(found: Found) -> Iterator[str]:
    search, curve = found.search, found.curve
    rates = f"{short(float(curve.rates[0]))} to {short(float(curve.rates[-1]))}"
    given = search.asked.rates
    if found.place is None:
        what = f"each of the {len(curve.rates)} rates tried, from {rates}," if given else "each try"
        yield (
            f"No stable rate: at {what} a run diverged. Look at the loss, its gradient and the "
            "data near the start: are they finite, and how large?"
        )
        return
    if found.lr is None:
        return
    if not rate_matters(search, found.other):
        moved = search.asked.options.get("schedule") is not None
        yield (
            f"The rate does not matter: from {rates} all runs end alike within 1 %"
            + (" (does the schedule set it?)" if moved else "")
            + "; the one taken is the nearest to the optimizer's default."
        )
        return
    for end in dict.fromkeys(search.extended):
        edge = WIDE.low if end == "lower" else WIDE.high
        reached = curve.rates[0 if end == "lower" else -1]
        yield (
            f"The best lay at the {end} edge of the rates first tried ({short(edge)}), so the "
            f"search went on to {short(float(reached))}."
        )
    if found.choice.cut:
        yield (
            "Rates outside those first tried do as well: the one taken is among those from "
            f"{short(WIDE.low)} to {short(WIDE.high)}."
        )
    yield from _edges_of_rates(found)
    yield from _rejected(found)
    if found.unstable is not None and found.unstable / found.lr < 2:
        yield (
            f"Runs diverge not far above, at {short(found.unstable)}: with other data, or a longer "
            "training, take a lower rate."
        )
    if found.jumps:
        where = "At the neighbouring rates" if found.flatness is None else "Beyond the flat rates"
        yield (
            f"{where} the median jumps by more than 10 %, though seed by seed runs end alike: "
            "seeds differ too much to say how flat the optimum is."
        )
    default = default_rate(search.asked)
    same = np.isclose(curve.rates, default or np.nan, 1e-9, 0)
    at = int(np.argmax(same))
    if same.any() and at != found.place and not curve.diverged[at].any():
        both = np.isfinite(curve.ends[[at, found.place]]).all(0)
        ends = search.sign * np.median(curve.ends[[at, found.place]][:, both], axis=1)
        yield (
            f"The optimizer's own default, {short(default)}, ends at {short(float(ends[0]))}, the "
            f"chosen rate at {short(float(ends[1]))} with the same seeds."
        )


def _rejected(found: Found) -> Iterator[str]:
    """The rate with the lowest median of all, where it was not taken for a part of its runs."""
    search, curve, place = found.search, found.curve, found.place
    assert place is not None
    with np.errstate(invalid="ignore"):
        grown = (curve.ends > curve.start).sum(1)
    diverged = curve.diverged.sum(1)
    level = over_seeds(levels(curve.ends, curve.start, search.resolution), np.nanmedian)
    bad = diverged + grown
    lower = (bad > 0) & (2 * bad <= curve.seeds) & (level < level[place] - TIE)
    if not lower.any():
        return
    at = int(np.argmin(np.where(lower, level, np.inf)))
    what = [f"{diverged[at]} diverged"] * bool(diverged[at])
    what += [f"{grown[at]} ended {'below' if search.sign < 0 else 'above'} the start"] * bool(
        grown[at]
    )
    yield (
        f"At {short(float(curve.rates[at]))} the median is "
        f"{short(search.sign * float(curve.medians[at]))}, "
        f"{'higher' if search.sign < 0 else 'lower'}, but of {curve.seeds[at]} runs "
        f"{' and '.join(what)}: it was not taken."
    )


def _edges_of_rates(found: Found) -> Iterator[str]:
    given = "that were tried" if found.search.asked.free else "given"
    if found.search.asked.free and found.search.asked.axes:
        given = "that were tried with these settings"
    for at, word, other in ((0, "lowest", "lower"), (-1, "highest", "higher")):
        edge = float(found.curve.rates[at])
        if found.lr == edge:
            yield (
                f"The chosen rate is the {word} of the rates {given}, {short(edge)}: a {other} one "
                "may do better."
            )
        elif found.flatness is not None and found.flatness[at] == edge:
            yield (
                f"The {word} of the rates {given}, {short(edge)}, does about as well: a {other} "
                "one may do better."
            )


def _on_the_losses(found: Found) -> Iterator[str]:
    search, curve, place = found.search, found.curve, found.place
    if place is None:
        return
    ends = curve.ends[place][np.isfinite(curve.ends[place])]
    if np.nanmin(curve.ends) < 0:
        turned = "maximised" if search.sign < 0 else "below zero"
        yield (
            f"Losses are {turned}: rates are compared by their share of the way from the start to "
            "the best, not by ratios."
        )
    if found.lr is not None and float(np.median(ends)) >= float(np.median(curve.start)):
        yield "No rate does better than the start itself: is the start an optimum already?"
    if search.asked.problem.random:
        yield (
            "The loss draws random numbers of its own (dropout or the like), from a generator "
            "that each seed fixes."
        )
    low, high = float(ends.min()), float(ends.max())
    level = levels(curve.ends, curve.start, search.resolution)[place]
    if len(ends) > 1 and np.nanmax(level) - np.nanmin(level) > np.log(1.5):
        low, high = sorted((search.sign * low, search.sign * high))
        smooth = isinstance(search.asked.rates, Range)
        yield (
            f"Noisy: with the chosen settings the {len(ends)} runs end between {short(low)} and "
            f"{short(high)}"
            + ("; medians were smoothed over neighbouring rates." if smooth else ".")
        )
    if not search.drawn:
        if len(search.asked.seeds or ()) > 1:
            yield "All seeds give the same runs (no order or start is drawn): one would do."
    elif len(search.all_seeds) < 3:
        yield "Fewer than three seeds: their luck is part of the choice."


def _on_the_rest(found: Found) -> Iterator[str]:
    search = found.search
    kinds = search.stages[0].runs.settings["engine"]
    if not kinds.str.starts_with("fused").any():
        how = "one at a time" if "looped" in kinds else "side by side in torch, not compiled"
        runs = sum(len(stage.runs) for stage in search.stages)
        yield (
            f"Runs were carried out {how} ({search.reason}), which costs more: only {runs} were "
            "tried."
        )
    if found.place is None:
        return
    if search.effort.per_decade == 1 and isinstance(search.asked.rates, Range):
        rates = found.curve.rates
        near = [short(float(rates[p])) for p in (found.place - 1, found.place + 1)
                if 0 <= p < len(rates)]  # fmt: skip
        yield f"The rate is coarse: the nearest that were tried are {' and '.join(near)}."
    if search.asked.rates is None and "lr" not in search.asked.fixed:
        yield f"{search.asked.optimizer.__name__} has no lr: only the other settings were searched."
    for name, axis in search.asked.axes.items():
        value = search.others[found.other][name]
        if isinstance(axis, Range) and value in (axis.low, axis.high):
            yield (
                f"The best {name}, {short(value)}, lies at the edge of its range: beyond it may be "
                "better."
            )
    yield from _close_seconds(found)


def _close_seconds(found: Found) -> Iterator[str]:
    """Other settings that these seeds do not tell apart from the chosen ones."""
    search = found.search
    lists = [name for name, axis in search.asked.axes.items() if not isinstance(axis, Range)]
    best, *rest = search.ranked
    enough = search.curve(best).seeds.max() / 2
    for second in rest:
        differs = any(search.others[second][n] != search.others[best][n] for n in lists)
        if not differs or search.curve(second).seeds.max() < enough:
            continue
        both = np.array([[search.score(best)], [search.score(second)]])
        level = levels(both, found.curve.start, search.resolution)[:, 0]
        if level[1] - level[0] <= TIE:
            yield (
                f"{shown(search.others[second])} does as well within 1 % (at its own best rate): "
                "these runs do not tell it from what was chosen."
            )
        return


def summary_of(tuning: Tuning) -> str:
    """The result in words, a line each."""
    name = tuning.optimizer.__name__
    lines = []
    measure = "loss" if tuning.runs.validation_loss is None else "validation loss"
    if tuning.score is None:
        lines.append(f"{name}: no stable rate was found in {len(tuning.runs)} runs.")
    else:
        seeds = "one seed" if tuning.seeds == 1 else f"median of {tuning.seeds} runs"
        taken = {searched: tuning.settings[searched] for searched in tuning.searched}
        lines.append(
            f"{name}: take {shown(taken)}; its final {measure} is {short(tuning.score)} "
            f"({seeds}, {len(tuning.runs)} runs in all)."
        )
    if tuning.stable is not None:
        ends = "nothing tried above it diverged"
        if tuning.first_unstable is not None:
            ends = f"at {short(tuning.first_unstable)} a run diverged"
        tried = tuning.curve.row(by_predicate=pl.col("lr") == tuning.stable[1], named=True)["seeds"]
        runs = "one run" if tried == 1 else f"{tried} runs"
        lines.append(
            f"Stable: no run diverged from {short(tuning.stable[0])} to {short(tuning.stable[1])} "
            f"({runs} there); {ends}."
        )
    if tuning.flatness is not None and tuning.flatness_factor is not None:
        lines.append(
            f"Flat: rates from {short(tuning.flatness[0])} to {short(tuning.flatness[1])} "
            f"(a factor {tuning.flatness_factor:.3g}) end within 10 % of it."
        )
    return "\n".join([*lines, *tuning.notes])
