"""Optimizers compared fairly: declared spaces, equal budgets, fresh seeds, failures counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import optim

from downslope.comparing import frames as frames
from downslope.comparing import notes as notes_on
from downslope.comparing import shares as shares_of
from downslope.comparing import words
from downslope.comparing.asking import (
    check_one,
    check_words,
    label_of,
    rate_is_set,
    seeds_of,
    whole,
)  # fmt: skip
from downslope.comparing.bands import bands_frame
from downslope.comparing.cases import Case, cases_of
from downslope.comparing.frames import Outcome
from downslope.comparing.runs import Asked, Seen, report, tune
from downslope.comparing.targets import targets_of
from downslope.errors import InputError, nearest
from downslope.plan import ENGINES
from downslope.schedules import Schedule
from downslope.search_spaces import Space, spaces_of
from downslope.views import comparison_tables

if TYPE_CHECKING:
    from downslope.views.comparison_figures import ComparisonPlots

SHARES = (0.5, 0.9, 0.99, 0.999)
"""Targets as shares of the baseline's way, besides the main one: how much depends on the choice."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found, from the runs up to sentences. Scores are final losses; lower is better.

    An infinite median or bound stands for runs that diverged; null stands for what there is not.

    Attributes:
        spaces: what was searched, in the order in which it was given.
        results: a row a run on a fresh seed, of the chosen ("tuned") and the "default" setting.
        table: a row a problem and optimizer, of the chosen setting. ``place`` is 1 and as many as
            are surely lower on that problem. ``low`` and ``high`` bound the ``median`` with
            ``coverage`` (by order statistics, exact); ``lower_quartile`` and ``upper_quartile``
            are the spread of the runs; losses within ``resolution``, or
            within ``relative_resolution`` of the larger one, are the same.
            ``chosen`` tells the searched
            hyperparameters where there are more than the rate.
            Of ``n`` fresh seeds ``diverged`` failed, the earliest at ``first_bad_step``, and
            ``reached`` the target, after ``steps_to_target`` updates (their median) and so many
            ``gradient_evaluations`` of single samples. The ``default_…`` columns are the default
            setting's.
        targets: a row a problem, share and optimizer: how the result depends on the target.
        profiles: Dolan and Moré's: a row a share, optimizer and ``tau``.
        wins: a row an ordered pair of optimizers, on each problem and (null) over all.
        expected_best: a row a problem, optimizer and number of trials.
        sensitivity: a row a trial: the whole curve over rates, failures included.
        failures: a row a problem, optimizer and kind of run that had any.
        bands: a row a problem, optimizer and record: the chosen setting's losses over the fresh
            seeds, as median and quartiles, and how many had diverged by then.
        conditions: sentences on what was declared beforehand.
        notes: sentences that a reader must know before believing the table.
        target: the share of the baseline's way that ``table`` and ``results`` count steps to.
    """

    spaces: tuple[Space, ...]
    results: pl.DataFrame = field(repr=False)
    table: pl.DataFrame = field(repr=False)
    targets: pl.DataFrame = field(repr=False)
    profiles: pl.DataFrame = field(repr=False)
    wins: pl.DataFrame = field(repr=False)
    expected_best: pl.DataFrame = field(repr=False)
    sensitivity: pl.DataFrame = field(repr=False)
    failures: pl.DataFrame = field(repr=False)
    bands: pl.DataFrame = field(repr=False)
    conditions: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...]
    sentences: tuple[str, ...] = field(repr=False)
    target: float = field(repr=False)

    @property
    def plot(self) -> ComparisonPlots:
        """Pictures: ``.plot.profiles()``, ``.results()``, ``.wins()``, ``.expected_best()``,
        ``.sensitivity()`` and ``.targets()``."""
        from downslope.views.comparison_figures import ComparisonPlots

        return ComparisonPlots(self)

    def summary(self) -> str:
        """What the intervals allow to say, a sentence a line; the notes after it."""
        return "\n".join([*self.sentences, *(f"note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        """The table, rate curves, summary and conditions, as on a terminal of 80 columns."""
        return comparison_tables.as_text(
            self.table,
            self.sensitivity,
            self.expected_best,
            self.sentences,
            self.notes,
            self.conditions,
        )


def compare(
    problems: Any,
    optimizers: Any = (optim.SGD, optim.Adam),
    *,
    epochs: int | None = None,
    steps: int | None = None,
    budget: int = 32,
    seeds: int | Sequence[int] = 10,
    tuning_seeds: int | Sequence[int] = 3,
    search_seed: int = 0,
    baseline: Any = None,
    target: float = 0.99,
    batch_size: Any = None,
    order: str | None = None,
    validation: Any = None,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    divergence: float | None = 1e8,
    engine: str = "auto",
    progress: bool = True,
    **unknown: Any,
) -> Comparison:
    """Compare optimizers over problems.

    For each problem and optimizer, `budget` settings drawn from its space are run from the tuning
    seeds; the one of the lowest median final loss is chosen, and run again from fresh seeds, which
    alone are reported, with the optimizer's default setting beside it. Each optimizer gets the
    same number of trials, of updates and of gradient evaluations, the same start and the same
    batches for a seed. A setting that diverged on a tuning seed ranks behind all that did not. A
    run that diverged counts as never reaching a target, and as the worst in every median; it is
    never left out. The final loss is the training loss over all rows, or the validation loss of a
    problem that has one.

    Args:
        problems: a Problem, a name of `downslope.problems`, a list of these, or a dict of name to
            problem. A function taken by its name starts where each seed draws it.
        optimizers: classes of `torch.optim` or subclasses of your own, their names ("momentum"
            and "nesterov" are SGD with a momentum of 0.9), or a `Space` for each that says what is
            searched. The learning rate alone is where it is not said otherwise.
        epochs, steps: the length of every run; by default each named problem's own.
        budget: trials for each optimizer and problem. The default setting is not among them.
        seeds: how many fresh seeds to report, or which ones.
        tuning_seeds: how many seeds to choose on (from 0), or which ones.
        search_seed: fixes the draws of the quasi-random search.
        baseline: the label, class or name of the optimizer whose chosen setting's medians on the
            tuning seeds fix the targets; by default the first.
        target: the share of the baseline's way from start to end that is the target; `targets`
            tells others too.
        batch_size, order: for problems with data; by default the problem's own.
        validation: a share of the rows to keep apart and compare on, or a pair of tensors.
        schedule, clip_norm, divergence, engine: as in `descend`, for all. A schedule that sets
            rates itself (OneCycleLR's max_lr) leaves no rate to search.
        progress: show progress, where the output is a terminal.

    Returns:
        A `Comparison`. Wall-clock time is no part of it: runs share the machine.

    Raises:
        InputError: one sentence on what is wrong.

    >>> found = compare("booth", ["sgd", "adam"], steps=50, budget=4, seeds=6, progress=False)
    >>> found.table.select("problem", "optimizer", "n", "diverged").rows()
    [('booth', 'SGD', 6, 0), ('booth', 'Adam', 6, 0)]
    """
    check_words(unknown, [*signature(compare).parameters][:-1])
    cases = cases_of(problems, epochs=epochs, steps=steps, batch_size=batch_size, order=order,
                     validation=validation)  # fmt: skip
    spaces = spaces_of(optimizers)
    labels = tuple(space.label for space in spaces)
    first = labels[0] if baseline is None else label_of(baseline, spaces)
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1:
        raise InputError(
            f"target must be a share of the baseline's way, above 0 and at most 1, got {target!r}"
        )
    if engine not in ENGINES:
        hint = nearest(str(engine), ENGINES)
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}{hint}")
    check_one("clip_norm", clip_norm)
    check_one("divergence", divergence)
    chosen_on = seeds_of("tuning_seeds", tuning_seeds, 0)
    fresh = seeds_of("seeds", seeds, max(chosen_on) + 1)
    if shared := sorted({*chosen_on} & {*fresh}):
        raise InputError(
            f"seeds and tuning_seeds share {shared[0]}: what is chosen on a seed cannot be "
            "reported on it"
        )
    asked = Asked(
        spaces=spaces,
        budget=whole("budget", budget, 1),
        tuning_seeds=chosen_on,
        seeds=fresh,
        search_seed=whole("search_seed", search_seed, 0),
        engine=engine,
        progress=progress,
        options={"schedule": schedule, "clip_norm": clip_norm, "divergence": divergence},
    )
    shares = sorted({*SHARES, float(target)})
    length = max(case.updates for case in cases)
    scheduled = frozenset(s.label for s in spaces if rate_is_set(schedule, s, asked.budget, length))
    outcomes = []
    for case in cases:
        tuned = tune(case, asked)
        case, tuned = _without_copies(case, tuned)
        targets = targets_of(case, labels, tuned, first, shares)
        reported = report(case, asked, tuned)
        case, reported = _without_copies(case, reported)
        outcomes.append(Outcome(case, labels, tuned, reported, targets, float(target), scheduled))
    return _comparison(outcomes, asked, first)


def _without_copies(case: Case, seen: list[Seen]) -> tuple[Case, list[Seen]]:
    """Where the seed turns out to change no run at all, one run a setting: copies are no sample."""
    if case.varies and all(one.all_alike for one in seen):
        return replace(case, varies=False), [one.first_seed() for one in seen]
    return case, seen


def _comparison(outcomes: Sequence[Outcome], asked: Asked, baseline: str) -> Comparison:
    table, wins = frames.table_frame(outcomes), shares_of.wins_frame(outcomes)
    profiles = shares_of.profiles_frame(outcomes)
    sentences = [
        *words.pair_sentences(table, wins, baseline),
        *words.target_sentences(outcomes, profiles),
        *words.default_sentences(table),
        *words.failure_sentences(outcomes),
    ]
    return Comparison(
        spaces=asked.spaces,
        results=frames.results_frame(outcomes),
        table=table,
        targets=frames.targets_frame(outcomes),
        profiles=profiles,
        wins=wins,
        expected_best=shares_of.expected_best_frame(outcomes),
        sensitivity=frames.sensitivity_frame(outcomes),
        failures=frames.failures_frame(outcomes),
        bands=bands_frame(outcomes),
        conditions=tuple(notes_on.conditions(outcomes, asked, baseline)),
        notes=tuple(notes_on.notes(outcomes, asked, baseline)),
        sentences=tuple(sentences),
        target=outcomes[0].main,
    )
