"""Which of many runs a picture shows one by one, what they are called, and their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from downslope.errors import InputError, listed
from downslope.run import Run
from downslope.runs import Runs
from downslope.views.data.settings import said, settings_of

_NAMED = ("run", "engine", "optimizer", "lr", "seed")
"""Columns that are in every name, or in none."""

MOST_RUNS = 6
"""Runs that are shown one by one."""


def check_some(runs: Runs) -> None:
    """Refuse no runs at all.

    Raises:
        InputError: where there is none.
    """
    if not len(runs):
        raise InputError("there are no runs to draw: none was chosen, or none was carried out")


def spread(runs: Runs, most: int = MOST_RUNS) -> NDArray[np.int64]:
    """Places of up to `most` runs, spread evenly over them, the best one among them.

    Raises:
        InputError: if there are no runs.
    """
    check_some(runs)
    chosen = np.unique(np.linspace(0, len(runs) - 1, most).round().astype(np.int64))
    best = best_of(runs, np.arange(len(runs)))
    if best is not None and best not in chosen:
        chosen[np.abs(chosen - best).argmin()] = best
    return chosen


def places_of(
    runs: Runs, run: int | Run | Sequence[int | Run] | None, most: int = MOST_RUNS
) -> list[int]:
    """The places of the runs that are asked for, by their numbers in the table; without any, of
    the best one.

    Raises:
        InputError: for what is no run, none of these, or more than `most`.
    """
    if run is None:
        best = best_of(runs, np.arange(len(runs)))
        # Of runs that all diverged, the one that went on longest.
        return [int(np.argmax(runs.steps_done)) if best is None else best]
    asked = [run] if isinstance(run, int | np.integer | Run) else run
    if isinstance(asked, str | bytes) or not isinstance(asked, Iterable):
        raise _not_a_run(run, most)
    asked = list(asked)
    if not 0 < len(asked) <= most:
        raise InputError(f"run= takes from 1 to {most} runs, got {len(asked)}")
    for one in asked:
        if not isinstance(one, int | np.integer | Run) or isinstance(one, bool):
            raise _not_a_run(one, most)
    known = runs.settings["run"].to_list()
    places = []
    for one in asked:
        number = one.number if isinstance(one, Run) else one
        if number not in known:
            shown = listed(known) if len(known) <= 12 else f"{min(known)} to {max(known)}"
            raise InputError(f"there is no run {number!r} among these; their numbers are {shown}")
        places.append(known.index(number))
    return places


def _not_a_run(given: object, most: int) -> InputError:
    known = f"a Run, or up to {most} of them" if most > 1 else "or a Run"
    return InputError(f"run must be a number of the table's run column, {known}, got {given!r}")


def best_of(runs: Runs, places: NDArray[np.int64]) -> int | None:
    """The place of the best of some runs; None where none has a finite score."""
    score = runs.score[places]
    finite = np.isfinite(score)
    if not finite.any():
        return None
    return int(places[np.argmin(np.where(finite, score, np.inf))])


def names_of(runs: Runs, places: Sequence[int] | NDArray[np.int64]) -> list[str]:
    """A name for each run at these places, by what tells them from each other; with the seed where
    any setting has several."""
    some = runs[np.asarray(places)]
    several = any(len(setting.rows) > 1 for setting in settings_of(runs))
    label = {int(row): setting.label for setting in settings_of(some) for row in setting.rows}
    seeds = some.settings["seed"].to_list()
    return [label[k] + (f", seed {seed}" if several else "") for k, seed in enumerate(seeds)]


def shared_by(runs: Runs, places: Sequence[int] | NDArray[np.int64]) -> str:
    """A sentence on the settings that tell the runs at these places from others, but not from each
    other, and so are not in their names; empty if there are none."""
    whole, some = runs.settings, runs.settings[np.asarray(places)]
    told = []
    for name in whole.columns:
        values = some[name].unique()
        same = len(values) == 1 and values[0] is not None
        if name not in _NAMED and same and whole[name].drop_nulls().n_unique() > 1:
            value = tuple(values[0]) if isinstance(values[0], pl.Series) else values[0]
            told.append(f"{name.replace('_', ' ')} {said(value)}")
    return f"All of them: {', '.join(told)}." if told else ""


def number_names(path: Mapping[str, Tensor]) -> list[str]:
    """A name for every number of parameters (runs, records, *shape): ``bias``, ``weight[0, 2]``."""
    names = []
    for name, values in path.items():
        shape = values.shape[2:]
        if shape.numel() == 1:
            names.append(name)
        else:
            names += [f"{name}[{', '.join(map(str, at))}]" for at in np.ndindex(*shape)]
    return names
