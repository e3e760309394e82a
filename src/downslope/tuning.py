"""The rate finder: the whole horizon, many rates, several seeds, and a choice that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from torch import optim

from downslope.errors import DownslopeError
from downslope.problem import Problem
from downslope.run import Run
from downslope.runs import Runs
from downslope.searching.curve import flat_span, over_seeds, stable_span
from downslope.searching.request import asked_of
from downslope.searching.search import Search, merged
from downslope.searching.steps import search
from downslope.searching.words import Found, default_rate, notes_of, rate_matters, short, summary_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Tuning:
    """What a search found.

    Attributes:
        lr: the chosen rate; None if no stable one was found, or the optimizer has none.
        settings: all chosen and given settings, as `descend` takes them.
        stable: the lowest and highest rate tried between which, the chosen one among them, no run
            of any seed diverged (as `descend` says so: within this horizon); the highest was
            tried with as many seeds as the chosen one. None without a rate.
        first_unstable: the lowest rate tried above `stable`, at which a run diverged; None if
            there is none.
        flatness: the lowest and highest rate tried around the chosen one between which losses are
            within 10 % of those at the chosen one: the median over the same seeds, smoothed like
            those, and the median itself (where losses go below zero, 10 % of the way from the
            start to the best). None where seeds differ too much to say; a note says so.
        runs: all runs of the search, as one `Runs`.
        curve: a row a rate, with the chosen other settings: lr, median, low and high (final
            losses over the seeds that did not diverge), diverged, seeds.
        score: the median final loss (validation, if there is one) at the chosen rate.
        notes: what must be known of all this, in sentences.
        searched: the names of what was searched, the rate among them.
        seeds: how many runs there are with the chosen settings: the seeds, for each start.
    """

    optimizer: type[optim.Optimizer]
    lr: float | None
    settings: Mapping[str, Any]
    stable: tuple[float, float] | None
    first_unstable: float | None
    flatness: tuple[float, float] | None
    runs: Runs
    curve: pl.DataFrame
    score: float | None
    notes: tuple[str, ...]
    searched: tuple[str, ...]
    seeds: int

    @property
    def flatness_factor(self) -> float | None:
        """How flat the optimum is: by what factor rates about as good differ at most."""
        return None if self.flatness is None else self.flatness[1] / self.flatness[0]

    @property
    def best(self) -> Run:
        """The best run at the chosen settings.

        Raises:
            DownslopeError: if no stable rate was found.
        """
        if self.score is None:
            raise DownslopeError("no stable rate was found, so that there is no best run")
        wanted: dict[str, Any] = {}
        for name, value in self.settings.items():
            if name == "clip_norm" and value is None:
                value = float("inf")  # as the table has it
            if name in self.runs.table.columns and not isinstance(value, Mapping):
                wanted[name] = [value] if isinstance(value, tuple) else value
        return self.runs.where(**wanted).best

    @property
    def summary(self) -> str:
        """The result in words, a line each."""
        return summary_of(self)

    def plot(self) -> Figure:
        """The final loss against the rates that were tried, with the chosen other settings.

        The range over the seeds as a band, the chosen rate ringed; at the foot the rates between
        which no run diverged, those that are about as good, and the first at which one diverged;
        the rate that full batches can bear where theory knows it.

        Raises:
            InputError: if the optimizer has no learning rate.
        """
        from downslope.views.figures import tuning_figure

        return tuning_figure(self)

    def __repr__(self) -> str:
        words = [self.optimizer.__name__]
        if self.score is None:
            words.append("no stable rate")
        else:
            words += [f"{name}={short(self.settings[name])}" for name in self.searched]
        if self.stable is not None:
            words.append(f"stable {short(self.stable[0])} to {short(self.stable[1])}")
        if self.flatness is not None:
            words.append(f"flat {short(self.flatness[0])} to {short(self.flatness[1])}")
        return f"Tuning({', '.join(words)})"


def tune(
    problem: Problem,
    optimizer: Any = optim.SGD,
    *,
    lr: Any = "auto",
    seed: Any = None,
    engine: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> Tuning:
    """Find the learning rate, and any other hyperparameter given as a range.

    Every trial is a whole training: the steps or epochs, batch size and schedule that the training
    itself will have. First rates far apart are tried, then many close to the best with more
    seeds. A rate at which a seed diverged is not taken, nor one close below it; the medians over
    seeds are smoothed over neighbouring rates, and of a flat optimum the middle is taken.

    Args:
        problem: what to minimise.
        optimizer: a class of `torch.optim` or the user's own subclass, its name, or one `Grid`.
        lr: "auto" searches 1e-6 to 1e2, and goes on beyond where the best lies at an edge; a
            `Range` is not left; a list is tried as it is; a number is kept.
        seed: the seeds, a list or range; by default as many as the engine affords, at least 3.
        engine: as in `descend`. Runs that cannot be compiled cost more, so fewer are tried, and
            the notes say so.
        progress: show progress, where the output is a terminal.
        **settings: everything else that `descend` takes, but ``study`` and ``live`` (there is no
            live view of many descents one after another). A list of a
            hyperparameter, ``batch_size``, ``order`` or ``clip_norm`` is tried whole, with all
            rates; a `Range` of a hyperparameter or ``clip_norm`` is searched coarse to fine, counts
            in whole numbers.
            ``every`` is by default the start and the end alone.

    Returns:
        A `Tuning`. One that found no stable rate has ``lr`` None and says so.

    Raises:
        InputError: one sentence on what is wrong.

    >>> problem = Problem.from_function(lambda x: x**2, start=1.0)
    >>> found = tune(problem, optim.SGD, steps=3, lr=[0.1, 0.4, 2.0])
    >>> found.lr, found.stable
    (0.4, (0.1, 2.0))
    """
    asked = asked_of(problem, optimizer, lr, seed, engine, progress, settings)
    return _told(search(asked))


def _told(found: Search) -> Tuning:
    """What a search comes to."""
    asked = found.asked
    other = found.ranked[0]
    curve, choice = found.curve(other), found.choice(other)
    runs = merged(found.stages)
    place, jumps = choice.place, False
    has_rate = asked.rates is not None
    default = default_rate(asked)
    if place is not None and has_rate and default is not None and not rate_matters(found, other):
        place = int(np.argmin(np.abs(np.log(curve.rates / default))))
    lr = None if place is None or not has_rate else float(curve.rates[place])
    stable = flatness = unstable = score = None
    if place is not None:
        score = found.sign * float(curve.medians[place])
    if lr is not None and place is not None:
        low, high = stable_span(curve, place)
        stable = (float(curve.rates[low]), float(curve.rates[high]))
        above = np.flatnonzero(~curve.stable[place:])
        unstable = float(curve.rates[place + above[0]]) if len(above) else None
        (low, high), jumps = flat_span(curve, place, choice.noisy, found.resolution)
        if low < high or not jumps:
            flatness = (float(curve.rates[low]), float(curve.rates[high]))
    chosen = {**asked.fixed, **({} if place is None else found.others[other])}
    if lr is not None:
        chosen = {"lr": lr, **chosen}
    ends = found.sign * curve.ends
    frame = pl.DataFrame(
        {
            "lr": curve.rates if has_rate else np.full(len(curve.rates), np.nan),
            "median": over_seeds(ends, np.nanmedian),
            "low": over_seeds(ends, np.nanmin),
            "high": over_seeds(ends, np.nanmax),
            "diverged": curve.diverged.sum(1),
            "seeds": curve.seeds,
        }
    )
    told = Found(found, other, curve, choice, place, lr, stable, unstable, flatness, jumps)
    return Tuning(
        optimizer=asked.optimizer,
        lr=lr,
        settings=chosen,
        stable=stable,
        first_unstable=unstable,
        flatness=flatness,
        runs=runs,
        curve=frame,
        score=score,
        notes=notes_of(told),
        searched=(*(["lr"] if has_rate else []), *asked.axes),
        seeds=0 if place is None else int(curve.seeds[place]),
    )
