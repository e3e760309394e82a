"""The rate finder: the whole horizon, many rates, several seeds, and a choice that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from torch import optim

from downslope.errors import DownslopeError, InputError, OptimizerError, listed, nearest
from downslope.grid import RUN_SETTINGS, Grid, is_many, settled
from downslope.optimizers import check_names, check_optimizer, hyperparameters, is_number
from downslope.problem import Problem
from downslope.ranges import Range
from downslope.runs import Run, Runs
from downslope.tuning_curve import flat_span, over_seeds, stable_span
from downslope.tuning_search import LAST_RECORD, WIDE, Asked, Search, merged
from downslope.tuning_steps import search
from downslope.tuning_words import Found, default_rate, notes_of, rate_matters, short, summary_of

OPTIONS = ("epochs", "steps", "start", "every", "keep", "schedule", "validation", "tolerance",
           "patience", "divergence", "gradient", "dtype", "device")  # fmt: skip
"""What `descend` takes besides settings that can be searched."""

MOST_RANGES = 4


@dataclass(frozen=True, eq=False, repr=False)
class Tuning:
    """What a search found.

    Attributes:
        lr: the chosen rate; None if no stable one was found, or the optimizer has none.
        settings: all chosen and given settings, as `descend` takes them.
        stable: the lowest and highest rate tried between which, the chosen one among them, no run
            of any seed diverged (as `descend` says so: within this horizon). None without a rate.
        first_unstable: the lowest rate tried above `stable`, at which a run diverged; None if
            there is none.
        flatness: the lowest and highest rate tried around the chosen one between which losses are
            within 10 % of those at the chosen one: the median over the same seeds, smoothed like
            those (where losses go below zero, 10 % of the way from the start to the best).
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
        **settings: everything else that `descend` takes, but ``study``. A list of a
            hyperparameter, ``batch_size``, ``order`` or ``clip_norm`` is tried whole, with all
            rates; a `Range` of a hyperparameter or ``clip_norm`` is searched coarse to fine.
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
    asked = _asked(problem, optimizer, lr, seed, engine, progress, settings)
    return _told(search(asked))


def _asked(
    problem: Problem,
    optimizer: Any,
    lr: Any,
    seed: Any,
    engine: str,
    progress: bool,
    settings: Mapping[str, Any],
) -> Asked:
    if isinstance(optimizer, list | tuple):
        raise InputError("tune takes one optimizer at a time, got a list; compare() takes several")
    if isinstance(optimizer, Grid):
        if optimizer.rows is not None:
            raise InputError("tune takes a Grid of values, not one of rows (Grid.of)")
        own = dict(optimizer.settings)
        lr, seed = own.pop("lr", lr), own.pop("seed", seed)
        settings, optimizer = {**settings, **own}, optimizer.optimizer
    kind = check_optimizer(optimizer)
    if "study" in settings:
        raise InputError("tune writes no study; save its runs with tuning.runs.save(folder)")
    options = {name: value for name, value in settings.items() if name in OPTIONS}
    if options.get("tolerance") is None and options.get("patience") is None:
        options.setdefault("every", LAST_RECORD)
    given = settled({name: v for name, v in settings.items() if name not in OPTIONS})
    try:
        check_names(kind, [name for name in given if name not in RUN_SETTINGS])
    except OptimizerError as error:
        unknown = [name for name in given if repr(name) in str(error)]
        hint = nearest(unknown[0], [*OPTIONS, *RUN_SETTINGS]) if unknown else ""
        raise OptimizerError(f"{error}{'' if 'did you mean' in str(error) else hint}") from error
    axes = {name: value for name, value in given.items() if _searched(name, value)}
    spans = [name for name, axis in axes.items() if isinstance(axis, Range)]
    if len(spans) > MOST_RANGES:
        raise InputError(
            f"at most {MOST_RANGES} ranges besides the rate can be searched, got {listed(spans)}: "
            "give single values for some"
        )
    fixed = {name: value for name, value in given.items() if name not in axes}
    rates, free = _rates(kind, lr)
    if isinstance(rates, float):
        fixed["lr"], rates = rates, None
    if rates is None and not axes:
        known = hyperparameters(kind)
        raise InputError(
            f"there is nothing to search: {kind.__name__} has "
            + ("one rate given" if "lr" in fixed else "no hyperparameter 'lr'")
            + f", and no other of its {listed(n for n in known.shown if n != 'lr')} is a Range "
            "or a list"
        )
    return Asked(
        problem=problem,
        optimizer=kind,
        rates=rates,
        free=free,
        axes=axes,
        fixed=fixed,
        options=options,
        seeds=_seeds(seed),
        engine=engine,
        progress=progress,
    )


def _rates(
    optimizer: type[optim.Optimizer], lr: Any
) -> tuple[Range | tuple[float, ...] | float | None, bool]:
    """What of the rates is searched, and whether the search may leave it."""
    known = hyperparameters(optimizer)
    if isinstance(lr, str) and lr == "auto":
        return (WIDE, True) if "lr" in known.defaults or known.open else (None, False)
    if isinstance(lr, Mapping):
        raise InputError(
            "tune searches one rate for all parameters, got lr by parameter-name pattern: tune "
            "without patterns, or compare such rates with descend"
        )
    check_names(optimizer, ["lr"])
    if isinstance(lr, Range):
        if lr.low <= 0:
            raise InputError(f"a Range of lr starts above 0, got {lr.low}")
        return lr, False
    values = settled({"lr": lr})["lr"]
    many = list(values) if is_many(values) else [values]
    for value in many:
        if not is_number(value) or not 0 < float(value) < float("inf"):
            raise InputError(
                "lr must be 'auto', a Range, or numbers above 0 (a list of them), "
                f"got {value!r}{nearest(value, ['auto']) if isinstance(value, str) else ''}"
            )
    rates = tuple(sorted({float(value) for value in many}))
    return (rates, False) if is_many(values) else (rates[0], False)


def _searched(name: str, value: Any) -> bool:
    if isinstance(value, Range):
        if name in ("batch_size", "order"):
            raise InputError(f"{name} takes a list of values to search, not a Range")
        return True
    if isinstance(value, Mapping) and any(isinstance(v, Range) or is_many(v)
                                          for v in value.values()):  # fmt: skip
        raise InputError(
            f"{name} by parameter-name pattern can be given, but not searched: give one value for "
            "each pattern"
        )
    return is_many(value)


def _seeds(seed: Any) -> tuple[int, ...] | None:
    if seed is None:
        return None
    values = settled({"seed": seed})["seed"]
    return tuple(dict.fromkeys(values)) if is_many(values) else (values,)


def _told(found: Search) -> Tuning:
    """What a search comes to."""
    asked = found.asked
    other = found.ranked[0]
    curve, choice = found.curve(other), found.choice(other)
    runs = merged(found.stages)
    place = choice.place
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
        if high < len(curve.rates) - 1:
            unstable = float(curve.rates[high + 1])
        low, high = flat_span(curve, place, choice.noisy, found.resolution)
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
    told = Found(found, other, curve, choice, place, lr, stable, unstable, flatness)
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
