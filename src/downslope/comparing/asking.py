"""What a comparison is asked for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from downslope.errors import InputError, listed, nearest
from downslope.optimizers import is_number
from downslope.schedules import Schedule
from downslope.search_spaces import Space


def check_words(unknown: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse arguments that `compare` does not have; a hyperparameter belongs to a `Space`."""
    for name in unknown:
        if name == "live":
            raise InputError(
                "compare has no live view: it makes many descents, one after another; "
                "descend(..., live=True) shows one"
            )
        hint = nearest(name, known)
        if not hint:
            raise InputError(
                f"compare has no argument {name!r}; a hyperparameter belongs to the space of its "
                f"optimizer, as in Space('sgd', {name}=...)"
            )
        raise InputError(f"compare has no argument {name!r}{hint}; it has {listed(known)}")


def check_one(name: str, value: Any) -> None:
    """Refuse anything but one number above 0, or None, for what holds for all runs."""
    if value is None or (is_number(value) and float(value) > 0 and not np.isnan(float(value))):
        return
    raise InputError(
        f"{name} holds for all runs of a comparison: give one number above 0, or None, "
        f"got {value!r}"
    )


def rate_is_set(schedule: Any, space: Space, budget: int, length: int) -> bool:
    """Whether a schedule sets the rate that is searched, as OneCycleLR's max_lr does: optimizers of
    different rates have the same once it is made."""
    if not isinstance(schedule, Schedule) or "lr" not in space.searched:
        return False
    trials = sorted(space.trials(max(budget, 2), 0), key=lambda trial: float(trial["lr"]))
    rates = []
    for trial in (trials[0], trials[-1]):
        made = space.optimizer([torch.zeros(1, 1, requires_grad=True)], **trial)
        schedule.make(made, length)
        rates.append(float(made.param_groups[0]["lr"]))
    return bool(rates[0] == rates[1] and trials[0]["lr"] != trials[-1]["lr"])


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def seeds_of(name: str, given: Any, first: int) -> tuple[int, ...]:
    """Seeds by their number, from `first` on, or as they were given."""
    if isinstance(given, np.ndarray) and given.ndim:
        given = given.tolist()
    if isinstance(given, list | tuple | range):
        seeds = tuple(whole(f"each of {name}", seed, 0) for seed in given)
        if not seeds or len({*seeds}) < len(seeds):
            raise InputError(f"{name} must be different seeds, at least one, got {list(given)!r}")
        return seeds
    return tuple(range(first, first + whole(name, given, 1)))


def label_of(given: Any, spaces: Sequence[Space]) -> str:
    """The label of the optimizer that is meant by its label, class or name, in any case.

    Raises:
        InputError: where none is, or more than one.
    """
    labels = [space.label for space in spaces]
    if given in labels:
        return str(given)
    word = getattr(given, "__name__", given)
    if isinstance(given, Space):
        word = given.label
    word = str(word).strip().lower()
    for meant in (
        [label for label in labels if label.lower() == word],
        [space.label for space in spaces if space.optimizer.__name__.lower() == word],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise InputError(f"baseline {given!r} may be {listed(meant)}: give one of these labels")
    raise InputError(
        f"baseline {given!r} is not among the optimizers {', '.join(labels)}{nearest(word, labels)}"
    )
